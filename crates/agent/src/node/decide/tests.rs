use super::super::daemon::StoreStatus;
use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn well() -> DaemonStatus {
    DaemonStatus {
        version: "1".to_owned(),
        kernel: "6".to_owned(),
        mount_method: Some("file".to_owned()),
        store: StoreStatus {
            source: "/s".to_owned(),
            reachable: true,
            error: None,
        },
        chains: Vec::new(),
        ..DaemonStatus::default()
    }
}

fn waits(runs: bool) -> Outcome {
    Outcome::RestartNeeded {
        containerd: "2".to_owned(),
        runs,
    }
}

fn installed() -> Outcome {
    Outcome::Installed {
        containerd: "2".to_owned(),
    }
}

fn gone(left: Option<&str>) -> Outcome {
    Outcome::Uninstalled {
        left: left.map(str::to_owned),
    }
}

fn failed() -> Outcome {
    Outcome::Failed("no".to_owned())
}

fn rolled_back() -> Outcome {
    Outcome::RolledBack("no".to_owned())
}

fn stuck() -> Outcome {
    Outcome::UninstallFailed("no".to_owned())
}

fn asked(words: &str) -> AccelerationNodeSpec {
    AccelerationNodeSpec {
        leaving: words.contains("leave"),
        uninstall: words.contains("uninstall"),
        release: Vec::new(),
    }
}

#[test]
fn the_work_to_do() {
    use HostWork::{Install, Prepare, Uninstall};
    // (asked, came to, age of that, failures, silent for, labelled) -> work; "restart": the node is listed
    for (words, outcome, age, failures, silent, labelled, expected) in [
        ("", Outcome::None, 0, 0, None, false, Some(Prepare)),
        ("", Outcome::None, 0, 0, None, true, Some(Prepare)),
        // Also where a restart is allowed, whether one is needed is found out first.
        ("restart", Outcome::None, 0, 0, None, false, Some(Prepare)),
        ("leave", Outcome::None, 0, 0, None, false, None),
        ("leave", installed(), 300, 0, Some(60), true, None),
        (
            "leave uninstall restart",
            Outcome::None,
            0,
            0,
            None,
            false,
            Some(Uninstall),
        ),
        ("", waits(false), 10, 0, None, false, None),
        ("", waits(false), 300, 0, None, false, Some(Prepare)),
        ("restart", waits(false), 0, 0, None, false, Some(Install)),
        ("restart", waits(true), 0, 0, None, true, Some(Install)),
        ("", installed(), 10, 0, None, true, None),
        ("restart", installed(), 10, 0, None, true, None),
        ("", installed(), 300, 0, None, true, Some(Prepare)),
        ("", installed(), 100, 0, Some(14), true, None),
        ("", installed(), 100, 0, Some(15), true, Some(Prepare)),
        ("", installed(), 10, 0, Some(15), true, None),
        ("restart", installed(), 300, 0, None, true, Some(Prepare)),
        ("", failed(), 4, 1, None, false, None),
        ("", failed(), 5, 1, None, false, Some(Prepare)),
        ("restart", failed(), 5, 1, None, false, Some(Install)),
        ("", failed(), 9, 2, None, false, None),
        ("", failed(), 10, 2, None, false, Some(Prepare)),
        ("", failed(), 299, 50, None, false, None),
        ("", failed(), 300, 50, None, false, Some(Prepare)),
        ("restart", rolled_back(), 9999, 1, None, false, None),
        ("", rolled_back(), 9999, 1, None, false, None),
        ("uninstall", installed(), 0, 0, None, true, None),
        (
            "uninstall restart",
            installed(),
            0,
            0,
            None,
            false,
            Some(Uninstall),
        ),
        (
            "uninstall restart",
            waits(false),
            0,
            0,
            None,
            false,
            Some(Uninstall),
        ),
        (
            "uninstall restart",
            Outcome::None,
            0,
            0,
            None,
            false,
            Some(Uninstall),
        ),
        (
            "uninstall restart",
            rolled_back(),
            0,
            1,
            None,
            false,
            Some(Uninstall),
        ),
        ("uninstall", gone(None), 9999, 0, None, false, None),
        ("uninstall", gone(Some("x")), 9999, 0, None, false, None),
        ("uninstall", stuck(), 4, 1, None, false, None),
        (
            "uninstall restart",
            stuck(),
            5,
            1,
            None,
            false,
            Some(Uninstall),
        ),
        ("", gone(None), 0, 0, None, false, Some(Prepare)),
        ("restart", gone(None), 0, 0, None, false, Some(Prepare)),
        ("restart", stuck(), 5, 1, None, false, Some(Prepare)),
        ("uninstall", installed(), 0, 0, None, false, None),
        ("leave uninstall", waits(false), 300, 0, None, false, None),
        ("uninstall restart", installed(), 0, 0, None, true, None),
        ("uninstall restart", gone(None), 9999, 0, None, false, None),
        ("leave restart", waits(false), 0, 0, None, false, None),
    ] {
        let now = s(100_000);
        let status = well();
        let seen = Observed {
            now,
            spec: &asked(words),
            outcome: &outcome,
            outcome_at: now - s(age),
            failures,
            daemon: if silent.is_some() {
                Err("gone")
            } else {
                Ok(&status)
            },
            silent_since: silent.map(|silent| now - s(silent)),
            labelled,
            may_restart: words.contains("restart"),
        };
        assert_eq!(
            work(&seen),
            expected,
            "{words:?} {outcome:?} {age} s {silent:?}"
        );
    }
}

