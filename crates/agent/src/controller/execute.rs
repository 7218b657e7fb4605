//! Does at the API server what was decided. Everything goes through the fenced client.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uimgacc_objects::{
    AcceleratedImage, AccelerationNode, AccelerationNodeSpec, ImageAcceleration, names,
};

use super::build;
use super::context::Shared;
use super::decide::{Action, Note, cluster, image};
use super::metrics::Kind;
use super::view::{CLUSTER_FINALIZER, Meta};
use super::wire::{WireDaemonSet, WireJob};

/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest note of an event, in bytes.
const LONGEST_NOTE: usize = 1000;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The API server refused it or could not be reached.
    #[error("{what} failed")]
    Api {
        /// What was done.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("{0}: the API server does not answer")]
    Timeout(String),
    /// What it concerns is gone or changed meanwhile: it is looked at again.
    #[error("{0}: the object is not what it was")]
    Changed(String),
}

impl ExecuteError {
    /// Whether it failed because this process leads no more.
    #[must_use]
    pub fn is_deposed(&self) -> bool {
        matches!(self, Self::Api { source, .. } if super::fence::is_deposed(source))
    }
}

/// Does it.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    recorder: Recorder,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

fn applying() -> PatchParams {
    PatchParams::apply(names::FIELD_MANAGER).force()
}

