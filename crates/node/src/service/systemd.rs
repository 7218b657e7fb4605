//! systemd's units. The socket unit holds the listening socket, so containerd's calls wait while the
//! daemon is restarted instead of failing.
//!
//! Nothing ties them to containerd but the order at boot: neither may take the other down.

use std::path::PathBuf;
use std::process::Command;

use crate::command;
use crate::error::NodeError;
use crate::settings::{DAEMON, Settings};

const SOCKET: &str = "uimgacc-snapshotter.socket";
const SERVICE: &str = "uimgacc-snapshotter.service";

/// Units that use the snapshotter, and so start after it.
const USERS: &str =
    "containerd.service k3s.service k3s-agent.service rke2-server.service rke2-agent.service";

pub(super) fn files(settings: &Settings) -> Vec<(PathBuf, String)> {
    vec![
        (settings.unit_dir.join(SOCKET), socket_unit(settings)),
        (settings.unit_dir.join(SERVICE), service_unit(settings)),
    ]
}

/// The text of the socket unit.
#[must_use]
pub fn socket_unit(settings: &Settings) -> String {
    format!(
        "# Made by `uimgacc node install`.\n\
         [Unit]\n\
         Description=Socket of the uimgacc snapshotter\n\
         Before={USERS}\n\
         \n\
         [Socket]\n\
         ListenStream={address}\n\
         SocketMode=0600\n\
         \n\
         [Install]\n\
         WantedBy=sockets.target\n",
        address = escape(&settings.address().display().to_string()),
    )
}

/// The text of the service unit.
///
/// Its mounts must be seen by the host, so nothing that gives it mounts of its own (`Protect…`,
/// `Private…`, `ReadOnlyPaths=`) is set; what is set takes away other rights.
#[must_use]
pub fn service_unit(settings: &Settings) -> String {
    let mut start = quote(&settings.installed_binary().display().to_string());
    for word in settings.daemon_arguments() {
        start = start + " " + &quote(&word);
    }
    format!(
        "# Made by `uimgacc node install`.\n\
         [Unit]\n\
         Description=uimgacc snapshotter for containerd\n\
         After=local-fs.target {SOCKET}\n\
         Before={USERS}\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         NotifyAccess=main\n\
         ExecStart={start}\n\
         ExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=always\n\
         RestartSec=1\n\
         KillMode=process\n\
         TimeoutStopSec=30\n\
         UMask=0022\n\
         LimitNOFILE=1048576\n\
         TasksMax=infinity\n\
         OOMScoreAdjust=-999\n\
         CapabilityBoundingSet={CAPABILITIES}\n\
         NoNewPrivileges=yes\n\
         LockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\n\
         RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n\
         RestrictRealtime=yes\n\
         SystemCallArchitectures=native\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// Mounts and loop devices; files of any owner and mode; whiteouts and xattrs of overlays; a source
/// port below 1024 for NFS; file locks and limits.
const CAPABILITIES: &str = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER CAP_FSETID \
     CAP_MKNOD CAP_SETFCAP CAP_NET_BIND_SERVICE CAP_SYS_RESOURCE";

/// `%` begins a specifier in units.
fn escape(text: &str) -> String {
    text.replace('%', "%%")
}

/// One word of `ExecStart=`.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = escape(word)
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('$', "$$");
    format!("\"{escaped}\"")
}

fn systemctl(words: &[&str]) -> Result<(), NodeError> {
    command::run(Command::new("systemctl").args(words)).map(|_| ())
}

pub(super) fn reload() -> Result<(), NodeError> {
    systemctl(&["daemon-reload"])
}

pub(super) fn start(is_changed: bool) -> Result<(), NodeError> {
    reload()?;
    systemctl(&["enable", SOCKET, SERVICE])?;
    systemctl(&["start", SOCKET])?;
    // The socket stays, so nobody's call fails.
    systemctl(&[if is_changed { "restart" } else { "start" }, SERVICE])
}

pub(super) fn stop() -> Result<(), NodeError> {
    let known = command::output(Command::new("systemctl").args(["cat", SERVICE]))?;
    if !known.status.success() {
        return Ok(());
    }
    systemctl(&["disable", "--now", SOCKET, SERVICE])
}

pub(super) fn log() -> String {
    let words = [
        "--unit",
        DAEMON,
        "--lines",
        "10",
        "--no-pager",
        "--output",
        "cat",
    ];
    command::run(Command::new("journalctl").args(words)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line() {
        assert_eq!(quote("/usr/bin/a"), "/usr/bin/a");
        assert_eq!(quote("a b"), "\"a b\"");
        assert_eq!(quote("50%\"$\\"), "\"50%%\\\"$$\\\\\"");
        assert_eq!(quote(""), "\"\"");
    }

    #[test]
    fn no_mounts_of_its_own_and_no_tie_to_containerd() {
        let unit = service_unit(&Settings::new("nfs://10.0.0.1/x?vers=3&nolock"));
        let forbidden = [
            "Protect",
            "Private",
            "ReadOnly",
            "Requires",
            "BindsTo",
            "PartOf",
            "RequiredBy",
        ];
        for word in forbidden {
            assert!(!unit.contains(word), "{word}");
        }
        assert!(
            unit.contains("--config /etc/uimgacc/snapshotter.toml"),
            "{unit}"
        );
        let mut settings = Settings::new("nfs://10.0.0.1/x?vers=3&nolock");
        settings.daemon_options = crate::DaemonOptions::Flags;
        let unit = service_unit(&settings);
        assert!(
            unit.contains("--store \"nfs://10.0.0.1/x?vers=3&nolock\""),
            "{unit}"
        );
    }
}
