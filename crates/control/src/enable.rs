//! `enable`: from a bare cluster to one that starts accelerated images; also changes and upgrades.
//!
//! What is applied, in this order: definitions, accounts and roles, the agent, the Secret of the
//! registry, the `ImageAcceleration`. Each step may be repeated; an `enable` that is cut short is
//! gone on with by the same again. What a later `enable` does not mention stays as it is.

pub(crate) mod plan;
mod wait;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use uimgacc_objects::{Fallback, ImageAcceleration, ImageAccelerationSpec, Originals, names};

use crate::credentials::{self, Login};
use crate::error::Error;
use crate::manifests::{self, Manifest};
use crate::observe;
use crate::{Cluster, Progress};

/// How long `enable` waits where nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// How long the API server may take to serve new kinds.
const ESTABLISH: Duration = Duration::from_secs(60);

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChoice {
    /// An NFS export, as [`uimgacc_types::NfsAddress`] reads it.
    Nfs(String),
    /// A claim in kube-system.
    Claim(String),
    /// A folder of every node.
    HostPath(String),
}

/// Changes of where things are on nodes; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePathChanges {
    /// containerd's configuration.
    pub containerd_config: Option<String>,
    /// containerd's socket.
    pub containerd_socket: Option<String>,
    /// containerd's program.
    pub containerd_binary: Option<String>,
    /// What restarts containerd, as words.
    pub containerd_restart: Option<Vec<String>>,
    /// Where our programs go.
    pub bin_dir: Option<String>,
    /// Folder of the snapshotter.
    pub root_dir: Option<String>,
    /// Folder of sockets.
    pub run_dir: Option<String>,
    /// Folder of our configuration.
    pub config_dir: Option<String>,
}

/// What is to be enabled. What is `None` stays as it is, or is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnableRequest {
    /// Where the store is; must be said the first time.
    pub store: Option<StoreChoice>,
    /// The subnet of the store, which is only kept and told.
    pub subnet: Option<String>,
    /// User and password at a registry, which go into the Secret.
    pub login: Option<Login>,
    /// An existing Secret of type kubernetes.io/dockerconfigjson in kube-system, instead of ours.
    pub credentials_secret: Option<String>,
    /// Where target images may be pushed; an empty text: where there are credentials for.
    pub allowed_targets: Option<Vec<String>>,
    /// For which originals credentials are used; an empty text: for those of their registries.
    pub credentials_for: Option<Vec<String>>,
    /// Registries without TLS.
    pub plain_http_registries: Option<Vec<String>>,
    /// Labels that nodes must have.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Our own image. Without it that of this version, unless another repository is in use.
    pub image: Option<String>,
    /// What nodes do without the store.
    pub fallback: Option<Fallback>,
    /// What nodes do with originals.
    pub originals: Option<Originals>,
    /// Conversions at once.
    pub max_conversions: Option<u32>,
    /// Nodes whose containerd may be restarted at the same time.
    pub max_unavailable: Option<u32>,
    /// Where things are on nodes.
    pub node_paths: NodePathChanges,
    /// Take another store although there are images in the old one.
    pub change_store: bool,
    /// How long to wait until all is ready; `None`: not at all.
    pub wait: Option<Duration>,
}

/// What `enable` prints instead of applying it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// Everything.
    All,
    /// The definitions alone, which must be there before the rest.
    Definitions,
    /// All but the definitions.
    Rest,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnableReport {
    /// Version of Kubernetes.
    pub kubernetes: String,
    /// The image that everything runs from.
    pub image: String,
    /// Nodes that can run accelerated images; 0 where it was not waited for.
    pub ready_nodes: u32,
    /// Whether it was waited for.
    pub is_ready: bool,
}

/// The object, as it is applied.
fn acceleration_object(spec: &ImageAccelerationSpec, subnet: Option<&str>) -> Value {
    let mut object = json!({
        "apiVersion": "uimgacc.io/v1",
        "kind": "ImageAcceleration",
        "metadata": {
            "name": names::DEFAULT,
            "labels": { (names::PART_OF_LABEL): names::PART_OF },
        },
        "spec": spec,
    });
    if let Some(subnet) = subnet {
        object["metadata"]["annotations"] = json!({ names::SUBNET_ANNOTATION: subnet });
    }
    object
}

