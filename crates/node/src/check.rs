//! `check`: what is wrong on this node, and how to mend it. Changes nothing.
//!
//! Guarantees: it ends, also where the store hangs or containerd does not answer: every look that
//! may wait has a deadline.

mod host;
mod store;

use std::time::Duration;

use serde::Serialize;
use uimgacc_types::with_causes;

use crate::config;
use crate::containerd;
use crate::files;
use crate::grpc;
use crate::settings::Settings;
use crate::version::ContainerdVersion;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but not well, or not for long.
    Warn,
    /// Accelerated images do not run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, which stays the same from version to version.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do about it; empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

impl Finding {
    fn ok(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Level::Ok, what, "")
    }

    fn new(id: &'static str, level: Level, what: impl Into<String>, mend: &str) -> Self {
        Self {
            id,
            level,
            what: what.into(),
            mend: mend.to_owned(),
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of what depends on what.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst of its levels.
    #[must_use]
    pub fn level(&self) -> Level {
        let levels = self.findings.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }
}

/// Looks at this node. A store that has not answered within `store_deadline` counts as not there.
#[must_use]
pub fn check(settings: &Settings, store_deadline: Duration) -> Report {
    let mut findings = host::findings(settings);
    findings.extend(containerd_findings(settings));
    findings.push(daemon(settings));
    findings.extend(store::findings(&settings.store, store_deadline));
    Report { findings }
}

const INSTALL: &str = "run `uimgacc node install`";

fn containerd_findings(settings: &Settings) -> Vec<Finding> {
    let version = match containerd::version(settings) {
        Ok(version) => version,
        Err(error) => {
            let what = with_causes(&error);
            let mend = "install containerd 1.6, 1.7 or 2.x, or name its binary (--containerd)";
            return vec![Finding::new("containerd-version", Level::Fail, what, mend)];
        }
    };
    let mut findings = vec![if version.is_tried() {
        Finding::ok("containerd-version", format!("containerd {version}"))
    } else {
        let mend = "look for a newer uimgacc";
        let what = format!("containerd {version} is newer than what this program was tried with");
        Finding::new("containerd-version", Level::Warn, what, mend)
    }];
    findings.push(configuration(settings, version));
    findings.extend(running(settings));
    findings
}

/// Whether a containerd that starts now would use the snapshotter.
fn configuration(settings: &Settings, version: ContainerdVersion) -> Finding {
    const ID: &str = "containerd-config";
    let path = files::resolve(&settings.config);
    let name = path.display();
    let text = match crate::install::read_text(&path) {
        Ok(Some(text)) => text,
        Ok(None) => {
            let what = format!("{name} is not there, so containerd does not know the snapshotter");
            return Finding::new(ID, Level::Fail, what, INSTALL);
        }
        Err(error) => {
            return Finding::new(ID, Level::Fail, with_causes(&error), "mend the file");
        }
    };
    let wanted = settings.wanted();
    let keys = match containerd::dump(settings, &path) {
        Ok(Ok(dump)) => config::not_effective(&dump, version, &wanted),
        Ok(Err(message)) => {
            let what = format!("containerd does not accept {name}: {message}");
            return Finding::new(ID, Level::Fail, what, "mend the file");
        }
        Err(error) => {
            return Finding::new(
                ID,
                Level::Warn,
                with_causes(&error),
                "name containerd's binary (--containerd)",
            );
        }
    };
    match keys {
        Ok(keys) if keys.is_empty() => {
            Finding::ok(ID, format!("{name} names the snapshotter {}", wanted.name))
        }
        Ok(keys) => {
            let what = format!("{name} does not lead to the wanted {}", keys.join(", "));
            let drop_ins = containerd::overriding(&path, &text, version, &wanted);
            let mend = if drop_ins.is_empty() {
                INSTALL.to_owned()
            } else {
                let names: Vec<String> = drop_ins
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                format!(
                    "take these keys out of {}, then {INSTALL}",
                    names.join(", ")
                )
            };
            Finding::new(ID, Level::Fail, what, &mend)
        }
        Err(error) => {
            let what = format!("containerd's dump of {name} {error}");
            Finding::new(ID, Level::Fail, what, "report this")
        }
    }
}

/// What the containerd that runs says of itself.
fn running(settings: &Settings) -> Vec<Finding> {
    let socket = settings.containerd_socket.display();
    let plugins = match containerd::plugins(settings) {
        Ok(plugins) => plugins,
        Err(silence) => {
            let what = format!("containerd does not answer at {socket}: {silence}");
            let mend = "start containerd, or name its socket (--containerd-socket)";
            return vec![Finding::new("containerd-running", Level::Fail, what, mend)];
        }
    };
    let mut findings = vec![Finding::ok(
        "containerd-running",
        format!("containerd answers at {socket}"),
    )];
    let name = &settings.name;
    findings.push(match containerd::snapshotter(&plugins, name) {
        None => {
            let what = format!("the containerd that runs does not know the snapshotter {name}");
            Finding::new("proxy-plugin", Level::Fail, what, INSTALL)
        }
        Some(plugin) => match &plugin.error {
            None => Finding::ok(
                "proxy-plugin",
                format!("containerd has the snapshotter {name}"),
            ),
            Some(error) => {
                let what = format!("containerd cannot use the snapshotter {name}: {error}");
                Finding::new("proxy-plugin", Level::Fail, what, INSTALL)
            }
        },
    });
    let broken = containerd::broken_cri(&plugins);
    let has_cri = plugins
        .iter()
        .any(|plugin| plugin.kind == "io.containerd.grpc.v1" && plugin.id == "cri");
    findings.push(match broken.first() {
        Some((plugin, error)) => {
            let what = format!("{plugin} does not run: {error}");
            let mend = "mend what it says in containerd's configuration and restart containerd";
            Finding::new("cri", Level::Fail, what, mend)
        }
        None if !has_cri => {
            let what = "CRI is switched off in containerd: Kubernetes cannot use it";
            let mend = "take it out of disabled_plugins and restart containerd";
            Finding::new("cri", Level::Warn, what, mend)
        }
        None => Finding::ok("cri", "CRI runs"),
    });
    findings
}

fn daemon(settings: &Settings) -> Finding {
    let address = settings.address();
    match grpc::snapshotter_answers(&address, Duration::from_secs(5)) {
        Ok(()) => Finding::ok("snapshotter", format!("answers at {}", address.display())),
        Err(silence) => {
            let what = format!("does not answer at {}: {silence}", address.display());
            let mend = "run `uimgacc node install`, and look into its log \
                 (journalctl -u uimgacc-snapshotter)";
            Finding::new("snapshotter", Level::Fail, what, mend)
        }
    }
}
