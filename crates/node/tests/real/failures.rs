//! What goes wrong, and what is left then.

use std::fs;

use uimgacc_node::check::Level;
use uimgacc_node::{NodeError, check, install, uninstall};
use uimgacc_testkit::{Need, ready};

use crate::host::{Host, versions};

const CONFIG: &str = "version = 2\n# kept\n[plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n\
    [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"DIR/opt\"\n";

#[test]
fn a_containerd_that_does_not_come_back_gets_its_former_configuration_again() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    for version in versions() {
        let host = Host::start(version, Some(CONFIG));
        let before = host.config();
        // No configuration that containerd accepts makes the real one fail at its start alone.
        host.write_restart(
            "if grep -q proxy_plugins etc/config.toml; then echo 'no such luck' >&2; exit 1; fi",
        );
        let error = install(&host.settings, &mut |_| {}).unwrap_err();
        let NodeError::RolledBack { reason, .. } = &error else {
            panic!("{version}: {error:?}");
        };
        assert!(reason.contains("no such luck"), "{version}: {reason}");
        assert_eq!(host.config(), before, "{version}");
        assert_eq!(
            (host.restarts(), host.plugin()),
            (2, None),
            "{version}: it is up again"
        );
        // And as soon as that is mended, it works.
        host.write_restart("");
        install(&host.settings, &mut |_| {}).unwrap();
        assert_eq!(host.plugin().as_deref(), Some("ok"), "{version}");
        // An install with other settings that fails leaves the one before.
        let good = host.config();
        let mut other = host.settings.clone();
        other.name = "other".to_owned();
        host.write_restart("if grep -q 'proxy_plugins.other' etc/config.toml; then exit 1; fi");
        let error = install(&other, &mut |_| {}).unwrap_err();
        assert!(
            matches!(error, NodeError::RolledBack { .. }),
            "{version}: {error:?}"
        );
        assert_eq!(host.config(), good, "{version}");
        assert_eq!(host.plugin().as_deref(), Some("ok"), "{version}");
        host.write_restart("");
        install(&other, &mut |_| {}).unwrap();
        assert_eq!(host.plugin(), None, "{version}");
        install(&host.settings, &mut |_| {}).unwrap();
        assert_eq!(host.config(), good, "{version}");
        other.run_dir = host.path("run2");
        let moved = install(&other, &mut |_| {});
        assert!(
            matches!(moved, Err(NodeError::Moved { .. })),
            "{version}: {moved:?}"
        );
        uninstall(&host.settings, false, &mut |_| {}).unwrap();
        assert_eq!(host.config(), before, "{version}");
    }
}

#[test]
fn without_the_right_to_restart_all_is_prepared_and_containerd_stays_as_it_is() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    for version in versions() {
        let mut host = Host::start(version, Some(CONFIG));
        let before = host.config();
        host.settings.may_restart = false;
        for _time in 0..2 {
            let done = install(&host.settings, &mut |_| {}).unwrap();
            assert!(done.restart_needed && !done.runs, "{version}: {done:?}");
            assert_eq!(host.config(), before, "{version}");
            assert_eq!((host.restarts(), host.plugin()), (0, None), "{version}");
        }
        host.settings.may_restart = true;
        let done = install(&host.settings, &mut |_| {}).unwrap();
        assert!(done.restarted && done.runs && !done.restart_needed);
        host.settings.may_restart = false;
        let done = install(&host.settings, &mut |_| {}).unwrap();
        assert!(done.runs && !done.restart_needed, "{version}: {done:?}");
        assert_eq!(host.restarts(), 1, "{version}");
        uninstall(&host.settings, false, &mut |_| {}).unwrap();
        assert_eq!(host.config(), before, "{version}");
    }
}