impl EnableRequest {
    /// What a first `enable` would apply, in this order. Asks no cluster.
    ///
    /// # Errors
    /// The request makes no sense.
    pub fn manifests(&self, which: DryRun) -> Result<Vec<Value>, Error> {
        let spec = plan::spec(None, self, &[])?;
        let mut objects = Vec::new();
        let of = |manifests: Vec<Manifest>| manifests.into_iter().map(|manifest| manifest.object);
        if which != DryRun::Rest {
            objects.extend(of(manifests::definitions()?));
        }
        if which != DryRun::Definitions {
            objects.extend(of(manifests::static_objects(&spec.image)?));
            if let (Some(login), Some(reference)) = (&self.login, &spec.registry_credentials) {
                let secret = credentials::secret(&reference.name, None, login)?;
                objects.push(serde_json::to_value(secret).unwrap_or_default());
            }
            objects.push(acceleration_object(&spec, self.subnet.as_deref()));
        }
        Ok(objects)
    }
}

impl Cluster {
    /// Enables the cluster, changes how it is enabled, or upgrades it.
    ///
    /// # Errors
    /// The request makes no sense, the cluster is too old or refuses, or not all is ready in time;
    /// the error then says what is missing, node by node.
    pub async fn enable(
        &self,
        request: &EnableRequest,
        progress: &dyn Progress,
    ) -> Result<EnableReport, Error> {
        // What is wrong with the request itself is said before anything is changed.
        let version = self.supported_version().await?;
        let old = self.acceleration().await?;
        if let Some(old) = &old
            && old.metadata.deletion_timestamp.is_some()
        {
            return Err(Error::BeingDisabled);
        }
        let registries = self.registries(old.as_ref(), request).await?;
        let spec = plan::spec(old.as_ref().map(|old| &old.spec), request, &registries)?;
        let subnet = request.subnet.as_deref().or_else(|| {
            let annotations = old.as_ref()?.annotations();
            annotations
                .get(names::SUBNET_ANNOTATION)
                .map(String::as_str)
        });
        self.check_store_change(old.as_ref(), &spec, request)
            .await?;
        progress.say(&format!("Kubernetes {} at {}", version.text, self.server()));

        if let (Some(_), Some(reference)) = (&request.login, &spec.registry_credentials) {
            // Who may not write it learns that before anything is changed.
            let secrets = self.ours::<Secret>();
            let read = secrets.get_opt(&reference.name).await;
            read.map_err(self.failed(&format!("read the Secret {}", reference.name)))?;
        }
        self.settle_disable().await?;
        self.apply_definitions().await?;
        progress.say("definitions are there");
        for manifest in manifests::static_objects(&spec.image)? {
            self.apply_manifest(&manifest).await?;
        }
        progress.say(&format!("roles and agent are there ({})", spec.image));
        if self.has_admission_policies().await? {
            for manifest in manifests::policy()? {
                self.apply_manifest(&manifest).await?;
            }
            progress.say("the admission policy is there");
        }
        if let (Some(login), Some(reference)) = (&request.login, &spec.registry_credentials) {
            self.store_login(&reference.name, login).await?;
            progress.say(&format!(
                "the password of {} at {} is in the Secret {}/{}",
                login.username,
                login.registry,
                names::NAMESPACE,
                reference.name
            ));
        }
        self.apply_acceleration(old.as_ref(), &spec, subnet).await?;
        progress.say("the ImageAcceleration is there");
        if let Some(allowed) = &spec.allowed_targets {
            progress.say(&format!("images may be pushed to {}", allowed.join(", ")));
        }
        let ready_nodes = match request.wait {
            Some(within) => Some(self.wait_enabled(within, progress).await?),
            None => None,
        };
        Ok(EnableReport {
            kubernetes: version.text,
            image: spec.image,
            ready_nodes: ready_nodes.unwrap_or(0),
            is_ready: ready_nodes.is_some(),
        })
    }

    /// The registries that the Secret has credentials for, where the lists of the
    /// `ImageAcceleration` are made from them.
    async fn registries(
        &self,
        old: Option<&ImageAcceleration>,
        request: &EnableRequest,
    ) -> Result<Vec<String>, Error> {
        let old = old.map(|old| &old.spec);
        let has_lists =
            old.is_some_and(|old| old.allowed_targets.is_some() && old.credentials_for.is_some());
        let is_reset = [&request.allowed_targets, &request.credentials_for]
            .into_iter()
            .flatten()
            .any(|list| list.iter().all(String::is_empty));
        let is_needed = !has_lists || is_reset || request.credentials_secret.is_some();
        match plan::credentials(old, request) {
            Some(reference) if is_needed => self.registries_of(&reference.name).await,
            _ => Ok(Vec::new()),
        }
    }

