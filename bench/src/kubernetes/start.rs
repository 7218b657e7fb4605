//! One Pod's start, from `kubectl create` to the first line that its container says.
//!
//! The end is the time that stands before that line in the container's log: containerd writes it when the line arrives. So how often we
//! look does not count.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use time::OffsetDateTime;
use uimgacc_testkit::cluster::{Cluster, Node, Service};

use super::counters::{disk_read_bytes, drop_caches, sent_bytes};
use super::phases::{first_line, phases};
use crate::interrupt::Interrupt;

/// How long a start, or a removal, may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is started.
#[derive(Debug)]
pub(super) struct Pod<'a> {
    pub(super) name: String,
    pub(super) image: &'a str,
    /// The label that its node must have, as the guide's affinity says it; else the node's name is given.
    pub(super) label: Option<&'a str>,
    /// What its container says first.
    pub(super) expected: &'a str,
}

/// What a start took.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) took: Duration,
    pub(super) phases: Vec<time::Duration>,
    pub(super) sent_bytes: u64,
    pub(super) read_bytes: u64,
}

impl Pod<'_> {
    fn manifest(&self, node: &Node) -> String {
        let place = match self.label {
            Some(label) => format!(
                "affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions: [{{key: {label}, operator: In, values: ['true']}}]"
            ),
            None => format!("nodeSelector: {{kubernetes.io/hostname: {}}}", node.name()),
        };
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  {place}
  containers:
  - {{name: main, image: '{}', imagePullPolicy: Always}}
",
            self.name, self.image
        )
    }

    /// Starts it with dropped caches, and removes it once it has spoken.
    pub(super) fn start(
        &self,
        cluster: &Cluster,
        node: &Node,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Start> {
        let file = cluster.dir().join("pod.yaml");
        fs::write(&file, self.manifest(node)).context("cannot write the Pod's manifest")?;
        drop_caches()?;
        // kubectl is no part of the node: its own program is in memory.
        interrupt.run(cluster.kubectl_command().args(["version", "--client"]))?;
        let logged = node.log(Service::Containerd).len();
        let requests = cluster.registry().log().len();
        let read = disk_read_bytes()?;

        let begun = OffsetDateTime::now_utc();
        interrupt.run(cluster.kubectl_command().arg("create").arg("-f").arg(&file))?;
        let spoke = interrupt.wait(&format!("{} speaks", self.name), PATIENCE, || {
            Ok(self.log(node)?.as_deref().and_then(first_line))
        });
        let (ended, line) = spoke.map_err(|error| match interrupt.check() {
            Ok(()) => error.context(cluster.dump()),
            Err(_) => error,
        })?;

        let read_bytes = disk_read_bytes()?.saturating_sub(read);
        anyhow::ensure!(
            line == self.expected,
            "{} says {line:?} where {:?} was expected",
            self.name,
            self.expected
        );
        let log = cluster.registry().log();
        let sent_bytes = sent_bytes(log.get(requests..).unwrap_or_default());
        let log = node.log(Service::Containerd);
        let log = log.get(logged..).unwrap_or_default();
        let start = Start {
            took: (ended - begun).unsigned_abs(),
            // What is only told besides: another version's log may look different.
            phases: phases(log, &self.name, begun, ended).unwrap_or_default(),
            sent_bytes,
            read_bytes,
        };
        self.remove(cluster, node, interrupt)?;
        Ok(start)
    }

    /// Its container's log, where there is one.
    fn log(&self, node: &Node) -> anyhow::Result<Option<String>> {
        let Some(folder) = self.log_folder(node)? else {
            return Ok(None);
        };
        Ok(fs::read_to_string(folder.join("main/0.log")).ok())
    }

    fn log_folder(&self, node: &Node) -> anyhow::Result<Option<PathBuf>> {
        let folder = node.path("/var/log/pods");
        let start = format!("default_{}_", self.name);
        for entry in fs::read_dir(&folder).context("cannot list the logs of Pods")? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&start) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    /// Removes it, and waits until its container has gone: it holds the image's snapshots.
    fn remove(&self, cluster: &Cluster, node: &Node, interrupt: &Interrupt) -> anyhow::Result<()> {
        let kubectl = ["delete", "pod", &self.name, "--wait", "--grace-period=0"];
        interrupt.run(cluster.kubectl_command().args(kubectl))?;
        interrupt.wait(&format!("the end of {}", self.name), PATIENCE, || {
            let image = format!("image=={}", self.image);
            let list = [
                "--namespace",
                "k8s.io",
                "containers",
                "list",
                "--quiet",
                &image,
            ];
            let left = interrupt.run(node.command("ctr").args(list))?;
            Ok(left.trim().is_empty().then_some(()))
        })
    }
}
