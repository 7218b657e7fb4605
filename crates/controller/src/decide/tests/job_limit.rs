use super::super::super::build::JobTask;
use super::super::job_limit::decide;
use super::samples::at;

fn convert(image: &str) -> JobTask {
    JobTask::Convert {
        image: image.to_owned(),
        attempt: 1,
    }
}

fn delete(image: &str) -> JobTask {
    JobTask::Delete {
        image: image.to_owned(),
        attempt: 1,
        force: false,
    }
}

#[test]
fn those_that_wait_longest_start_first_within_the_limit() {
    let waiting = vec![
        (convert("young"), at(9)),
        (convert("old"), at(1)),
        (convert("middle"), at(5)),
    ];
    assert_eq!(
        decide(waiting.clone(), 0, 0, 2),
        [convert("old"), convert("middle")]
    );
    assert_eq!(decide(waiting.clone(), 1, 0, 2), [convert("old")]);
    assert_eq!(decide(waiting.clone(), 2, 9, 2), []);
    assert_eq!(decide(waiting, 5, 0, 2), [], "a limit that was lowered");
}

#[test]
fn conversions_and_deletions_do_not_wait_for_each_other() {
    let waiting = vec![
        (convert("a"), at(1)),
        (delete("b"), at(2)),
        (delete("c"), at(3)),
    ];
    assert_eq!(decide(waiting.clone(), 1, 0, 1), [delete("b")]);
    assert_eq!(decide(waiting, 0, 1, 1), [convert("a")]);
}

#[test]
fn what_fails_again_and_again_keeps_no_place_from_others() {
    // It failed at 100 and is due again; something made at 50 still waits.
    let waiting = vec![(convert("fails"), at(100)), (convert("waits"), at(50))];
    assert_eq!(decide(waiting, 0, 0, 1), [convert("waits")]);
}
