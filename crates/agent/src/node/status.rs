//! What the node says of itself. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use uimgacc_objects::{AccelerationNodeStatus, condition, set_condition};

use super::decide::{Observed, Outcome, Unfit, not_installed, store_message};

/// The status, from what was seen and what was said before.
pub(super) fn status(
    seen: &Observed<'_>,
    unfit: Option<&Unfit>,
    is_fit: bool,
    before: &AccelerationNodeStatus,
    generation: Option<i64>,
    now: &Time,
) -> AccelerationNodeStatus {
    let mut new = AccelerationNodeStatus {
        needs_restart: matches!(seen.outcome, Outcome::RestartNeeded { .. })
            && !seen.spec.uninstall,
        conditions: before.conditions.clone(),
        // What the node holds is a lease: a silent daemon takes nothing of it back.
        chains: before.chains.clone(),
        version: before.version.clone(),
        kernel: before.kernel.clone(),
        mount_method: before.mount_method.clone(),
        containerd: before.containerd.clone(),
        error: unfit
            .filter(|unfit| !unfit.is_normal)
            .map(|unfit| unfit.message.clone()),
    };
    if let Ok(daemon) = seen.daemon {
        new.version = Some(daemon.version.clone());
        new.kernel = Some(daemon.kernel.clone());
        new.mount_method = daemon.mount_method.clone();
        new.chains = daemon.chains.clone();
        // A daemon that was restarted does not know how images were started before.
        for chain in new.chains.iter_mut().filter(|chain| chain.start.is_none()) {
            let known = before.chains.iter().find(|one| one.token == chain.token);
            chain.start = known.and_then(|one| one.start.clone());
        }
    }
    match seen.outcome {
        Outcome::Installed { containerd } | Outcome::RestartNeeded { containerd, .. } => {
            new.containerd = Some(containerd.clone());
        }
        Outcome::Uninstalled { left } => {
            new.version = None;
            new.mount_method = None;
            // Images are gone, but containers go on with what they have mounted.
            let is_left = left.is_some();
            new.chains.retain(|chain| is_left && chain.containers > 0);
        }
        _ => {}
    }
    for (kind, is_true, reason, message) in
        [installed(seen), store_reachable(seen), ready(unfit, is_fit)]
    {
        let new_one: Condition =
            condition(kind, is_true, reason, &message, generation, now.clone());
        set_condition(&mut new.conditions, new_one);
    }
    new
}

type Words = (&'static str, Option<bool>, &'static str, String);

fn installed(seen: &Observed<'_>) -> Words {
    let kind = "Installed";
    match not_installed(seen) {
        Some(unfit) => (kind, Some(false), unfit.reason, unfit.message),
        None if matches!(seen.outcome, Outcome::RestartNeeded { .. }) => {
            let message = "containerd must be restarted once more for what has changed";
            (kind, Some(true), "RestartPending", message.to_owned())
        }
        None => {
            let message = "containerd uses the snapshotter".to_owned();
            (kind, Some(true), "Installed", message)
        }
    }
}

fn store_reachable(seen: &Observed<'_>) -> Words {
    let kind = "StoreReachable";
    match seen.daemon {
        Ok(daemon) if daemon.store.reachable => {
            (kind, Some(true), "Reachable", daemon.store.source.clone())
        }
        Ok(daemon) => (kind, Some(false), "Unreachable", store_message(daemon)),
        Err(silence) => (
            kind,
            None,
            "SnapshotterSilent",
            format!("the snapshotter does not answer: {silence}"),
        ),
    }
}

