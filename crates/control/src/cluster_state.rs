//! All that the cluster knows of us, and what is wrong with it in words.

use futures_util::StreamExt as _;
use futures_util::stream::select_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::runtime::watcher::{Config, Event};
use uimgacc_objects::{
    AccelerationNode, ImageAcceleration, ImageAccelerationStatus, find_condition, names, nodes,
};

use crate::Cluster;
use crate::error::Error;
use crate::images::not_enabled;
use crate::observe::{Merged, Table, events};

/// The conditions of an `ImageAcceleration`, in the order in which they come about.
const CONDITIONS: [&str; 2] = ["AgentReady", "NfsReady"];
/// The one that sums them up; of interest where the others hold.
const ALL: &str = "Ready";

/// New lines that are told at once, so that a thousand nodes do not make a thousand lines.
pub(crate) const SAID: usize = 10;

/// All that the cluster knows of us.
#[derive(Debug, Default)]
pub(crate) struct ClusterState {
    pub(crate) acceleration: Table<ImageAcceleration>,
    pub(crate) agent: Table<Deployment>,
    pub(crate) pods: Table<Pod>,
    pub(crate) nodes: Table<AccelerationNode>,
    pub(crate) machines: Table<Node>,
}

/// A change of it.
#[allow(clippy::large_enum_variant, reason = "handed on once and never kept")]
#[derive(Debug)]
pub(crate) enum Change {
    Acceleration(Event<ImageAcceleration>),
    Agent(Event<Deployment>),
    Pod(Event<Pod>),
    Node(Event<AccelerationNode>),
    Machine(Event<Node>),
}

fn part_of() -> String {
    format!("{}={}", names::PART_OF_LABEL, names::PART_OF)
}

impl ClusterState {
    /// As it is now.
    pub(crate) async fn load(cluster: &Cluster) -> Result<Self, Error> {
        let all = ListParams::default();
        let agents = cluster.ours();
        let pods = cluster.ours();
        let nodes = cluster.all();
        let machines = cluster.all();
        let ours = ListParams::default().labels(&part_of());
        let (acceleration, agent, pods, nodes, machines) = tokio::join!(
            cluster.acceleration(),
            cluster.list(&agents, ours.clone(), "the Deployments of kube-system"),
            cluster.list(&pods, ours.clone(), "the Pods of kube-system"),
            cluster.list(&nodes, all.clone(), "the AccelerationNodes"),
            cluster.list(&machines, all.clone(), "the nodes"),
        );
        let nodes = match nodes.map_err(not_enabled) {
            Err(Error::NotEnabled) => Vec::new(),
            other => other?,
        };
        Ok(Self {
            acceleration: Table::of(acceleration?.into_iter().collect()),
            agent: Table::of(agent?),
            pods: Table::of(pods?),
            nodes: Table::of(nodes),
            machines: Table::of(machines?),
        })
    }

