#![allow(clippy::unwrap_used)]

use super::*;

const TIMINGS: Timings = Timings {
    lease_duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry_period: Duration::from_secs(2),
};

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn held(holder: &str, version: &str) -> Option<Record> {
    Some(Record {
        holder: Some(holder.to_owned()),
        duration: TIMINGS.lease_duration,
        version: version.to_owned(),
    })
}

#[test]
fn the_first_makes_the_lease_and_renews_it() {
    let mut a = Election::new("a", TIMINGS);
    assert_eq!(a.step(at(0)), ElectionStep::Take(None));
    a.written("1", at(0));
    assert_eq!(a.leads_until(), Some(at(10)));
    assert_eq!(a.step(at(1)), ElectionStep::Wait(at(2)));
    assert_eq!(a.step(at(2)), ElectionStep::Renew("1".to_owned()));
    a.written("2", at(2));
    assert_eq!(a.leads_until(), Some(at(12)));
}

#[test]
fn a_leader_stops_before_another_may_start() {
    let mut a = Election::new("a", TIMINGS);
    let mut b = Election::new("b", TIMINGS);
    a.written("1", at(100));
    b.observe(held("a", "1"), at(100));
    // The leader cannot reach the server any more.
    a.failed(at(102));
    assert_eq!(a.step(at(103)), ElectionStep::Renew("1".to_owned()));
    assert_eq!(a.step(at(110)), ElectionStep::Lost);
    assert_eq!(a.leads_until(), None);
    assert_eq!(b.step(at(110)), ElectionStep::Wait(at(115)));
    assert_eq!(b.step(at(114)), ElectionStep::Wait(at(115)));
    assert_eq!(b.step(at(115)), ElectionStep::Take(Some("1".to_owned())));
}

#[test]
fn each_renewal_that_is_seen_starts_the_wait_anew() {
    let mut b = Election::new("b", TIMINGS);
    for (second, version) in [(0, "1"), (7, "2"), (14, "3")] {
        b.observe(held("a", version), at(second));
        // Seen twice is not renewed twice.
        b.observe(held("a", version), at(second + 3));
        assert_eq!(b.step(at(second + 3)), ElectionStep::Wait(at(second + 15)));
    }
}

#[test]
fn a_lease_given_back_is_taken_at_once() {
    let mut b = Election::new("b", TIMINGS);
    b.observe(held("a", "1"), at(0));
    assert!(matches!(b.step(at(1)), ElectionStep::Wait(_)));
    b.observe(
        Some(Record {
            holder: None,
            version: "2".to_owned(),
            ..Record::default()
        }),
        at(1),
    );
    assert_eq!(b.step(at(1)), ElectionStep::Take(Some("2".to_owned())));
    // The other was faster.
    b.reread(held("c", "3"), at(1));
    assert_eq!(b.step(at(2)), ElectionStep::Wait(at(16)));
}

#[test]
fn a_process_that_was_stopped_finds_that_it_lost() {
    let mut a = Election::new("a", TIMINGS);
    a.written("1", at(0));
    // SIGSTOP at 1, SIGCONT at 300.
    assert_eq!(a.step(at(300)), ElectionStep::Lost);
    // It does not reach for the lease before it knows who holds it.
    assert_eq!(a.step(at(300)), ElectionStep::Wait(at(315)));
    a.observe(held("b", "9"), at(300));
    assert_eq!(a.step(at(300)), ElectionStep::Wait(at(315)));
}

#[test]
fn a_leader_that_sees_another_stops_at_once() {
    let mut a = Election::new("a", TIMINGS);
    a.written("1", at(0));
    a.observe(held("b", "2"), at(1));
    assert_eq!(a.step(at(1)), ElectionStep::Lost);
}

#[test]
fn an_answer_that_got_lost_is_no_loss_but_a_lease_that_is_gone_is() {
    let mut a = Election::new("a", TIMINGS);
    a.written("1", at(0));
    a.failed(at(2));
    a.reread(held("a", "2"), at(3));
    assert_eq!(a.step(at(3)), ElectionStep::Renew("2".to_owned()));
    assert_eq!(a.leads_until(), Some(at(10)));
    a.reread(None, at(4));
    assert_eq!(a.step(at(4)), ElectionStep::Lost);
}

#[test]
fn an_earlier_life_of_ours_is_another() {
    // A container that restarts has a new identity, so it waits like everybody.
    let mut a = Election::new("pod_2", TIMINGS);
    a.observe(held("pod_1", "1"), at(0));
    assert_eq!(a.step(at(1)), ElectionStep::Wait(at(15)));
}

#[test]
fn the_timings_of_the_holder_count_where_they_are_longer() {
    let mut b = Election::new("b", TIMINGS);
    let mut record = held("a", "1").unwrap();
    record.duration = Duration::from_secs(60);
    b.observe(Some(record), at(0));
    assert_eq!(b.step(at(20)), ElectionStep::Wait(at(60)));
}

#[test]
fn timings_that_would_allow_two_leaders_are_refused() {
    let seconds = Duration::from_secs;
    let timings = |lease, renew, retry| Timings {
        lease_duration: seconds(lease),
        renew_deadline: seconds(renew),
        retry_period: seconds(retry),
    };
    assert!(TIMINGS.check().is_ok());
    for bad in [timings(10, 10, 2), timings(15, 2, 2), timings(15, 10, 0)] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}

#[test]
fn what_a_watch_tells_late_deposes_nobody() {
    let mut b = Election::new("b", TIMINGS);
    b.observe(held("a", "9"), at(0));
    b.written("12", at(20));
    b.observe(held("a", "11"), at(21));
    assert_eq!(b.step(at(21)), ElectionStep::Wait(at(22)));
    b.observe(held("c", "13"), at(21));
    assert_eq!(b.step(at(21)), ElectionStep::Lost);
}
