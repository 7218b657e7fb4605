//! Does at the API server what was decided: each write names uid and version of the object that it was
//! decided on, see [`super::term`].

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uimgacc_objects::{
    AcceleratedImage, AccelerationNode, AccelerationNodeSpec, ImageAcceleration, names,
};

use super::build::NewJob;
use super::context::Shared;
use super::decide::{Action, Note, cluster, image};
use super::metrics::Kind;
use super::view::Meta;
use super::wire::{WireDaemonSet, WireJob};

/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest note of an event, in bytes.
const LONGEST_NOTE: usize = 1000;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ExecuteError {
    /// The API server refused it or could not be reached.
    #[error("{what} failed")]
    Api {
        /// What was done.
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("{0}: the API server does not answer")]
    Timeout(String),
    /// What it concerns is gone or changed meanwhile: it is looked at again.
    #[error("{0}: the object is not what it was")]
    Changed(String),
    /// This process does not lead any more.
    #[error("this process no longer leads, so it writes nothing")]
    Deposed,
}

impl ExecuteError {
    /// Whether it failed because this process leads no more.
    #[must_use]
    pub const fn is_deposed(&self) -> bool {
        matches!(self, Self::Deposed)
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
    /// Writes while the term lasts that `shared` has.
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
        if !self.shared.term.lasts() {
            return Err(ExecuteError::Deposed);
        }
        match tokio::time::timeout(PATIENCE, work).await {
            Err(_) => Err(ExecuteError::Timeout(what.to_owned())),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() =>
            {
                tracing::debug!(what, message = %status.message, "a conflict");
                Err(ExecuteError::Changed(what.to_owned()))
            }
            Ok(Err(source)) => Err(ExecuteError::Api {
                what: what.to_owned(),
                source: Box::new(source),
            }),
        }
    }