    /// Tells of it from now on.
    pub(crate) fn watch(cluster: &Cluster) -> Merged<Change> {
        let all = Config::default;
        let ours = || Config::default().labels(&part_of());
        select_all([
            events(cluster, cluster.all(), all(), "watch the ImageAcceleration")
                .map(|event| event.map(Change::Acceleration))
                .boxed(),
            events(cluster, cluster.ours(), ours(), "watch the agent")
                .map(|event| event.map(Change::Agent))
                .boxed(),
            events(
                cluster,
                cluster.ours(),
                ours(),
                "watch the Pods of kube-system",
            )
            .map(|event| event.map(Change::Pod))
            .boxed(),
            events(cluster, cluster.all(), all(), "watch the AccelerationNodes")
                .map(|event| event.map(Change::Node))
                .boxed(),
            events(cluster, cluster.all(), all(), "watch the nodes")
                .map(|event| event.map(Change::Machine))
                .boxed(),
        ])
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Acceleration(event) => self.acceleration.apply(event),
            Change::Agent(event) => self.agent.apply(event),
            Change::Pod(event) => self.pods.apply(event),
            Change::Node(event) => self.nodes.apply(event),
            Change::Machine(event) => self.machines.apply(event),
        }
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.acceleration.is_listed()
            && self.agent.is_listed()
            && self.pods.is_listed()
            && self.nodes.is_listed()
            && self.machines.is_listed()
    }

    pub(crate) fn enabled(&self) -> Option<&ImageAcceleration> {
        self.acceleration.get(names::DEFAULT)
    }

    pub(crate) fn status(&self) -> ImageAccelerationStatus {
        self.enabled()
            .and_then(|acceleration| acceleration.status.clone())
            .unwrap_or_default()
    }

    /// Names of the nodes that are to be set up and are up.
    pub(crate) fn expected_nodes(&self) -> Vec<String> {
        let Some(acceleration) = self.enabled() else {
            return Vec::new();
        };
        let selector = &acceleration.spec.node_selector;
        self.machines
            .iter()
            .filter(|machine| is_up(machine))
            .filter(|machine| nodes::is_selected(machine.labels(), selector))
            .map(|machine| machine.name_any())
            .collect()
    }

    /// What is wrong with the agent.
    pub(crate) fn agent_problems(&self) -> Vec<String> {
        let Some(agent) = self.agent.get(names::AGENT) else {
            return vec![format!(
                "the Deployment {}/{} is missing",
                names::NAMESPACE,
                names::AGENT
            )];
        };
        if is_rolled_out(agent) {
            return Vec::new();
        }
        let (ready, wanted) = replicas(agent);
        let mut problems = vec![format!("the agent: {ready} of {wanted} replicas are ready")];
        problems.extend(self.pod_problems(names::AGENT));
        problems
    }

    /// What is wrong with Pods whose name starts so.
    pub(crate) fn pod_problems(&self, prefix: &str) -> Vec<String> {
        self.pods
            .iter()
            .filter(|pod| pod.name_any().starts_with(prefix))
            .filter_map(|pod| {
                pod_problem(pod).map(|problem| format!("Pod {}: {problem}", pod.name_any()))
            })
            .collect()
    }

    /// What is wrong with the nodes.
    pub(crate) fn node_problems(&self) -> Vec<String> {
        self.expected_nodes()
            .into_iter()
            .filter_map(|name| {
                let problem = match self.nodes.get(&name) {
                    Some(node) => node_problem(node)?,
                    None => {
                        let pod = self.pods.iter().find(|pod| {
                            pod.name_any().starts_with(names::NODE)
                                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref())
                                    == Some(&name)
                        });
                        pod.and_then(pod_problem)
                            .unwrap_or_else(|| "the node installer has not reported yet".to_owned())
                    }
                };
                Some(format!("node {name}: {problem}"))
            })
            .collect()
    }

    /// Conditions that do not hold.
    pub(crate) fn condition_problems(&self) -> Vec<String> {
        let Some(acceleration) = self.enabled() else {
            return vec!["the ImageAcceleration is missing".to_owned()];
        };
        let status = self.status();
        if status.observed_generation != acceleration.metadata.generation {
            return vec!["the agent has not taken notice of the ImageAcceleration yet".to_owned()];
        }
        let problem = |kind: &&str| match find_condition(&status.conditions, kind) {
            Some(condition) if condition.status == "True" => None,
            Some(condition) if condition.message.is_empty() => {
                Some(format!("{kind}: {}", condition.reason))
            }
            Some(condition) => Some(format!("{kind}: {}", condition.message)),
            None => Some(format!("{kind}: not known yet")),
        };
        let problems: Vec<String> = CONDITIONS.iter().filter_map(problem).collect();
        if problems.is_empty() {
            return problem(&ALL).into_iter().collect();
        }
        problems
    }

    /// All that is missing until the cluster is ready; nothing where it is.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = self.agent_problems();
        missing.extend(self.condition_problems());
        missing.extend(self.node_problems());
        missing
    }
}

/// Whether all replicas are of the newest template, none of an older one is left, and at least one
/// serves.
pub(crate) fn is_rolled_out(agent: &Deployment) -> bool {
    let Some(status) = &agent.status else {
        return false;
    };
    let (ready, wanted) = replicas(agent);
    let updated = status.updated_replicas.unwrap_or(0);
    status.observed_generation >= agent.metadata.generation
        && updated >= wanted
        && status.replicas.unwrap_or(0) <= updated
        && ready >= 1
}

/// Ready and wanted replicas.
pub(crate) fn replicas(agent: &Deployment) -> (i32, i32) {
    let ready = agent
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0);
    let wanted = agent
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    (ready, wanted)
}

