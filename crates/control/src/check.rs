//! `check`: finds what is wrong with a cluster, before `enable` and after, and says how to mend it.

mod cluster;
mod node;
mod rights;

use kube::ResourceExt as _;
use serde::Serialize;
use uimgacc_objects::{Phase, find_condition};

use crate::cluster_state::{ClusterState, is_rolled_out, node_problem, replicas};
use crate::error::Error;
use crate::images::ImageView;
use crate::{Cluster, manifests};

/// What to check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Only what must hold before `enable`.
    pub pre: bool,
    /// A claim that is to hold the store, for `pre`.
    pub claim: Option<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It will do, but could be better.
    Warn,
    /// It must be mended.
    Fail,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    /// What it belongs to, such as `Kubernetes`.
    pub section: String,
    /// What should hold.
    pub title: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found; empty where it passed and there is nothing to tell.
    pub message: String,
    /// What to do; empty where there is nothing.
    pub hint: String,
}

impl Check {
    fn new(section: &str, title: &str, outcome: Outcome, message: &str, hint: &str) -> Self {
        Self {
            section: section.to_owned(),
            title: title.to_owned(),
            outcome,
            message: message.to_owned(),
            hint: hint.to_owned(),
        }
    }

    fn pass(section: &str, title: &str, message: &str) -> Self {
        Self::new(section, title, Outcome::Pass, message, "")
    }

    fn of_error(section: &str, title: &str, error: &Error) -> Self {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            message = format!("{message}: {source}");
        }
        let hint = error.hint().unwrap_or_default();
        Self::new(section, title, Outcome::Fail, &message, &hint)
    }

    /// Passes where nothing was found.
    fn of_problems(section: &str, title: &str, problems: &[String], hint: &str) -> Self {
        if problems.is_empty() {
            return Self::pass(section, title, "");
        }
        Self::new(section, title, Outcome::Fail, &problems.join("; "), hint)
    }
}

impl Cluster {
    /// Checks the cluster. Where the API does not answer, that is the one check that failed.
    pub async fn check(&self, options: &CheckOptions) -> Vec<Check> {
        let mut checks = self.check_kubernetes().await;
        if checks.iter().any(|check| check.outcome == Outcome::Fail) {
            return checks;
        }
        let state = match ClusterState::load(self).await {
            Ok(state) => state,
            Err(error) => {
                checks.push(Check::of_error("Kubernetes", "objects can be read", &error));
                return checks;
            }
        };
        if options.pre {
            checks.extend(self.check_rights().await);
        }
        checks.extend(node::check_all(&state));
        if let Some(claim) = &options.claim {
            checks.push(self.check_claim(claim).await);
        }
        if options.pre {
            return checks;
        }
        checks.extend(self.check_definitions().await);
        checks.extend(enabled(&state));
        if let Some(acceleration) = state.enabled() {
            if let Some(claim) = &acceleration.spec.store.persistent_volume_claim {
                checks.push(self.check_claim(&claim.claim_name).await);
            }
            if let Some(secret) = &acceleration.spec.registry_credentials {
                checks.push(self.check_secret(&secret.name).await);
            }
            checks.push(self.check_lease().await);
            checks.push(self.check_images().await);
        }
        checks
    }

    async fn check_images(&self) -> Check {
        let title = "no image has failed";
        match self.list_images().await {
            Err(error) => Check::of_error("Images", title, &error),
            Ok(images) => {
                let failed: Vec<String> = images
                    .iter()
                    .map(ImageView::new)
                    .filter(|view| matches!(view.status, Phase::CreateError | Phase::DeleteError))
                    .map(|view| format!("{}: {}", view.target_image, view.error))
                    .collect();
                let hint = "`uimgacc create` again tries once more; `uimgacc delete` gives up";
                Check::of_problems("Images", title, &failed, hint)
            }
        }
    }
}

