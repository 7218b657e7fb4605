//! Kills at every step: the next install or uninstall puts things right.

use std::panic::{AssertUnwindSafe, catch_unwind};

use uimgacc_node::{Settings, Step, install, uninstall};
use uimgacc_testkit::{Need, ready};

use crate::host::Host;

const CONFIG: &str = "version = 2\n# kept\n[plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n\
    [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"DIR/opt\"\n";

/// Runs a command that ends at a step as by a kill: nothing is tidied up, because nothing of it is
/// left to destructors but the lock, which a kill frees as well.
fn killed_at(step: Step, command: impl FnOnce(&mut dyn FnMut(Step))) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(|| {
        command(&mut |now| assert!(now != step, "killed"));
    }));
    std::panic::set_hook(hook);
    assert!(result.is_err(), "{step:?} was never reached");
}

fn install_killed(settings: &Settings, step: Step) {
    killed_at(step, |watch| {
        // Not a panic, which would pass for the kill.
        if let Err(error) = install(settings, watch) {
            eprintln!("{step:?}: the install failed by itself: {error:?}");
        }
    });
}

/// Also where the install that wrote it was killed before it restarted the daemon.
fn a_new_configuration_reaches_the_daemon(host: &Host) {
    let mut settings = host.settings.clone();
    let supervisors = || -> Vec<i32> {
        let all = host.processes().into_iter();
        all.filter(|(_, words)| words.contains(" supervise "))
            .map(|(pid, _)| pid)
            .collect()
    };
    install(&settings, &mut |_| {}).unwrap();
    let first = supervisors();
    install(&settings, &mut |_| {}).unwrap();
    assert_eq!(supervisors(), first, "nothing changed");
    settings
        .daemon_keys
        .push(("original_images".to_owned(), "unpack".to_owned()));
    install_killed(&settings, Step::StartDaemon);
    assert_eq!(supervisors(), first);
    install(&settings, &mut |_| {}).unwrap();
    let second = supervisors();
    assert!(
        second.len() == 1 && second != first,
        "{first:?}, {second:?}"
    );
    install(&settings, &mut |_| {}).unwrap();
    assert_eq!(supervisors(), second, "nothing changed");
    uninstall(&settings, false, &mut |_| {}).unwrap();
}

#[test]
fn a_kill_at_any_step_is_mended_by_the_next_command() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let host = Host::start("2.1", Some(CONFIG));
    let before = host.config();
    let settings = &host.settings;
    let steps = [
        Step::WriteDaemon,
        Step::StartDaemon,
        Step::ProveConfig,
        Step::RecordConfig,
        Step::ReplaceConfig,
        Step::RestartContainerd,
        Step::ForgetLost,
        Step::Finish,
    ];
    for step in steps {
        install_killed(settings, step);
        install(settings, &mut |_| {}).unwrap_or_else(|error| panic!("{step:?}: {error:?}"));
        assert_eq!(host.plugin().as_deref(), Some("ok"), "{step:?}");
        uninstall(settings, false, &mut |_| {}).unwrap();
        assert_eq!(
            (host.config(), host.plugin()),
            (before.clone(), None),
            "{step:?}"
        );

        install_killed(settings, step);
        uninstall(settings, false, &mut |_| {})
            .unwrap_or_else(|error| panic!("{step:?}: {error:?}"));
        assert_eq!(
            (host.config(), host.plugin()),
            (before.clone(), None),
            "{step:?}"
        );
        assert!(!host.daemon_runs() && !settings.state.exists(), "{step:?}");
    }
    a_new_configuration_reaches_the_daemon(&host);
    let steps = [
        Step::ProveConfig,
        Step::ReplaceConfig,
        Step::RestartContainerd,
        Step::StopDaemon,
        Step::RemoveDaemon,
    ];
    for step in steps {
        install(settings, &mut |_| {}).unwrap();
        killed_at(step, |watch| {
            let _ = uninstall(settings, false, watch);
        });
        install(settings, &mut |_| {}).unwrap_or_else(|error| panic!("{step:?}: {error:?}"));
        assert_eq!(host.plugin().as_deref(), Some("ok"), "{step:?}");
        killed_at(step, |watch| {
            let _ = uninstall(settings, false, watch);
        });
        uninstall(settings, false, &mut |_| {})
            .unwrap_or_else(|error| panic!("{step:?}: {error:?}"));
        assert_eq!(
            (host.config(), host.plugin()),
            (before.clone(), None),
            "{step:?}"
        );
        assert!(!host.daemon_runs() && !settings.state.exists(), "{step:?}");
    }
    // In the middle of a rollback.
    host.write_restart("if grep -q proxy_plugins etc/config.toml; then exit 1; fi");
    install_killed(settings, Step::RollBack);
    host.write_restart("");
    install(settings, &mut |_| {}).unwrap();
    assert_eq!(host.plugin().as_deref(), Some("ok"));
    uninstall(settings, false, &mut |_| {}).unwrap();
    assert_eq!(host.config(), before);
}