fn merging() -> PatchParams {
    PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// The object may be gone already: then there is nothing to do.
fn or_gone<T>(result: kube::Result<T>) -> kube::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Executor {
    /// `client` must be the fenced one.
    #[must_use]
    pub fn new(client: Client, instance: &str, shared: Arc<Shared>) -> Self {
        let reporter = Reporter {
            controller: names::AGENT.to_owned(),
            instance: Some(instance.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            shared,
        }
    }

    async fn call<T>(
        &self,
        what: &str,
        work: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ExecuteError> {
        match tokio::time::timeout(PATIENCE, work).await {
            Err(_) => Err(ExecuteError::Timeout(what.to_owned())),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => {
                tracing::debug!(what, message = %status.message, "a conflict");
                Err(ExecuteError::Changed(what.to_owned()))
            }
            Ok(Err(source)) => Err(ExecuteError::Api {
                what: what.to_owned(),
                source: Box::new(source),
            }),
        }
    }

    /// Brings the status of an image to that.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn image_status(
        &self,
        meta: &Meta,
        status: &image::Status,
    ) -> Result<(), ExecuteError> {
        let mut body = json!({
            "phase": status.phase,
            "failures": status.failures,
            "conditions": status.conditions,
        });
        set(&mut body, "observedGeneration", &status.observed_generation);
        set(&mut body, "error", &status.error);
        set(&mut body, "observedRetry", &status.observed_retry);
        set(&mut body, "job", &status.job);
        let patch = status_patch("AcceleratedImage", meta, &body);
        let what = format!("status of AcceleratedImage {}", meta.name);
        let api = Api::<AcceleratedImage>::all(self.client.clone());
        self.status(&api, meta, &what, &patch, |image| self.saw_image(image))
            .await
    }

    /// Writes a status. What there is then is noted, also where another wrote first: the watch may be
    /// late, or broken.
    async fn status<K>(
        &self,
        api: &Api<K>,
        meta: &Meta,
        what: &str,
        patch: &Value,
        saw: impl Fn(K),
    ) -> Result<(), ExecuteError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let patch = Patch::Apply(patch);
        let write = async { or_gone(api.patch_status(&meta.name, &applying(), &patch).await) };
        let written = self.call(what, write).await;
        if matches!(written, Err(ExecuteError::Changed(_))) {
            let read = self.call(what, api.get_opt(&meta.name)).await;
            read.into_iter().flatten().for_each(&saw);
        }
        written?.into_iter().for_each(saw);
        Ok(())
    }

    /// Asks for an image once more; fails where it is not as `meta` says, which is noted.
    async fn is_still(&self, meta: &Meta) -> Result<(), ExecuteError> {
        let api = Api::<AcceleratedImage>::all(self.client.clone());
        let what = format!("AcceleratedImage {}", meta.name);
        let found = self.call(&what, api.get_opt(&meta.name)).await?;
        let same = found.as_ref().is_some_and(|found| {
            let found = Meta::of(&found.metadata);
            found.uid == meta.uid && found.deleting == meta.deleting
        });
        found.into_iter().for_each(|image| self.saw_image(image));
        same.then_some(()).ok_or(ExecuteError::Changed(what))
    }

    fn saw_image(&self, image: AcceleratedImage) {
        // The answer to removing the last finalizer is of an object that is gone.
        let gone = image.metadata.deletion_timestamp.is_some()
            && image.metadata.finalizers.as_ref().is_none_or(Vec::is_empty);
        let event = if gone {
            watcher::Event::Delete(image)
        } else {
            watcher::Event::Apply(image)
        };
        self.shared.change(|world| world.image(event));
    }

    /// Brings the status of the `ImageAcceleration` to that.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn cluster_status(
        &self,
        meta: &Meta,
        status: &cluster::Status,
    ) -> Result<(), ExecuteError> {
        let mut body = json!({
            "conditions": status.conditions,
            "nodes": status.nodes,
            "images": status.images,
        });
        set(&mut body, "observedGeneration", &status.observed_generation);
        let patch = status_patch("ImageAcceleration", meta, &body);
        let api = Api::<ImageAcceleration>::all(self.client.clone());
        let what = "status of the ImageAcceleration";
        self.status(&api, meta, what, &patch, |one| {
            let event = watcher::Event::Apply(one);
            self.shared.change(|world| world.cluster_event(event));
        })
        .await
    }

    /// Tells people. An event that cannot be written is no reason to stop.
    pub async fn tell(&self, kind: &str, meta: &Meta, note: &Note) {
        let mut text = note.text.clone();
        while text.len() > LONGEST_NOTE {
            text.pop();
        }
        let event = Event {
            type_: if note.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: note.reason.to_owned(),
            note: Some(text),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let object = ObjectReference {
            api_version: Some(format!("{}/v1", names::GROUP)),
            kind: Some(kind.to_owned()),
            name: Some(meta.name.clone()),
            uid: Some(meta.uid.clone()),
            ..ObjectReference::default()
        };
        let write = self.recorder.publish(&event, &object);
        match tokio::time::timeout(PATIENCE, write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, reason = note.reason, "an event could not be written");
            }
            Err(_) => tracing::warn!(reason = note.reason, "an event took too long"),
        }
    }

    /// Does one action.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn act(&self, action: Action) -> Result<(), ExecuteError> {
        match action {
            Action::CreateJob(work) => self.create_job(&work).await,
            Action::DeleteJob(name, uid) => self.delete_job(&name, &uid).await,
            Action::DeleteStray(name, uid, image) => {
                // The Job may be right, and what is known of the image old.
                self.is_still(&image).await?;
                self.delete_job(&name, &uid).await
            }
            Action::ApplyInstaller => self.apply_installer().await,
            Action::DeleteInstaller(uid) => self.delete_installer(&uid).await,
            Action::ImageFinalizer(name, wanted) => self.image_finalizer(&name, wanted).await,
            Action::ClusterFinalizer(wanted) => self.cluster_finalizer(wanted).await,
            Action::AskNode(name, spec) => {
                let api = Api::<AccelerationNode>::all(self.client.clone());
                // All fields by name: serde leaves out an empty list, which here means "none any more".
                let AccelerationNodeSpec {
                    release,
                    may_restart,
                    leaving,
                    uninstall,
                } = spec;
                let mut body = json!({"spec": {
                    "release": release,
                    "mayRestart": may_restart,
                    "leaving": leaving,
                    "uninstall": uninstall,
                }});
                // With the version: a turn that comes late could give two nodes one at once.
                match self.shared.world().leases.get(&name) {
                    Some(lease) => {
                        body["metadata"] = json!({"resourceVersion": lease.meta.version});
                    }
                    None => return Ok(()),
                }
                let patch = Patch::Merge(&body);
                let write = async { or_gone(api.patch(&name, &merging(), &patch).await) };
                let what = format!("spec of AccelerationNode {name}");
                if let Some(node) = self.call(&what, write).await? {
                    let event = watcher::Event::Apply(node);
                    self.shared.change(|world| world.lease(event));
                }
                Ok(())
            }
            Action::DeleteLease(meta) => {
                let api = Api::<AccelerationNode>::all(self.client.clone());
                // With the version: one that came back meanwhile may have a turn.
                let params = DeleteParams::background().preconditions(Preconditions {
                    uid: Some(meta.uid),
                    resource_version: Some(meta.version),
                });
                let write = async { or_gone(api.delete(&meta.name, &params).await) };
                let what = format!("deletion of AccelerationNode {}", meta.name);
                self.call(&what, write).await.map(|_| ())
            }
        }
    }

    async fn create_job(&self, work: &build::Work) -> Result<(), ExecuteError> {
        let built = {
            let world = self.shared.world();
            let cluster = world.cluster().cloned();
            let image = work
                .image()
                .and_then(|name| world.images.get(name))
                .cloned();
            if work.image().is_some() && image.is_none() {
                return Ok(());
            }
            cluster.map(|cluster| {
                let image = image.as_deref().map(Into::into);
                build::job(work, &cluster.spec, image, &self.shared.namespace).0
            })
        };
        let Some(body) = built else { return Ok(()) };
        let name = work.job_name();
        let what = format!("creation of Job {name}");
        let api = Api::<WireJob>::namespaced(self.client.clone(), &self.shared.namespace);
        let write = async {
            match self.post_job(&api, &body).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
                other => other.map(Some),
            }
        };
        if let Some(job) = self.call(&what, write).await? {
            let kind = work.component();
            self.shared.metrics.jobs.get_or_create(&Kind { kind }).inc();
            tracing::info!(job = %name, "made");
            self.shared
                .change(|world| world.job(watcher::Event::Apply(job)));
        }
        Ok(())
    }

    async fn post_job(&self, api: &Api<WireJob>, body: &Value) -> kube::Result<WireJob> {
        let bytes = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
        let request = kube::core::Request::new(api.resource_url())
            .create(&PostParams::default(), bytes)
            .map_err(kube::Error::BuildRequest)?;
        self.client.request::<WireJob>(request).await
    }

    async fn delete_job(&self, name: &str, uid: &str) -> Result<(), ExecuteError> {
        let api = Api::<Job>::namespaced(self.client.clone(), &self.shared.namespace);
        // In the foreground, so that the Job is there as long as its Pod may work.
        let params = with_uid(DeleteParams::foreground(), uid);
        let write = async { or_gone(api.delete(name, &params).await) };
        self.call(&format!("deletion of Job {name}"), write).await?;
        Ok(())
    }

    async fn apply_installer(&self) -> Result<(), ExecuteError> {
        let (cluster, installer) = {
            let world = self.shared.world();
            let installer = world.installers.get(names::NODE).cloned();
            (world.cluster().cloned(), installer)
        };
        let Some(cluster) = cluster else {
            return Ok(());
        };
        let (mut body, _) = build::installer(&cluster.spec, &self.shared.namespace);
        if let Some(installer) = installer {
            // With the uid too: else one that is gone would be made again.
            body["metadata"]["uid"] = json!(installer.meta.uid);
            body["metadata"]["resourceVersion"] = json!(installer.meta.version);
        }
        let api = Api::<WireDaemonSet>::namespaced(self.client.clone(), &self.shared.namespace);
        let patch = Patch::Apply(&body);
        let params = applying();
        let write = api.patch(names::NODE, &params, &patch);
        let set = self.call("the DaemonSet uimgacc-node", write).await?;
        let event = watcher::Event::Apply(set);
        self.shared.change(|world| world.installer(event));
        Ok(())
    }

    async fn delete_installer(&self, uid: &str) -> Result<(), ExecuteError> {
        let api = Api::<DaemonSet>::namespaced(self.client.clone(), &self.shared.namespace);
        let params = with_uid(DeleteParams::foreground(), uid);
        let write = async { or_gone(api.delete(names::NODE, &params).await) };
        self.call("deletion of the DaemonSet uimgacc-node", write)
            .await?;
        Ok(())
    }

    async fn image_finalizer(&self, name: &str, wanted: bool) -> Result<(), ExecuteError> {
        let Some(view) = self.shared.world().images.get(name).cloned() else {
            return Ok(());
        };
        let Some(body) = finalizers(&view.meta, &view.finalizers, names::FINALIZER, wanted) else {
            return Ok(());
        };
        let api = Api::<AcceleratedImage>::all(self.client.clone());
        let patch = Patch::Merge(&body);
        let write = async { or_gone(api.patch(name, &merging(), &patch).await) };
        let what = format!("finalizer of AcceleratedImage {name}");
        if let Some(image) = self.call(&what, write).await? {
            self.saw_image(image);
        }
        Ok(())
    }

    async fn cluster_finalizer(&self, wanted: bool) -> Result<(), ExecuteError> {
        let Some(view) = self.shared.world().cluster().cloned() else {
            return Ok(());
        };
        let Some(body) = finalizers(&view.meta, &view.finalizers, CLUSTER_FINALIZER, wanted) else {
            return Ok(());
        };
        let api = Api::<ImageAcceleration>::all(self.client.clone());
        let patch = Patch::Merge(&body);
        let write = async { or_gone(api.patch(names::DEFAULT, &merging(), &patch).await) };
        let what = "finalizer of the ImageAcceleration";
        if let Some(one) = self.call(what, write).await?.filter(|_| wanted) {
            let event = watcher::Event::Apply(one);
            self.shared.change(|world| world.cluster_event(event));
        }
        Ok(())
    }
}

fn set<T: serde::Serialize>(body: &mut Value, key: &str, value: &Option<T>) {
    if let Some(value) = value {
        body[key] = json!(value);
    }
}

/// With the uid, so that a status never lands in a later object of the same name, and with the
/// version, so that one that was decided before another wrote does not land at all.
fn status_patch(kind: &str, meta: &Meta, status: &Value) -> Value {
    json!({
        "apiVersion": format!("{}/v1", names::GROUP),
        "kind": kind,
        "metadata": {"name": meta.name, "uid": meta.uid, "resourceVersion": meta.version},
        "status": status,
    })
}

/// Only the object of that uid.
fn with_uid(params: DeleteParams, uid: &str) -> DeleteParams {
    params.preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    })
}

/// The patch that sets or removes a finalizer; with the version, for the list is replaced.
fn finalizers(meta: &Meta, all: &[String], ours: &str, wanted: bool) -> Option<Value> {
    if all.iter().any(|one| one == ours) == wanted {
        return None;
    }
    let mut all: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|one| *one != ours)
        .collect();
    if wanted {
        all.push(ours);
    }
    Some(json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.version,
        "finalizers": all,
    }}))
}