/// What the objects say of an enabled cluster.
fn enabled(state: &ClusterState) -> Vec<Check> {
    let section = "Acceleration";
    let Some(acceleration) = state.enabled() else {
        return vec![Check::new(
            section,
            "it is enabled",
            Outcome::Fail,
            "there is no ImageAcceleration",
            "`uimgacc enable --nfs ADDR` enables it; `uimgacc check --pre` checks what that needs",
        )];
    };
    let mut checks = vec![Check::pass(section, "it is enabled", "")];
    let agent = state.agent.get(uimgacc_objects::names::AGENT);
    checks.push(match agent {
        Some(agent) if is_rolled_out(agent) && replicas(agent).0 < replicas(agent).1 => {
            let (ready, wanted) = replicas(agent);
            let message = format!("{ready} of {wanted} replicas are ready");
            Check::new(section, "the agent runs", Outcome::Warn, &message, "")
        }
        _ => Check::of_problems(
            section,
            "the agent runs",
            &state.agent_problems(),
            "kubectl -n kube-system describe pods -l app.kubernetes.io/name=uimgacc-agent",
        ),
    });
    let version = agent
        .and_then(|agent| agent.spec.as_ref()?.template.spec.as_ref())
        .and_then(|spec| spec.containers.first()?.image.clone())
        .unwrap_or_default();
    if acceleration.spec.image != version && agent.is_some() {
        checks.push(Check::new(
            section,
            "agent and nodes run from one image",
            Outcome::Warn,
            &format!(
                "the agent runs {version}, nodes {}",
                acceleration.spec.image
            ),
            "`uimgacc enable` makes them the same",
        ));
    }
    let status = state.status();
    for (kind, title, hint) in [
        (
            "NfsReady",
            "the store can be written",
            "check the address, and that nodes reach the server; `uimgacc enable --nfs ADDR` changes it",
        ),
        (
            "AgentReady",
            "the node installer runs",
            "kubectl -n kube-system get daemonset uimgacc-node",
        ),
    ] {
        checks.push(match find_condition(&status.conditions, kind) {
            Some(condition) if condition.status == "True" => Check::pass(section, title, ""),
            Some(condition) => {
                let message = format!("{} ({})", condition.message, condition.reason);
                Check::new(section, title, Outcome::Fail, &message, hint)
            }
            None => Check::new(
                section,
                title,
                Outcome::Fail,
                "not known yet",
                "wait a moment; the agent finds out",
            ),
        });
    }
    let problems = state.node_problems();
    checks.push(Check::of_problems(
        section,
        "all nodes that are up can run accelerated images",
        &problems,
        "`uimgacc node check` on the node says more",
    ));
    checks.extend(mount_methods(state));
    checks
}

/// Nodes that mount in a slower way than they could.
fn mount_methods(state: &ClusterState) -> Option<Check> {
    let slow: Vec<String> = state
        .nodes
        .iter()
        .filter(|node| node_problem(node).is_none())
        .filter_map(|node| {
            let method = node.status.as_ref()?.mount_method.clone()?;
            (method != "file-directio").then(|| format!("{} ({method})", node.name_any()))
        })
        .collect();
    (!slow.is_empty()).then(|| {
        Check::new(
            "Acceleration",
            "nodes mount without a second page cache",
            Outcome::Warn,
            &slow.join(", "),
            "Linux 6.15 or later mounts the store's files past their own page cache",
        )
    })
}

/// Whether the definitions are those of this version.
fn definition_problems(
    found: &[(String, Option<serde_json::Value>)],
) -> Result<Vec<String>, Error> {
    let mut problems = Vec::new();
    for manifest in manifests::definitions()? {
        let name = manifest.name().to_owned();
        let there = found.iter().find(|(found, _)| *found == name);
        match there.and_then(|(_, schema)| schema.as_ref()) {
            None => problems.push(format!("{name} is missing")),
            Some(schema) => {
                let ours = &manifest.object["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
                if !is_within(ours, schema) {
                    problems.push(format!("{name} is of another version"));
                }
            }
        }
    }
    Ok(problems)
}

/// Whether all of `ours` is in `theirs`; the server adds defaults of its own.
fn is_within(ours: &serde_json::Value, theirs: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object};
    match (ours, theirs) {
        (Object(ours), Object(theirs)) => ours
            .iter()
            .all(|(key, value)| theirs.get(key).is_some_and(|their| is_within(value, their))),
        (Array(ours), Array(theirs)) => {
            ours.len() == theirs.len()
                && ours
                    .iter()
                    .zip(theirs)
                    .all(|(ours, theirs)| is_within(ours, theirs))
        }
        (ours, theirs) => match (ours.as_f64(), theirs.as_f64()) {
            // 0.0 comes back as 0.
            (Some(ours), Some(theirs)) => ours.total_cmp(&theirs).is_eq(),
            _ => ours == theirs,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn not_enabled() {
        let checks = enabled(&ClusterState::default());
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].outcome, Outcome::Fail);
        assert!(checks[0].hint.contains("uimgacc enable"));
    }

    #[test]
    fn definitions() {
        let all: Vec<_> = manifests::definitions()
            .unwrap()
            .into_iter()
            .map(|manifest| {
                let schema =
                    manifest.object["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
                (manifest.name().to_owned(), Some(schema))
            })
            .collect();
        assert_eq!(definition_problems(&all).unwrap(), Vec::<String>::new());
        let mut old = all.clone();
        old[0].1 = Some(json!({"type": "object"}));
        old.pop();
        assert_eq!(
            definition_problems(&old).unwrap(),
            [
                "imageaccelerations.uimgacc.io is of another version",
                "startrecords.uimgacc.io is missing"
            ]
        );
    }

    #[test]
    fn defaults_of_the_server_do_no_harm() {
        assert!(is_within(
            &json!({"a": [1.0, {"b": 1}]}),
            &json!({"a": [1, {"b": 1, "c": 2}]})
        ));
        assert!(!is_within(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!is_within(&json!({"a": 1}), &json!({})));
    }
}