#[test]
fn why_a_node_is_unfit() {
    let no_store = DaemonStatus {
        store: StoreStatus {
            reachable: false,
            error: Some("no route".to_owned()),
            ..well().store
        },
        ..well()
    };
    let no_method = DaemonStatus {
        mount_method: None,
        ..well()
    };
    let (good, silent) = (Ok(&well()), Err("refused"));
    for (words, outcome, daemon, expected) in [
        ("", installed(), good, None),
        ("", waits(true), good, None),
        ("restart", installed(), good, None),
        (
            "",
            waits(false),
            good,
            Some(("WaitsForRestart", true, true)),
        ),
        ("", Outcome::None, good, Some(("Starting", true, false))),
        ("", failed(), good, Some(("InstallFailed", false, false))),
        ("", rolled_back(), good, Some(("RolledBack", false, true))),
        (
            "",
            installed(),
            silent,
            Some(("SnapshotterSilent", false, false)),
        ),
        (
            "",
            installed(),
            Ok(&no_store),
            Some(("StoreUnreachable", false, false)),
        ),
        (
            "",
            installed(),
            Ok(&no_method),
            Some(("NoMountMethod", false, false)),
        ),
        (
            "uninstall",
            installed(),
            good,
            Some(("Uninstalling", true, true)),
        ),
        (
            "uninstall",
            gone(None),
            silent,
            Some(("Uninstalled", true, true)),
        ),
        (
            "uninstall",
            stuck(),
            good,
            Some(("UninstallFailed", false, true)),
        ),
    ] {
        let seen = Observed {
            now: s(0),
            spec: &asked(words),
            outcome: &outcome,
            outcome_at: s(0),
            failures: 0,
            daemon,
            silent_since: None,
            labelled: false,
            may_restart: false,
        };
        let found = unfit(&seen);
        let found = found
            .as_ref()
            .map(|one| (one.reason, one.is_normal, one.is_final));
        assert_eq!(found, expected, "{words:?} {outcome:?}");
    }
}

#[test]
fn what_is_short_does_not_count() {
    let blip = Unfit {
        reason: "StoreUnreachable",
        message: String::new(),
        is_normal: false,
        is_final: false,
    };
    let end = Unfit {
        is_final: true,
        ..blip.clone()
    };
    let mut fitness = Fitness::new(true, s(20));
    let mut fed = |at: u64, unfit: Option<&Unfit>| fitness.feed(s(at), unfit);
    assert!(fed(0, None));
    assert!(fed(10, Some(&blip)), "a blip");
    assert!(fed(29, Some(&blip)));
    assert!(fed(29, None));
    assert!(fed(31, Some(&blip)), "time is counted anew");
    assert!(!fed(51, Some(&blip)), "but no more than that");
    assert!(!fed(52, None));
    assert!(!fed(53, Some(&blip)));
    assert!(!fed(54, None));
    assert!(fed(57, None), "well for a while");
    assert!(!fed(58, Some(&end)), "at once");
    assert!(!Fitness::new(false, s(20)).feed(s(0), None));
}

#[test]
fn the_installer_stays_until_all_is_taken_away() {
    for (words, outcome, expected) in [
        ("", Outcome::None, Some(true)),
        ("", gone(None), Some(true)),
        ("leave", installed(), None),
        ("leave uninstall", installed(), None),
        ("leave uninstall", stuck(), None),
        ("leave uninstall", gone(None), Some(false)),
        ("uninstall", gone(Some("later")), Some(false)),
    ] {
        let keeps = keeps_installer(&asked(words), &outcome);
        assert_eq!(keeps, expected, "{words:?} {outcome:?}");
    }
}

#[test]
fn what_is_held_is_released() {
    let spec = AccelerationNodeSpec {
        release: vec!["a".to_owned(), "b".to_owned()],
        ..AccelerationNodeSpec::default()
    };
    let held = |chain: &str| HeldChain {
        start: None,
        token: chain.to_owned(),
        containers: 1,
    };
    assert_eq!(to_release(&spec, &[held("b"), held("c")]), ["b"]);
    assert!(to_release(&spec, &[]).is_empty());
}
