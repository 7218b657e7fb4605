use super::super::super::view::{Ended, JobEnd, JobView, Meta, OurPod};
use super::super::job::{JobState, state};
use super::samples::at;

fn job(end: JobEnd) -> JobView {
    JobView {
        inputs: "now".to_owned(),
        attempt: 3,
        end,
        ..JobView::default()
    }
}

fn pod(code: i32, reason: &str, message: &str) -> OurPod {
    OurPod {
        ended: Some(Ended {
            code,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }),
        ..OurPod::default()
    }
}

fn failed_at_50(reason: &str) -> JobView {
    job(JobEnd::Failed(at(50), reason.to_owned()))
}

#[test]
fn what_a_failed_job_left_behind() {
    let cases = [
        (
            Some(pod(
                1,
                "Error",
                r#"{"error": "no space left: free some", "retry": true}"#,
            )),
            "no space left: free some",
            false,
            true,
        ),
        (
            Some(pod(1, "Error", r#"{"error": "not there", "retry": false}"#)),
            "not there",
            false,
            false,
        ),
        // The log's end, where the last line is ours.
        (
            Some(pod(
                1,
                "Error",
                "a line\n{\"error\": \"e\", \"retry\": false}\n",
            )),
            "e",
            false,
            false,
        ),
        (Some(pod(137, "OOMKilled", "")), "more memory", true, true),
        (Some(pod(137, "Error", "")), "exit code 137", true, true),
        (
            Some(pod(101, "Error", "thread panicked\nat x")),
            "exit code 101: at x",
            true,
            true,
        ),
        (
            Some(pod(-1, "Evicted", "the node was low on memory")),
            "Evicted): the node was low",
            true,
            true,
        ),
        (None, "its Pod is gone", true, true),
        (
            Some(pod(1, "Error", r#"{"error": 5}"#)),
            "exit code 1",
            true,
            true,
        ),
    ];
    for (pod, message, died, retry) in cases {
        let state = state(
            Some(&failed_at_50("BackoffLimitExceeded")),
            pod.as_ref(),
            "now",
            at(51),
        );
        let JobState::Failed(failure) = state else {
            panic!("{state:?}")
        };
        assert!(failure.message.contains(message), "{failure:?}");
        assert_eq!((failure.died, failure.retry), (died, retry), "{failure:?}");
        assert_eq!(
            (failure.at, failure.attempt, failure.outdated),
            (at(50), 3, false)
        );
    }
}

#[test]
fn a_job_that_took_too_long_is_tried_again() {
    let pod = OurPod::default();
    let JobState::Failed(failure) = state(
        Some(&failed_at_50("DeadlineExceeded")),
        Some(&pod),
        "now",
        at(50),
    ) else {
        panic!()
    };
    assert!(failure.retry && !failure.died && failure.message.contains("check the addresses"));
}

#[test]
fn a_pod_whose_end_is_not_known_yet_is_waited_for_a_while() {
    let pod = OurPod::default();
    let job = failed_at_50("BackoffLimitExceeded");
    assert!(matches!(
        state(Some(&job), Some(&pod), "now", at(64)),
        JobState::Running { .. }
    ));
    assert!(matches!(
        state(Some(&job), Some(&pod), "now", at(65)),
        JobState::Failed(_)
    ));
}

#[test]
fn jobs_that_run_or_go() {
    assert_eq!(state(None, None, "now", at(0)), JobState::None);
    let waits = OurPod {
        waits: Some("ImagePullBackOff".to_owned()),
        ..OurPod::default()
    };
    assert_eq!(
        state(Some(&job(JobEnd::Active)), Some(&waits), "now", at(0)),
        JobState::Running {
            waits: Some("ImagePullBackOff".to_owned()),
            attempt: 3
        }
    );
    let complete = job(JobEnd::Complete(at(7)));
    assert_eq!(
        state(Some(&complete), None, "now", at(9)),
        JobState::Succeeded(at(7))
    );
    // Being deleted comes before all else: its Pod may still write.
    let stopping = JobView {
        meta: Meta {
            deleting: Some(at(8)),
            ..Meta::default()
        },
        ..complete
    };
    assert_eq!(
        state(Some(&stopping), None, "now", at(9)),
        JobState::Stopping
    );
}

#[test]
fn other_settings_make_a_failure_outdated() {
    let JobState::Failed(failure) = state(Some(&failed_at_50("x")), None, "other", at(51)) else {
        panic!()
    };
    assert!(failure.outdated);
}
