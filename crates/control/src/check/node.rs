//! What nodes must be like. Pure.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use uimgacc_objects::nodes;

use super::{Check, Outcome};
use crate::cluster_state::ClusterState;

/// Least versions of containerd and Linux.
const CONTAINERD: (u32, u32) = (1, 6);
const LINUX_LOOP: (u32, u32) = (5, 16);
const LINUX_FILE: (u32, u32) = (6, 12);

/// The first two numbers of a version: `6.8.0-31-generic` is 6.8.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

/// What is wrong with a node, and whether it can never work.
fn runtime_problem(runtime: &str) -> Option<String> {
    let Some(containerd) = runtime.strip_prefix("containerd://") else {
        return Some(format!("runs {runtime}, not containerd"));
    };
    version(containerd)
        .is_some_and(|version| version < CONTAINERD)
        .then(|| format!("runs containerd {containerd}"))
}

pub(super) fn check_all(state: &ClusterState) -> Vec<Check> {
    let section = "Nodes";
    let selector = state.enabled().map(|one| one.spec.node_selector.clone());
    let selector = selector.unwrap_or_default();
    let is_chosen = |machine: &&Node| nodes::is_selected(machine.labels(), &selector);
    let machines: Vec<&Node> = state.machines.iter().filter(is_chosen).collect();
    if machines.is_empty() {
        return vec![Check::new(
            section,
            "there are Linux nodes",
            Outcome::Fail,
            "none is there that has the labels of the node selector",
            "add a node, or `uimgacc enable --node-selector` others",
        )];
    }
    let info = |machine: &Node| {
        machine
            .status
            .as_ref()
            .and_then(|status| status.node_info.clone())
            .unwrap_or_default()
    };
    let of_all = |problem: &dyn Fn(&Node) -> Option<String>| -> Vec<String> {
        machines
            .iter()
            .filter_map(|machine| {
                problem(machine).map(|problem| format!("{} {problem}", machine.name_any()))
            })
            .collect()
    };
    let count = format!("{} of them", machines.len());
    let mut checks = vec![Check::pass(section, "there are Linux nodes", &count)];
    checks.push(Check::of_problems(
        section,
        "they run containerd 1.6 or later",
        &of_all(&|machine| runtime_problem(&info(machine).container_runtime_version)),
        "upgrade containerd on these nodes, or leave them out by `uimgacc enable --node-selector`",
    ));
    let older = |least: (u32, u32)| {
        move |kernel: &str| {
            version(kernel)
                .is_some_and(|version| version < least)
                .then(|| format!("runs Linux {kernel}"))
        }
    };
    let too_old = of_all(&|machine| older(LINUX_LOOP)(&info(machine).kernel_version));
    let by_loop = of_all(&|machine| older(LINUX_FILE)(&info(machine).kernel_version));
    let title = "they run Linux 5.16 or later";
    checks.push(if !too_old.is_empty() {
        Check::new(
            section,
            title,
            Outcome::Warn,
            &too_old.join("; "),
            "these nodes pull images as without acceleration, unless they have erofs-utils (erofsfuse)",
        )
    } else if by_loop.is_empty() {
        Check::pass(section, title, "")
    } else {
        Check::new(
            section,
            title,
            Outcome::Pass,
            &format!("{} of them mount by loop devices", by_loop.len()),
            "",
        )
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Table;

    fn machine(name: &str, kernel: &str, runtime: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}},
            "status": {"nodeInfo": {"kernelVersion": kernel, "containerRuntimeVersion": runtime,
                "architecture": "", "bootID": "", "kubeProxyVersion": "", "kubeletVersion": "",
                "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""}},
        }))
        .unwrap()
    }

    #[test]
    fn versions() {
        assert_eq!(version("6.8.0-31-generic"), Some((6, 8)));
        assert_eq!(version("v1.7.24+unknown"), Some((1, 7)));
        assert_eq!(version("2.0.0-rc.1"), Some((2, 0)));
        assert_eq!(version("x"), None);
    }

    #[test]
    fn nodes() {
        let of = |machines| {
            check_all(&ClusterState {
                machines: Table::of(machines),
                ..ClusterState::default()
            })
        };
        let good = of(vec![machine("a", "6.18.44", "containerd://2.1.9")]);
        assert!(
            good.iter().all(|check| check.outcome == Outcome::Pass),
            "{good:?}"
        );
        let bad = of(vec![
            machine("a", "6.18.44", "cri-o://1.30"),
            machine("b", "5.4.0", "containerd://1.5.9"),
        ]);
        assert_eq!(bad[1].outcome, Outcome::Fail);
        assert_eq!(
            bad[1].message,
            "a runs cri-o://1.30, not containerd; b runs containerd 1.5.9"
        );
        assert_eq!(bad[2].outcome, Outcome::Warn);
        assert_eq!(bad[2].message, "b runs Linux 5.4.0");
        assert_eq!(of(vec![])[0].outcome, Outcome::Fail);
    }
}
