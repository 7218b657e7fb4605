//! Every version with every kind of configuration.

use std::fs;
use std::process::Command;
use std::time::Duration;

use uimgacc_node::check::Level;
use uimgacc_node::{as_installed, check, install, plan, uninstall};
use uimgacc_testkit::cri::Cri;
use uimgacc_testkit::{Need, Registry, image, parts, ready};

use crate::host::{Host, versions};

/// What a containerd on this machine needs beside others: no NRI, whose socket has a fixed place,
/// and its own folder for `opt`.
const ASIDE: &str = "\n[plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n\
    [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"DIR/opt\"\n";

/// The version's own default, as people make it by `containerd config default`.
pub(crate) fn default_config(version: &str) -> String {
    let program = parts::dir().join(format!("containerd-{version}/bin/containerd"));
    let output = Command::new(program)
        .args(["config", "default"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let nri_begin = text.find("io.containerd.nri.v1.nri");
    let text = match nri_begin {
        Some(begin) => {
            let (head, tail) = text.split_at(begin);
            head.to_owned() + &tail.replacen("disable = false", "disable = true", 1)
        }
        None => text,
    };
    text.replace("/opt/containerd", "DIR/opt")
}

/// What Debian ships.
fn debian_config(version: &str) -> Option<String> {
    let path = parts::dir().join(format!(
        "pkg/containerd-{version}/etc/containerd/config.toml"
    ));
    let text = fs::read_to_string(path).ok()?;
    Some(text.replace("/var/lib/containerd/opt", "DIR/opt"))
}

fn by_hand(version: &str) -> String {
    let own = if version.starts_with('1') {
        "version = 2 # the form of 1.x\nimports = ['conf.d/*.toml']\n\n# Our registry.\n\
         plugins.'io.containerd.grpc.v1.cri'.registry = { config_path = \"DIR/hosts\" }\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n    snapshotter = 'native' # for ZFS\n"
    } else {
        "version = 3 # the form of 2.x\nimports = ['conf.d/*.toml']\n\n# Our registry.\n\
         [plugins.'io.containerd.cri.v1.images']\n    snapshotter = 'native' # for ZFS\n\
         registry = { config_path = \"DIR/hosts\" }\n\
         [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\nplatform = 'linux/amd64'\n\
         snapshotter = 'native'\ndiffer = 'walking'\n"
    };
    own.to_owned() + ASIDE
}

/// The form of 1.x, which 2.x reads as well, with and without `runtimes`.
const OLD_FORM: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  \
    snapshotter = \"overlayfs\"\n";
const OLD_FORM_WITH_RUNTIMES: &str = "version = 2\n\
    [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"overlayfs\"\n\
    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  \
    runtime_type = \"io.containerd.runc.v2\"\n";

fn configs(version: &str) -> Vec<(&'static str, Option<String>)> {
    let mut configs = vec![
        ("default", Some(default_config(version))),
        ("by hand", Some(by_hand(version))),
        ("old form", Some(OLD_FORM.to_owned() + ASIDE)),
        (
            "old form, runtimes",
            Some(OLD_FORM_WITH_RUNTIMES.to_owned() + ASIDE),
        ),
        ("none", None),
        ("empty", Some(String::new())),
    ];
    if let Some(text) = debian_config(version) {
        configs.push((
            "Debian's",
            Some(text + "\n  [plugins.\"io.containerd.nri.v1.nri\"]\n    disable = true\n"),
        ));
    }
    configs
}

fn round_trip(version: &'static str, name: &str, config: Option<&str>, reference: &str) {
    let host = Host::start(version, config);
    let what = format!("{version}, {name}");
    let before = host.config();
    let settings = &host.settings;

    let planned = plan(settings).unwrap();
    assert!(planned.diff.contains("+"), "{what}");
    assert_eq!(host.config(), before, "{what}: a plan changes nothing");

    let installed =
        install(settings, &mut |_| {}).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(installed.config_changed && installed.restarted, "{what}");
    assert_eq!(host.restarts(), 1, "{what}");
    assert_eq!(host.plugin().as_deref(), Some("ok"), "{what}");

    // CRI unpacks with it.
    let cri = Cri::connect(&settings.containerd_socket, &host.path("logs"));
    cri.pull(reference)
        .unwrap_or_else(|status| panic!("{what}: {status}\n{}", host.log()));
    let snapshots = host.snapshots();
    assert!(snapshots.contains("Committed"), "{what}: {snapshots}");
    // Because annotations are on, CRI of 2.x leaves the transfer service aside.
    let log = fs::read_to_string(host.path("containerd.log")).unwrap();
    let falls_back = log.contains("Falling back to local image pull mode");
    assert_eq!(
        falls_back,
        version.starts_with('2') && version != "2.0",
        "{what}"
    );
    // And so does `ctr`, which in 2.x pulls through the transfer service.
    let pull = [
        "images",
        "pull",
        "--plain-http",
        "--snapshotter",
        "uimgacc",
        reference,
    ];
    host.ctr_ok(&pull);
    // Nobody lost what containerd unpacks for by default, unless they had put it out.
    if name != "by hand" {
        host.ctr_ok(&[
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            "overlayfs",
            reference,
        ]);
    }

    // Again: nothing to do.
    let edited = host.config();
    let again = install(settings, &mut |_| {}).unwrap();
    assert!(!again.config_changed && !again.restarted, "{what}");
    assert_eq!((host.restarts(), host.config()), (1, edited), "{what}");

    fs::write(host.path("store/store.json"), "{}").unwrap();
    let report = check(settings, Duration::from_secs(5));
    let bad: Vec<_> = report
        .findings
        .iter()
        .filter(|one| one.level == Level::Fail)
        .collect();
    assert!(bad.iter().all(|one| one.id == "store"), "{what}: {bad:?}");

    // All that it must know stands in the record.
    let told = as_installed(&settings.state).unwrap();
    let gone =
        uninstall(&told, false, &mut |_| {}).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(
        gone.was_installed && gone.config_changed && gone.restarted,
        "{what}"
    );
    assert_eq!(host.config(), before, "{what}: byte for byte");
    assert_eq!((host.restarts(), host.plugin()), (2, None), "{what}");
    assert!(!host.daemon_runs(), "{what}");
    for path in [
        "bin/uimgacc-snapshotter",
        "etc/snapshotter.toml",
        "state/node.json",
        "state/backup",
    ] {
        assert!(!host.path(path).exists(), "{what}: {path}");
    }
    assert_eq!(
        fs::read_dir(host.path("etc"))
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with(".")
            })
            .count(),
        0,
        "{what}"
    );
    let gone = uninstall(settings, true, &mut |_| {}).unwrap();
    assert!(
        !gone.was_installed && !host.settings.root.exists(),
        "{what}"
    );
}

#[test]
fn every_version_with_every_configuration_and_back_byte_for_byte() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let pushed = image::busybox().push(&registry, "busybox:1");
    for version in versions() {
        for (name, config) in configs(version) {
            round_trip(version, name, config.as_deref(), &pushed.reference);
        }
    }
}
