//! Checks that ask the API server for single objects.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use uimgacc_objects::names;

use super::{Check, Outcome, definition_problems};
use crate::error::Error;
use crate::{Cluster, MIN_MINOR, manifests};

/// How old the leader's last sign of life may be.
const LEADER_SILENCE: Duration = Duration::from_secs(60);

impl Cluster {
    pub(super) async fn check_kubernetes(&self) -> Vec<Check> {
        let section = "Kubernetes";
        let answers = "the API answers";
        match self.version().await {
            Err(error) => vec![Check::of_error(section, answers, &error)],
            Ok(version) => {
                let title = format!("it is version 1.{MIN_MINOR} or later");
                let is_new = version.is_supported();
                let too_old = Error::TooOld {
                    found: version.text.clone(),
                };
                vec![
                    Check::pass(section, answers, self.server()),
                    if is_new {
                        Check::pass(section, &title, &version.text)
                    } else {
                        Check::of_error(section, &title, &too_old)
                    },
                ]
            }
        }
    }

    pub(super) async fn check_claim(&self, name: &str) -> Check {
        let section = "Store";
        let title = format!(
            "the claim {}/{name} can be used by many nodes",
            names::NAMESPACE
        );
        let claim = match self.ours::<PersistentVolumeClaim>().get_opt(name).await {
            Err(error) => {
                return Check::of_error(section, &title, &self.failed("read the claim")(error));
            }
            Ok(None) => {
                return Check::new(
                    section,
                    &title,
                    Outcome::Fail,
                    "it does not exist",
                    "make it first; deploy/examples/persistent-volume-claim has one",
                );
            }
            Ok(Some(claim)) => claim,
        };
        let modes = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.access_modes.clone())
            .unwrap_or_default();
        if !modes.iter().any(|mode| mode == "ReadWriteMany") {
            return Check::new(
                section,
                &title,
                Outcome::Fail,
                &format!("its access modes are {}", modes.join(", ")),
                "it must be ReadWriteMany: every node mounts it",
            );
        }
        let phase = claim
            .status
            .and_then(|status| status.phase)
            .unwrap_or_default();
        if phase == "Bound" {
            Check::pass(section, &title, "")
        } else {
            Check::new(
                section,
                &title,
                Outcome::Warn,
                &format!("it is {phase}, not Bound"),
                "where its class binds with the first Pod, that comes by itself",
            )
        }
    }

    pub(super) async fn check_secret(&self, name: &str) -> Check {
        let section = "Store";
        let title = format!("the registry's Secret {}/{name} is there", names::NAMESPACE);
        match self.ours::<Secret>().get_opt(name).await {
            // Who may not read Secrets can check all else.
            Err(kube::Error::Api(status)) if status.code == 403 => Check::new(
                section,
                &title,
                Outcome::Warn,
                "you may not read Secrets",
                "",
            ),
            Err(error) => Check::of_error(section, &title, &self.failed("read the Secret")(error)),
            Ok(Some(secret))
                if secret.type_.as_deref() == Some("kubernetes.io/dockerconfigjson") =>
            {
                Check::pass(section, &title, "")
            }
            Ok(Some(secret)) => Check::new(
                section,
                &title,
                Outcome::Fail,
                &format!("its type is {}", secret.type_.unwrap_or_default()),
                "make it by `kubectl create secret docker-registry`, or `uimgacc enable --username`",
            ),
            Ok(None) => Check::new(
                section,
                &title,
                Outcome::Fail,
                "it does not exist",
                "`uimgacc enable --registry HOST --username USER --password-stdin` makes it",
            ),
        }
    }

    pub(super) async fn check_definitions(&self) -> Vec<Check> {
        let section = "Acceleration";
        let title = "the definitions are those of this version";
        let found = async {
            let api = self.all::<CustomResourceDefinition>();
            let mut found = Vec::new();
            for manifest in manifests::definitions()? {
                let definition = api
                    .get_opt(manifest.name())
                    .await
                    .map_err(self.failed("read the definitions"))?;
                if let Some(definition) = definition {
                    let schema = definition
                        .spec
                        .versions
                        .first()
                        .and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref())
                        .and_then(|schema| serde_json::to_value(schema).ok());
                    found.push((definition.name_any(), schema));
                }
            }
            definition_problems(&found)
        };
        match found.await {
            Err(error) => vec![Check::of_error(section, title, &error)],
            Ok(problems) => vec![Check::of_problems(
                section,
                title,
                &problems,
                "`uimgacc enable` brings them",
            )],
        }
    }

    pub(super) async fn check_lease(&self) -> Check {
        let section = "Acceleration";
        let title = "the agent has a leader";
        let lease = match self.ours::<Lease>().get_opt(names::AGENT).await {
            Err(error) => {
                return Check::of_error(section, title, &self.failed("read the Lease")(error));
            }
            Ok(lease) => lease.and_then(|lease| lease.spec).unwrap_or_default(),
        };
        let (Some(holder), Some(renewed)) = (lease.holder_identity, lease.renew_time) else {
            return Check::new(
                section,
                title,
                Outcome::Fail,
                "nobody leads",
                "see the agent's log: kubectl -n kube-system logs deployment/uimgacc-agent",
            );
        };
        let silence = Timestamp::now().duration_since(renewed.0);
        if silence.unsigned_abs() > LEADER_SILENCE && !silence.is_negative() {
            return Check::new(
                section,
                title,
                Outcome::Fail,
                &format!("{holder} was last heard of {} s ago", silence.as_secs()),
                "see the agent's log: kubectl -n kube-system logs deployment/uimgacc-agent",
            );
        }
        Check::pass(section, title, &holder)
    }
}