fn is_up(machine: &Node) -> bool {
    machine
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why a node is not ready.
pub(crate) fn node_problem(node: &AccelerationNode) -> Option<String> {
    let status = node.status.clone().unwrap_or_default();
    let ready = find_condition(&status.conditions, "Ready");
    if ready.is_some_and(|condition| condition.status == "True") {
        return None;
    }
    Some(if let Some(error) = status.error {
        error
    } else if status.needs_restart {
        "waits until it may restart containerd".to_owned()
    } else {
        match ready {
            Some(condition) if !condition.message.is_empty() => condition.message.clone(),
            Some(condition) => condition.reason.clone(),
            None => "is being set up".to_owned(),
        }
    })
}

/// Why a Pod does not run, where that is not a matter of time alone.
fn pod_problem(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        return Some(condition.message.clone().unwrap_or_default());
    }
    let init = status.init_container_statuses.iter().flatten();
    for container in init.chain(status.container_statuses.iter().flatten()) {
        let ended = container
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        let state = container.state.as_ref();
        let waiting = state.and_then(|state| state.waiting.as_ref());
        let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
        if let Some(reason @ ("CrashLoopBackOff" | "RunContainerError")) = reason {
            let said = ended
                .and_then(|ended| ended.message.clone())
                .unwrap_or_default();
            let code = ended.map_or(0, |ended| ended.exit_code);
            return Some(
                format!("{reason} (exit code {code}) {said}")
                    .trim()
                    .to_owned(),
            );
        }
        match (reason, waiting) {
            (Some("ContainerCreating" | "PodInitializing") | None, _) | (_, None) => {}
            (Some(reason), Some(waiting)) => {
                return Some(match &waiting.message {
                    Some(message) => format!("{reason}: {message}"),
                    None => reason.to_owned(),
                });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn machine(name: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn state() -> ClusterState {
        let acceleration = serde_json::from_value(json!({
            "apiVersion": "uimgacc.io/v1", "kind": "ImageAcceleration",
            "metadata": {"name": "default", "generation": 2},
            "spec": {"store": {"nfs": {"servers": ["a"]}}, "image": "x"},
            "status": {"observedGeneration": 2, "conditions": [
                {"type": "AgentReady", "status": "True", "reason": "Runs", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "NfsReady", "status": "False", "reason": "NoAnswer", "message": "10.0.0.1 does not answer; check the address", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap();
        let agent = serde_json::from_value(json!({
            "metadata": {"name": "uimgacc-agent", "generation": 1},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "updatedReplicas": 2, "readyReplicas": 0},
        }))
        .unwrap();
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "uimgacc-agent-1"},
            "status": {"containerStatuses": [{"name": "agent", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
        }))
        .unwrap();
        let node = serde_json::from_value(json!({
            "apiVersion": "uimgacc.io/v1", "kind": "AccelerationNode",
            "metadata": {"name": "n1"}, "spec": {}, "status": {"needsRestart": true},
        }))
        .unwrap();
        ClusterState {
            acceleration: Table::of(vec![acceleration]),
            agent: Table::of(vec![agent]),
            pods: Table::of(vec![pod]),
            nodes: Table::of(vec![node]),
            machines: Table::of(vec![
                machine("n1", "True"),
                machine("n2", "True"),
                machine("n3", "False"),
            ]),
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(
            state().missing(),
            [
                "the agent: 0 of 2 replicas are ready",
                "Pod uimgacc-agent-1: ImagePullBackOff: no such image",
                "NfsReady: 10.0.0.1 does not answer; check the address",
                "node n1: waits until it may restart containerd",
                "node n2: the node installer has not reported yet",
            ]
        );
    }

    #[test]
    fn what_is_rolled_out() {
        for (updated, all, ready, expected) in [
            (2, 2, 1, true),
            (2, 2, 0, false),
            (1, 2, 2, false),
            (2, 3, 2, false),
        ] {
            let agent = serde_json::from_value(json!({
                "metadata": {"name": "uimgacc-agent", "generation": 1},
                "spec": {"replicas": 2, "selector": {}, "template": {}},
                "status": {"observedGeneration": 1, "replicas": all, "updatedReplicas": updated, "readyReplicas": ready},
            }))
            .unwrap();
            assert_eq!(is_rolled_out(&agent), expected, "{updated} {all} {ready}");
        }
    }

    #[test]
    fn an_old_status_counts_for_nothing() {
        let mut state = state();
        let mut acceleration = state.enabled().unwrap().clone();
        acceleration.metadata.generation = Some(3);
        state.acceleration = Table::of(vec![acceleration]);
        assert_eq!(
            state.condition_problems(),
            ["the agent has not taken notice of the ImageAcceleration yet"]
        );
        state.acceleration = Table::default();
        assert_eq!(
            state.condition_problems(),
            ["the ImageAcceleration is missing"]
        );
    }
}