fn ready(unfit: Option<&Unfit>, is_fit: bool) -> Words {
    let kind = "Ready";
    match unfit {
        None if is_fit => {
            let message = "accelerated images run here".to_owned();
            (kind, Some(true), "Ready", message)
        }
        None => {
            let message = "all is well; that is watched for some seconds".to_owned();
            (kind, Some(false), "Settling", message)
        }
        Some(unfit) => (kind, Some(is_fit), unfit.reason, unfit.message.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::jiff::Timestamp;
    use uimgacc_objects::{AccelerationNodeSpec, HeldChain, find_condition};

    use super::super::daemon::{DaemonStatus, StoreStatus};
    use super::super::decide;
    use super::*;

    fn daemon(reachable: bool) -> DaemonStatus {
        DaemonStatus {
            version: "1".to_owned(),
            kernel: "6.18".to_owned(),
            mount_method: Some("file".to_owned()),
            store: StoreStatus {
                source: "/s".to_owned(),
                reachable,
                error: None,
            },
            chains: vec![HeldChain {
                start: None,
                token: "chain:a".to_owned(),
                containers: 1,
            }],
            ..DaemonStatus::default()
        }
    }

    fn said(
        outcome: &Outcome,
        daemon: Result<&DaemonStatus, &str>,
        is_fit: bool,
        before: &AccelerationNodeStatus,
        at: i64,
    ) -> AccelerationNodeStatus {
        let spec = AccelerationNodeSpec::default();
        let seen = Observed {
            now: Duration::ZERO,
            spec: &spec,
            outcome,
            outcome_at: Duration::ZERO,
            failures: 0,
            daemon,
            silent_since: None,
            labelled: false,
            may_restart: false,
        };
        let time = Time(Timestamp::from_second(at).unwrap());
        let unfit = decide::unfit(&seen);
        status(&seen, unfit.as_ref(), is_fit, before, Some(1), &time)
    }

    fn condition_of(status: &AccelerationNodeStatus, kind: &str) -> (String, String) {
        let found = find_condition(&status.conditions, kind).unwrap();
        (found.status.clone(), found.reason.clone())
    }

    #[test]
    fn a_life() {
        let (good, bad) = (daemon(true), daemon(false));
        let waits = Outcome::RestartNeeded {
            containerd: "2.1".to_owned(),
            runs: false,
        };
        let first = said(
            &waits,
            Ok(&good),
            false,
            &AccelerationNodeStatus::default(),
            1,
        );
        assert!(first.needs_restart && first.error.is_none(), "{first:?}");
        let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(
            condition_of(&first, "Installed"),
            pair("False", "WaitsForRestart")
        );
        assert_eq!(
            condition_of(&first, "Ready"),
            pair("False", "WaitsForRestart")
        );

        let installed = Outcome::Installed {
            containerd: "2.1".to_owned(),
        };
        let ready = said(&installed, Ok(&good), true, &first, 2);
        assert!(!ready.needs_restart);
        assert_eq!(condition_of(&ready, "Ready"), pair("True", "Ready"));
        assert_eq!(ready.containerd.as_deref(), Some("2.1"));
        let since = |status: &AccelerationNodeStatus, kind| {
            let found = find_condition(&status.conditions, kind).unwrap();
            found.last_transition_time.0.as_second()
        };
        assert_eq!(since(&ready, "Ready"), 2);
        assert_eq!(since(&ready, "StoreReachable"), 1, "that has not changed");
        assert_eq!(
            said(&installed, Ok(&good), true, &ready, 3),
            ready,
            "nothing new"
        );

        // A blip is told, and is none of Ready's business yet.
        let blip = said(&installed, Ok(&bad), true, &ready, 4);
        assert_eq!(
            condition_of(&blip, "StoreReachable"),
            pair("False", "Unreachable")
        );
        assert_eq!(
            condition_of(&blip, "Ready"),
            pair("True", "StoreUnreachable")
        );
        assert!(blip.error.unwrap().contains("/s"));

        // A silent daemon gives nothing back.
        let silent = said(&installed, Err("refused"), false, &ready, 5);
        assert_eq!(silent.chains, good.chains);
        assert_eq!(condition_of(&silent, "StoreReachable").0, "Unknown");
        assert_eq!(
            condition_of(&silent, "Ready"),
            pair("False", "SnapshotterSilent")
        );

        let left = Outcome::Uninstalled {
            left: Some("containers use it".to_owned()),
        };
        let busy = said(&left, Err("gone"), false, &ready, 6);
        assert_eq!(
            condition_of(&busy, "Installed"),
            pair("False", "Uninstalled")
        );
        assert_eq!(busy.chains, good.chains, "containers read them still");
        assert_eq!(busy.error, None);
        let gone = Outcome::Uninstalled { left: None };
        let gone = said(&gone, Err("gone"), false, &busy, 7);
        assert!(gone.chains.is_empty());
        assert_eq!(since(&gone, "Installed"), 6);
    }
}
