//! Our own processes on the nodes.

use std::fs;

use uimgacc_testkit::cluster::Node;

use crate::fixture::ClusterFixture;

/// What a process of ours does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// An agent, of which one leads.
    Leader,
    /// A Job's work.
    Work,
    /// What sets up the node.
    Installer,
    /// The snapshotter.
    Daemon,
    /// What keeps the snapshotter running.
    Supervisor,
}

impl Part {
    fn is(self, words: &[&str]) -> bool {
        let program = words
            .first()
            .map_or("", |word| word.rsplit('/').next().unwrap_or(word));
        let is_agent = program == "uimgacc-agent";
        let is_snapshotter = program == "uimgacc-snapshotter";
        let first = words.get(1).copied();
        match self {
            Self::Leader => is_agent && first == Some("controller"),
            Self::Work => is_agent && first == Some("work"),
            Self::Installer => is_agent && first == Some("node"),
            Self::Daemon => is_snapshotter && first != Some("supervise"),
            Self::Supervisor => is_snapshotter && first == Some("supervise"),
        }
    }
}

/// A process on a node, by its ID there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process<'a> {
    on: &'a Node,
    pid: u32,
}

impl<'a> Process<'a> {
    /// The first of that part.
    pub(crate) fn find(node: &'a Node, part: Part) -> Option<Self> {
        Self::all(node, part).into_iter().next()
    }

    /// The first of that part on any node.
    pub(crate) fn find_on_any(fixture: &'a ClusterFixture, part: Part) -> Option<Self> {
        let nodes = fixture.cluster.nodes().iter();
        nodes.flat_map(|node| Self::all(node, part)).next()
    }

    /// The agent that leads, where one does.
    pub(crate) fn leader(fixture: &'a ClusterFixture) -> Option<Self> {
        let holder = ["-o", "jsonpath={.spec.holderIdentity}"];
        let lease = ["get", "lease", "-n", "kube-system", "uimgacc-agent"];
        let output = fixture.cluster.kubectl(&[&lease[..], &holder].concat());
        let holder = String::from_utf8_lossy(&output.stdout).into_owned();
        let pod = holder.split_once('_')?.0;
        let variable = format!("POD_NAME={pod}");
        let nodes = fixture.cluster.nodes().iter();
        nodes
            .flat_map(|node| Self::all(node, Part::Leader))
            .find(|agent| agent.file("environ").split('\0').any(|one| one == variable))
    }

    fn all(node: &'a Node, part: Part) -> Vec<Self> {
        let entries = fs::read_dir(node.path("/proc"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .map(|pid| Self { on: node, pid })
            .filter(|process| {
                let line = process.file("cmdline");
                part.is(&line.split('\0').collect::<Vec<_>>())
            })
            .collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The name of its node.
    pub(crate) fn node(&self) -> &str {
        self.on.name()
    }

    /// Where its files are.
    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.on.path(&format!("/proc/{}/root", self.pid))
    }

    /// `SIGKILL`; `false` where it had ended.
    pub(crate) fn kill9(&self) -> bool {
        let mut command = self.on.command("kill");
        let output = command.args(["-9", &self.pid.to_string()]).output();
        output.unwrap().status.success()
    }

    fn file(&self, name: &str) -> String {
        let path = self.on.path(&format!("/proc/{}/{name}", self.pid));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }
}