    /// Brings the status of an image to that. Returns what the object is then, where it is still there.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn image_status(
        &self,
        meta: &Meta,
        status: &image::Status,
    ) -> Result<Option<Meta>, ExecuteError> {
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
    ) -> Result<Option<Meta>, ExecuteError>
    where
        K: Clone + Resource + DeserializeOwned + std::fmt::Debug,
    {
        let patch = Patch::Apply(patch);
        let write = async { or_gone(api.patch_status(&meta.name, &applying(), &patch).await) };
        let written = self.call(what, write).await;
        if matches!(written, Err(ExecuteError::Changed(_))) {
            let read = self.call(what, api.get_opt(&meta.name)).await;
            read.into_iter().flatten().for_each(&saw);
        }
        Ok(written?.map(|written| {
            let meta = Meta::of(written.meta());
            saw(written);
            meta
        }))
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

    /// Brings the status of the `ImageAcceleration` to that. Returns what the object is then.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn cluster_status(
        &self,
        meta: &Meta,
        status: &cluster::Status,
    ) -> Result<Option<Meta>, ExecuteError> {
        let mut body = json!({
            "conditions": status.conditions,
            "nodes": status.nodes,
            "images": status.images,
            "restarting": status.restarting,
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
        if !self.shared.term.lasts() {
            return;
        }
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

    /// Does one action, to the object as it was when that was decided.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn act(&self, action: Action) -> Result<(), ExecuteError> {
        match action {
            Action::CreateJob(job) => self.create_job(&job).await,
            Action::DeleteJob(job) => self.delete_job(&job).await,
            Action::DeleteStray(job, image) => {
                // The Job may be right, and what is known of the image old.
                self.is_still(&image).await?;
                self.delete_job(&job).await
            }
            Action::ApplyInstaller(object, seen) => self.apply_installer(object, seen).await,
            Action::DeleteInstaller(installer) => self.delete_installer(&installer).await,
            Action::ImageFinalizers(image, all) => self.image_finalizers(&image, &all).await,
            Action::ClusterFinalizers(cluster, all) => {
                self.cluster_finalizers(&cluster, &all).await
            }
            Action::AskNode(node, spec) => self.ask_node(&node, spec).await,
            Action::DeleteAccelerationNode(node) => {
                let api = Api::<AccelerationNode>::all(self.client.clone());
                let what = format!("deletion of AccelerationNode {}", node.name);
                self.delete(&api, &node, DeleteParams::background(), &what)
                    .await
            }
        }
    }

    async fn ask_node(&self, node: &Meta, spec: AccelerationNodeSpec) -> Result<(), ExecuteError> {
        // All fields by name: serde leaves out an empty list, which here means "none any more".
        let AccelerationNodeSpec {
            release,
            leaving,
            uninstall,
        } = spec;
        let body = json!({
            "metadata": precondition(node),
            "spec": {"release": release, "leaving": leaving, "uninstall": uninstall},
        });
        let api = Api::<AccelerationNode>::all(self.client.clone());
        let patch = Patch::Merge(&body);
        let write = async { or_gone(api.patch(&node.name, &merging(), &patch).await) };
        let what = format!("spec of AccelerationNode {}", node.name);
        if let Some(node) = self.call(&what, write).await? {
            let event = watcher::Event::Apply(node);
            self.shared.change(|world| world.acceleration_node(event));
        }
        Ok(())
    }

    /// Deletes an object as it was seen.
    async fn delete<K>(
        &self,
        api: &Api<K>,
        seen: &Meta,
        params: DeleteParams,
        what: &str,
    ) -> Result<(), ExecuteError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let params = params.preconditions(Preconditions {
            uid: Some(seen.uid.clone()),
            resource_version: Some(seen.version.clone()),
        });
        let write = async { or_gone(api.delete(&seen.name, &params).await) };
        self.call(what, write).await.map(|_| ())
    }

    async fn create_job(&self, job: &NewJob) -> Result<(), ExecuteError> {
        let name = job.work.job_name();
        let what = format!("creation of Job {name}");
        let api = Api::<WireJob>::namespaced(self.client.clone(), &self.shared.namespace);
        let write = async {
            match self.post(&api, &job.object).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
                other => other.map(Some),
            }
        };
        if let Some(created) = self.call(&what, write).await? {
            let kind = job.work.component();
            self.shared.metrics.jobs.get_or_create(&Kind { kind }).inc();
            tracing::info!(job = %name, "created");
            self.shared
                .change(|world| world.job(watcher::Event::Apply(created)));
        }
        Ok(())
    }

    async fn post<K>(&self, api: &Api<K>, body: &Value) -> kube::Result<K>
    where
        K: Clone + Resource + DeserializeOwned + std::fmt::Debug,
    {
        let bytes = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
        let request = kube::core::Request::new(api.resource_url())
            .create(&PostParams::default(), bytes)
            .map_err(kube::Error::BuildRequest)?;
        self.client.request::<K>(request).await
    }

    async fn delete_job(&self, job: &Meta) -> Result<(), ExecuteError> {
        let api = Api::<Job>::namespaced(self.client.clone(), &self.shared.namespace);
        let what = format!("deletion of Job {}", job.name);
        // In the foreground, so that the Job is there as long as its Pod may work.
        self.delete(&api, job, DeleteParams::foreground(), &what)
            .await
    }

    async fn apply_installer(
        &self,
        mut object: Value,
        seen: Option<Meta>,
    ) -> Result<(), ExecuteError> {
        let api = Api::<WireDaemonSet>::namespaced(self.client.clone(), &self.shared.namespace);
        let params = applying();
        let write = async {
            let Some(seen) = seen else {
                return self.post(&api, &object).await;
            };
            // With the uid too: else one that is gone would be made again.
            object["metadata"]["uid"] = json!(seen.uid);
            object["metadata"]["resourceVersion"] = json!(seen.version);
            api.patch(names::NODE, &params, &Patch::Apply(&object))
                .await
        };
        let set = self.call("the DaemonSet uimgacc-node", write).await?;
        let event = watcher::Event::Apply(set);
        self.shared.change(|world| world.installer(event));
        Ok(())
    }

    async fn delete_installer(&self, installer: &Meta) -> Result<(), ExecuteError> {
        let api = Api::<DaemonSet>::namespaced(self.client.clone(), &self.shared.namespace);
        let what = "deletion of the DaemonSet uimgacc-node";
        self.delete(&api, installer, DeleteParams::foreground(), what)
            .await
    }

    async fn image_finalizers(&self, image: &Meta, all: &[String]) -> Result<(), ExecuteError> {
        let api = Api::<AcceleratedImage>::all(self.client.clone());
        let what = format!("finalizer of AcceleratedImage {}", image.name);
        let image = self.finalizers(&api, image, all, &what).await?;
        image.into_iter().for_each(|image| self.saw_image(image));
        Ok(())
    }

    async fn cluster_finalizers(&self, cluster: &Meta, all: &[String]) -> Result<(), ExecuteError> {
        let api = Api::<ImageAcceleration>::all(self.client.clone());
        let what = "finalizer of the ImageAcceleration";
        let cluster = self.finalizers(&api, cluster, all, what).await?;
        // The answer to removing the last finalizer is of an object that is gone.
        if let Some(cluster) = cluster.filter(|_| !all.is_empty()) {
            let event = watcher::Event::Apply(cluster);
            self.shared.change(|world| world.cluster_event(event));
        }
        Ok(())
    }

    /// Replaces the finalizers of an object as it was seen.
    async fn finalizers<K>(
        &self,
        api: &Api<K>,
        seen: &Meta,
        all: &[String],
        what: &str,
    ) -> Result<Option<K>, ExecuteError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut metadata = precondition(seen);
        metadata["finalizers"] = json!(all);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let write = async { or_gone(api.patch(&seen.name, &merging(), &patch).await) };
        self.call(what, write).await
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

/// The metadata of a patch that applies to the object as it was seen only.
fn precondition(seen: &Meta) -> Value {
    json!({"uid": seen.uid, "resourceVersion": seen.version})
}
