//! `uimgacc-agent host-task`: installs or uninstalls, as a process of the host.
//!
//! The node installer starts it by way of [`super::on_host`] and hands the [`Task`] over as JSON on
//! standard input; the [`TaskResult`] comes back as JSON on standard output, what is done meanwhile on
//! standard error.

use serde::{Deserialize, Serialize};
use uimgacc_node::{NodeError, Settings, Step};
use uimgacc_types::with_causes;

/// What is to be done on the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Task {
    /// See [`uimgacc_node::install`].
    Install(Settings),
    /// See [`uimgacc_node::uninstall`].
    Uninstall {
        /// As installed.
        settings: Settings,
        /// Whether the daemon's data are removed too.
        purge: bool,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum TaskResult {
    Installed {
        /// containerd's version.
        containerd: String,
        /// containerd must be restarted, which was not allowed.
        restart_needed: bool,
        /// The containerd that runs knows the snapshotter.
        runs: bool,
    },
    Uninstalled,
    /// containerd did not work with its new configuration, and has the former one again.
    RolledBack(String),
    /// Containers use the daemon's data, so these stay.
    Busy(String),
    Failed(String),
}

/// Does what standard input says.
///
/// # Errors
/// It is not a task, or standard output is closed. What fails on the host is a [`TaskResult`].
pub fn run() -> anyhow::Result<()> {
    let task: Task = serde_json::from_reader(std::io::stdin().lock())?;
    let result = task.run();
    serde_json::to_writer(std::io::stdout().lock(), &result)?;
    Ok(())
}

impl Task {
    fn run(&self) -> TaskResult {
        let mut watch = |step: Step| tracing::info!(%step, "on the host");
        let done = match self {
            Self::Install(settings) => {
                uimgacc_node::install(settings, &mut watch).map(|done| TaskResult::Installed {
                    containerd: done.containerd.to_string(),
                    restart_needed: done.restart_needed,
                    runs: done.runs,
                })
            }
            Self::Uninstall { settings, purge } => {
                uimgacc_node::uninstall(settings, *purge, &mut watch)
                    .map(|_| TaskResult::Uninstalled)
            }
        };
        done.unwrap_or_else(|error| failed(&error))
    }
}

fn failed(error: &NodeError) -> TaskResult {
    let text = with_causes(error);
    match error {
        NodeError::RolledBack { .. } => TaskResult::RolledBack(text),
        NodeError::Busy { .. } => TaskResult::Busy(text),
        // That of the library names options of `uimgacc node install`.
        NodeError::Generated {
            path,
            distribution,
            template,
        } => TaskResult::Failed(format!(
            "{} is made by {distribution} at each start: copy it to {template} on the nodes, then run \
             `uimgacc enable --containerd-config {template}` with --containerd-restart for {distribution}'s own unit",
            path.display(),
            template = template.display()
        )),
        _ => TaskResult::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_and_its_result_pass_as_json() {
        let mut settings = Settings::new("/s");
        settings.restart = vec!["a b".to_owned(), "--c".to_owned()];
        settings.daemon_keys = vec![("k".to_owned(), "v=w".to_owned())];
        let task = Task::Uninstall {
            settings: settings.clone(),
            purge: true,
        };
        let json = serde_json::to_string(&task).unwrap();
        let Task::Uninstall {
            settings: same,
            purge,
        } = serde_json::from_str(&json).unwrap()
        else {
            panic!("{json}");
        };
        assert_eq!((same, purge), (settings, true));
        let result = TaskResult::Installed {
            containerd: "2.1.0".to_owned(),
            restart_needed: true,
            runs: false,
        };
        let json = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<TaskResult>(&json).unwrap(), result);
    }

    #[test]
    fn what_fails_is_told_in_terms_of_the_cluster() {
        let generated = NodeError::Generated {
            path: "/c.toml".into(),
            distribution: "k3s",
            template: "/c.toml.tmpl".into(),
        };
        let TaskResult::Failed(text) = failed(&generated) else {
            panic!("{generated}");
        };
        assert!(
            text.contains("`uimgacc enable --containerd-config /c.toml.tmpl`"),
            "{text}"
        );
        assert!(!text.contains("run this again"), "{text}");
    }
}