#[test]
fn what_containerd_refuses_or_would_not_follow_is_never_put_in_place() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    for version in versions() {
        let host = Host::start(version, Some(CONFIG));
        // A drop-in that takes our key away.
        let table = if version.starts_with('1') {
            "plugins.\"io.containerd.grpc.v1.cri\".containerd"
        } else {
            "plugins.\"io.containerd.cri.v1.images\""
        };
        // Of a relative pattern 1.6 takes its own folder as the base, not the file's.
        let imports =
            host.fill("imports = [\"DIR/etc/conf.d/*.toml\"]\n") + &host.config().unwrap();
        fs::write(&host.settings.config, &imports).unwrap();
        fs::create_dir(host.path("etc/conf.d")).unwrap();
        let drop_in = host.path("etc/conf.d/site.toml");
        fs::write(
            &drop_in,
            format!("version = 2\n[{table}]\nsnapshotter = \"native\"\n"),
        )
        .unwrap();
        let error = install(&host.settings, &mut |_| {}).unwrap_err();
        let NodeError::Overridden { keys, drop_ins, .. } = &error else {
            panic!("{version}: {error:?}");
        };
        assert!(keys[0].ends_with(".snapshotter"), "{version}: {keys:?}");
        assert_eq!(drop_ins, std::slice::from_ref(&drop_in), "{version}");
        let report = check(&host.settings, std::time::Duration::from_secs(5));
        let found = report
            .findings
            .iter()
            .find(|one| one.id == "containerd-config")
            .unwrap();
        assert_eq!(found.level, Level::Fail);
        fs::remove_file(&drop_in).unwrap();

        // A drop-in that containerd cannot read.
        fs::write(host.path("etc/conf.d/broken.toml"), "version = [").unwrap();
        let error = install(&host.settings, &mut |_| {}).unwrap_err();
        assert!(
            matches!(error, NodeError::Refused { .. }),
            "{version}: {error:?}"
        );
        assert_eq!(
            host.config().as_deref(),
            Some(imports.as_str()),
            "{version}"
        );
        assert_eq!(host.restarts(), 0, "{version}");
        fs::remove_file(host.path("etc/conf.d/broken.toml")).unwrap();

        // A drop-in that has nothing to do with it.
        fs::write(
            host.path("etc/conf.d/other.toml"),
            "version = 2\n[timeouts]\n\"x.y\" = \"1s\"\n",
        )
        .unwrap();
        install(&host.settings, &mut |_| {}).unwrap();
        uninstall(&host.settings, false, &mut |_| {}).unwrap();
        assert_eq!(
            host.config().as_deref(),
            Some(imports.as_str()),
            "{version}"
        );
    }
}

#[test]
fn what_somebody_wrote_into_the_file_in_between_stays() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let host = Host::start("1.7", Some(CONFIG));
    let before = host.config().unwrap();
    install(&host.settings, &mut |_| {}).unwrap();
    let more = "# new since\n[timeouts]\n  \"x.y\" = \"1s\"\n";
    fs::write(&host.settings.config, host.config().unwrap() + more).unwrap();
    // An install in between finds all that it needs, and leaves the file alone.
    let again = install(&host.settings, &mut |_| {}).unwrap();
    assert!(!again.config_changed && !again.restarted);
    uninstall(&host.settings, false, &mut |_| {}).unwrap();
    let left = host.config().unwrap();
    assert!(left.starts_with(before.trim_end()), "{left}");
    assert!(left.contains(more), "{left}");
    assert!(
        !left.contains("uimgacc") || left.contains("/uimgacc-node-"),
        "{left}"
    );
    assert_eq!(host.plugin(), None);
}

#[test]
fn a_daemon_that_does_not_start_leaves_containerd_alone() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let mut host = Host::start("2.1", Some(CONFIG));
    let before = host.config();
    host.settings.daemon_flags = vec!["--no-such-flag".to_owned()];
    host.settings.patience = std::time::Duration::from_secs(4);
    let error = install(&host.settings, &mut |_| {}).unwrap_err();
    let NodeError::Silent { log, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(log.contains("no-such-flag"), "{log}");
    assert_eq!((host.config(), host.restarts()), (before, 0));
    uninstall(&host.settings, false, &mut |_| {}).unwrap();
    assert!(!host.path("bin/uimgacc-snapshotter").exists());
}

#[test]
fn a_node_without_anything_is_told_what_to_do() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let host = Host::start("2.1", Some(CONFIG));
    let report = check(&host.settings, std::time::Duration::from_secs(5));
    assert_eq!(report.level(), Level::Fail);
    for id in ["containerd-config", "proxy-plugin", "snapshotter", "store"] {
        let found = report.findings.iter().find(|one| one.id == id).unwrap();
        assert_eq!(found.level, Level::Fail, "{found:?}");
        assert!(!found.mend.is_empty(), "{found:?}");
    }
    let mut nothing = host.settings.clone();
    nothing.containerd = host.path("nowhere");
    nothing.containerd_socket = host.path("nowhere.sock");
    assert!(matches!(
        install(&nothing, &mut |_| {}),
        Err(NodeError::Run { .. })
    ));
    let report = check(&nothing, std::time::Duration::from_secs(5));
    assert!(
        report
            .findings
            .iter()
            .any(|one| one.id == "containerd-version" && one.level == Level::Fail)
    );
}