    /// Whether the API server knows policies for admission (Kubernetes 1.30 and later).
    async fn has_admission_policies(&self) -> Result<bool, Error> {
        let group = "admissionregistration.k8s.io/v1";
        match self.client.list_api_group_resources(group).await {
            Ok(list) => Ok(list
                .resources
                .iter()
                .any(|one| one.name == "validatingadmissionpolicies")),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
            Err(error) => Err(self.failed("ask for admission policies")(error)),
        }
    }

    /// Images of the old store would be lost from sight.
    async fn check_store_change(
        &self,
        old: Option<&ImageAcceleration>,
        new: &ImageAccelerationSpec,
        request: &EnableRequest,
    ) -> Result<(), Error> {
        let Some(old) = old.filter(|old| plan::is_other_store(&old.spec.store, &new.store)) else {
            return Ok(());
        };
        if request.change_store {
            return Ok(());
        }
        let images = self.list_images().await?;
        if images.is_empty() {
            return Ok(());
        }
        Err(Error::Invalid {
            message: format!(
                "the store is {}; {} images lie in it",
                plan::describe(&old.spec.store),
                images.len()
            ),
            hint:
                "delete the images first; --force takes the other store if it holds the same data"
                    .to_owned(),
        })
    }

    async fn apply_definitions(&self) -> Result<(), Error> {
        let definitions = manifests::definitions()?;
        for manifest in &definitions {
            self.apply_manifest(manifest).await?;
        }
        for manifest in &definitions {
            let established = observe::until(
                self,
                self.all::<CustomResourceDefinition>(),
                manifest.name(),
                ESTABLISH,
                "watch the definitions",
                |definition: Option<&CustomResourceDefinition>| {
                    let status = definition?.status.as_ref()?;
                    let conditions = status.conditions.iter().flatten();
                    for condition in conditions {
                        match (condition.type_.as_str(), condition.status.as_str()) {
                            ("Established", "True") => return Some(Ok(())),
                            ("NamesAccepted", "False") => {
                                return Some(Err(Error::Invalid {
                                    message: format!(
                                        "the cluster does not take the definition {}: {}",
                                        manifest.name(),
                                        condition.message.clone().unwrap_or_default()
                                    ),
                                    hint: "another definition has the same names".to_owned(),
                                }));
                            }
                            _ => {}
                        }
                    }
                    None
                },
            );
            established.await?.ok_or_else(|| Error::Timeout {
                what: format!("the definition {} is not served", manifest.name()),
                after: ESTABLISH,
                missing: Vec::new(),
            })?;
        }
        Ok(())
    }

    async fn apply_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let api = self.dynamic(&manifest.resource, manifest.namespace());
        self.apply(&api, manifest.name(), &manifest.object, &manifest.title())
            .await?;
        Ok(())
    }

    async fn apply_acceleration(
        &self,
        old: Option<&ImageAcceleration>,
        spec: &ImageAccelerationSpec,
        subnet: Option<&str>,
    ) -> Result<(), Error> {
        let api = self.all::<ImageAcceleration>();
        let action = "the ImageAcceleration";
        if let Some(old) = old
            && plan::is_other_kind(&old.spec.store, &spec.store)
        {
            // Server-side apply leaves the old store's field where another manager owns it.
            let patch = json!({"spec": {"store": {
                "nfs": spec.store.nfs,
                "persistentVolumeClaim": spec.store.persistent_volume_claim,
                "hostPath": spec.store.host_path,
            }}});
            let params = PatchParams {
                field_manager: Some(names::FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            api.patch(names::DEFAULT, &params, &Patch::Merge(&patch))
                .await
                .map_err(self.failed("change the store"))?;
        }
        let object = acceleration_object(spec, subnet);
        let applied = self.apply(&api, names::DEFAULT, &object, action).await?;
        if applied.metadata.deletion_timestamp.is_some() {
            return Err(Error::BeingDisabled);
        }
        Ok(())
    }
}
