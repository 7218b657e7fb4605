//! The end of `disable`: what does not depend on nodes is taken away.
//!
//! Whoever began a `disable` need not be there at its end. The definition of `ImageAcceleration`
//! bears a mark from the beginning on; once that object is gone, anybody who sees the mark (the API
//! server does) can take away the rest, several at once too. An `enable` in between takes the mark
//! away, so only objects that were there under the mark are deleted, told by their uid.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::json;
use uimgacc_objects::names;

use crate::error::Error;
use crate::manifests::{self, DEFAULT_IMAGE, Manifest};
use crate::{Cluster, observe};

/// The definition that bears the mark.
const MARKED: &str = "imageaccelerations.uimgacc.io";
/// How long the API server may take to forget a definition.
const FORGET: Duration = Duration::from_secs(60);

/// An object that is to be deleted, if it still is the one that was seen.
struct Deletion {
    api: Api<DynamicObject>,
    name: String,
    uid: String,
    title: String,
}

impl Cluster {
    /// The definition, where it bears the mark.
    pub(crate) async fn removal_mark(&self) -> Result<Option<CustomResourceDefinition>, Error> {
        let definitions = self.all::<CustomResourceDefinition>();
        let action = "read the definition of ImageAcceleration";
        let definition = self.find(&definitions, MARKED, action).await?;
        Ok(definition.filter(is_marked))
    }

    /// Sets the mark; nothing where the definition is gone.
    pub(crate) async fn mark_removal(&self) -> Result<(), Error> {
        self.write_mark(Some("true"), None).await
    }

    /// Takes the mark away; where `mark` is given only while it still is this one, for a later
    /// `disable` has another.
    async fn unmark(&self, mark: Option<&CustomResourceDefinition>) -> Result<(), Error> {
        let version = mark.and_then(|mark| mark.metadata.resource_version.as_deref());
        self.write_mark(None, version).await
    }

    async fn write_mark(&self, value: Option<&str>, version: Option<&str>) -> Result<(), Error> {
        let mut patch = json!({"metadata": {"annotations": {names::REMOVE_ANNOTATION: value}}});
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = json!(version);
        }
        let definitions = self.all::<CustomResourceDefinition>();
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        match definitions.patch(MARKED, &params, &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(kube::Error::Api(status)) if version.is_some() && status.code == 409 => Ok(()),
            Err(error) => Err(self.failed("mark the definition of ImageAcceleration")(
                error,
            )),
        }
    }

    /// Takes away agent, roles, Secret and definitions, where a `disable` was asked for and the
    /// nodes are done; whether it did. May be asked by several at once, and again.
    ///
    /// # Errors
    /// The API does not answer or refuses.
    pub async fn finish_disable(&self) -> Result<bool, Error> {
        let Some(mark) = self.removal_mark().await? else {
            return Ok(false);
        };
        if self.acceleration().await?.is_some() {
            return Ok(false);
        }
        self.remove_all(Some(&mark)).await?;
        Ok(true)
    }

    /// As [`Self::finish_disable`], and the definitions that were deleted are forgotten after it:
    /// for an `enable` that comes just then.
    pub(crate) async fn settle_disable(&self) -> Result<(), Error> {
        if !self.finish_disable().await? {
            let acceleration = self.acceleration().await?;
            if acceleration.is_some_and(|one| one.metadata.deletion_timestamp.is_some()) {
                return Err(Error::BeingDisabled);
            }
            self.unmark(None).await?;
        }
        for manifest in manifests::definitions()? {
            let gone = observe::until(
                self,
                self.all::<CustomResourceDefinition>(),
                manifest.name(),
                FORGET,
                "watch the definitions",
                |definition: Option<&CustomResourceDefinition>| {
                    let is_ending =
                        definition.is_some_and(|one| one.metadata.deletion_timestamp.is_some());
                    (!is_ending).then_some(Ok(()))
                },
            );
            gone.await?.ok_or_else(|| Error::Timeout {
                what: format!("the old definition {} is not gone", manifest.name()),
                after: FORGET,
                missing: Vec::new(),
            })?;
        }
        Ok(())
    }

    /// Deletes all but the definitions, and these where no image is left; returns how many images
    /// are. `mark` is the definition under whose mark this is done; without one it is done whatever the
    /// mark.
    pub(crate) async fn remove_all(
        &self,
        mark: Option<&CustomResourceDefinition>,
    ) -> Result<usize, Error> {
        let mut seen = Vec::new();
        for manifest in manifests::static_objects(DEFAULT_IMAGE)?.iter().rev() {
            seen.extend(self.see(manifest).await?);
        }
        // First what refuses things; an API server that does not know policies has none.
        for manifest in manifests::policy()?.iter().rev() {
            seen.extend(self.see(manifest).await?);
        }
        seen.extend(self.see_secret().await?);
        let images = match self.list_images().await {
            Err(Error::NotEnabled) => 0,
            other => other?.len(),
        };
        let mut definitions = Vec::new();
        if images == 0 {
            for manifest in manifests::definitions()? {
                definitions.extend(self.see(&manifest).await?);
            }
            // That with the mark last, so that a removal that is cut short is gone on with.
            definitions.sort_by_key(|one| one.name == MARKED);
        }
        if let Some(mark) = mark {
            let now = self.removal_mark().await?;
            if now.is_none_or(|now| now.metadata.resource_version != mark.metadata.resource_version)
            {
                return Ok(images);
            }
        }
        for one in seen.iter().chain(&definitions) {
            self.delete_seen(one).await?;
        }
        if images > 0 {
            self.unmark(mark).await?;
        }
        Ok(images)
    }

    async fn see(&self, manifest: &Manifest) -> Result<Option<Deletion>, Error> {
        let api = self.dynamic(&manifest.resource, manifest.namespace());
        let title = manifest.title();
        let found = self
            .find(&api, manifest.name(), &format!("read {title}"))
            .await?;
        Ok(found.and_then(|object| {
            Some(Deletion {
                name: object.name_any(),
                uid: object.uid()?,
                title,
                api,
            })
        }))
    }

    /// The Secret that `enable` made; one of the user's own stays.
    async fn see_secret(&self) -> Result<Option<Deletion>, Error> {
        let secrets = self.ours::<Secret>();
        let action = "read the registry's Secret";
        let secret = self
            .find(&secrets, names::REGISTRY_SECRET, action)
            .await?
            .filter(|secret| {
                secret
                    .labels()
                    .get(names::PART_OF_LABEL)
                    .map(String::as_str)
                    == Some(names::PART_OF)
            });
        let resource = kube::core::ApiResource::erase::<Secret>(&());
        Ok(secret.and_then(|secret| {
            Some(Deletion {
                api: self.dynamic(&resource, Some(names::NAMESPACE)),
                name: secret.name_any(),
                uid: secret.uid()?,
                title: "the registry's Secret".to_owned(),
            })
        }))
    }

    async fn delete_seen(&self, seen: &Deletion) -> Result<(), Error> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(seen.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        match seen.api.delete(&seen.name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or another by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(self.failed(&format!("delete {}", seen.title))(error)),
        }
    }
}

/// Whether a `disable` was asked for.
fn is_marked(definition: &CustomResourceDefinition) -> bool {
    definition
        .annotations()
        .contains_key(names::REMOVE_ANNOTATION)
}
