//! Who leads: the rules of the Lease as a state machine, without I/O and without a clock.
//!
//! A candidate watches the Lease. It takes one that nobody holds at once, and one that was not
//! renewed for its whole duration as *this* machine's clock counts it: times written by other
//! machines are compared with nothing. The leader renews; it leads until `renew_deadline` after
//! the *start* of the last renewal that succeeded, which is shorter than the duration, so that its
//! last write has arrived, or will not, before another leads.

use std::time::Duration;

use super::term::Moment;

/// The least time between the end of one leader and the start of another: the kernel's clock of a
/// TCP connection ticks in fifths of a second.
const LEAST_MARGIN: Duration = Duration::from_secs(1);

/// How long what lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// How long a lease is valid without renewal, for those who want to take it.
    pub lease_duration: Duration,
    /// How long the leader leads without renewal.
    pub renew_deadline: Duration,
    /// Between renewals, and between attempts.
    pub retry_period: Duration,
}

impl Timings {
    /// Checks that a leader always stops before another may start.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), String> {
        if self.retry_period.is_zero() {
            return Err("the retry period must be longer than 0".to_owned());
        }
        if self.renew_deadline <= self.retry_period {
            return Err("the renew deadline must be longer than the retry period".to_owned());
        }
        if self.margin() < LEAST_MARGIN {
            return Err(
                "the lease duration must be longer than the renew deadline by at least 1 s"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// How long it is from the moment at which a leader stops until another may lead.
    #[must_use]
    pub fn margin(&self) -> Duration {
        self.lease_duration.saturating_sub(self.renew_deadline)
    }
}

/// What the Lease says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Who holds it; none where it was given back.
    pub holder: Option<String>,
    /// How long it is valid after a renewal.
    pub duration: Duration,
    /// Changes with each write of the object.
    pub version: String,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElectionStep {
    /// Write ourselves into the Lease of that version; none: make it.
    Take(Option<String>),
    /// The leader writes the Lease of that version again.
    Renew(String),
    /// Nothing before that moment, unless the Lease changes.
    Wait(Moment),
    /// We lead no more: all work must have stopped before anything else is done.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Candidate,
    Leader {
        version: String,
        until: Moment,
        next: Moment,
    },
}

/// One process' part in the election.
#[derive(Debug, Clone)]
pub struct Election {
    identity: String,
    timings: Timings,
    role: Role,
    // What was last seen, and when it was first seen so.
    seen: Option<(Record, Moment)>,
    next_try: Moment,
}

impl Election {
    /// A candidate. The identity must differ between processes, also between those of one Pod.
    #[must_use]
    pub fn new(identity: &str, timings: Timings) -> Self {
        Self {
            identity: identity.to_owned(),
            timings,
            role: Role::Candidate,
            seen: None,
            next_try: Moment::default(),
        }
    }

    /// Who we are.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Until when we lead; none for a candidate.
    #[must_use]
    pub fn leads_until(&self) -> Option<Moment> {
        match self.role {
            Role::Leader { until, .. } => Some(until),
            Role::Candidate => None,
        }
    }

    /// The Lease as it was seen now; none where there is none.
    pub fn observe(&mut self, record: Option<Record>, now: Moment) {
        match record {
            None => self.seen = None,
            Some(record) => {
                // A watch may still tell what was before our own write.
                let late = self
                    .seen
                    .as_ref()
                    .is_some_and(|(seen, _)| is_older(&record.version, &seen.version));
                if late {
                    return;
                }
                if self.seen.as_ref().is_none_or(|(old, _)| *old != record) {
                    self.seen = Some((record, now));
                }
            }
        }
    }

    /// What to do now.
    pub fn step(&mut self, now: Moment) -> ElectionStep {
        match &self.role {
            Role::Leader {
                version,
                until,
                next,
            } => {
                let foreign = self.seen.as_ref().is_some_and(|(record, _)| {
                    record.holder.as_deref() != Some(self.identity.as_str())
                });
                if now >= *until || foreign {
                    self.role = Role::Candidate;
                    // What was seen is of before: the watch must tell what happened meanwhile.
                    if let Some((_, since)) = &mut self.seen {
                        *since = now;
                    }
                    return ElectionStep::Lost;
                }
                if now >= *next {
                    return ElectionStep::Renew(version.clone());
                }
                ElectionStep::Wait((*next).min(*until))
            }
            Role::Candidate => {
                let Some((record, since)) = &self.seen else {
                    return self.take_or_wait(None, now);
                };
                let version = Some(record.version.clone());
                if record.holder.is_none() {
                    return self.take_or_wait(version, now);
                }
                // Whoever wrote it with other timings is waited for by theirs.
                let expires = since.plus(record.duration.max(self.timings.lease_duration));
                if now >= expires {
                    return self.take_or_wait(version, now);
                }
                ElectionStep::Wait(expires)
            }
        }
    }

    fn take_or_wait(&self, version: Option<String>, now: Moment) -> ElectionStep {
        if now < self.next_try {
            return ElectionStep::Wait(self.next_try);
        }
        ElectionStep::Take(version)
    }

    /// Our write, begun at `begun`, succeeded; the Lease now has that version.
    pub fn written(&mut self, version: &str, begun: Moment) {
        self.seen = Some((
            Record {
                holder: Some(self.identity.clone()),
                duration: self.timings.lease_duration,
                version: version.to_owned(),
            },
            begun,
        ));
        self.role = Role::Leader {
            version: version.to_owned(),
            until: begun.plus(self.timings.renew_deadline),
            next: begun.plus(self.timings.retry_period),
        };
    }

    /// Our write failed, and nobody knows whether the server did it. It is tried again soon.
    pub fn failed(&mut self, now: Moment) {
        let soon = now.plus(self.timings.retry_period / 2);
        self.next_try = soon;
        if let Role::Leader { next, .. } = &mut self.role {
            *next = soon;
        }
    }

    /// After a conflict the Lease was read anew. A leader whose own earlier write got through
    /// without an answer goes on with that version.
    pub fn reread(&mut self, record: Option<Record>, now: Moment) {
        self.next_try = now.plus(self.timings.retry_period / 2);
        if let (Role::Leader { version, next, .. }, Some(record)) = (&mut self.role, &record)
            && record.holder.as_deref() == Some(self.identity.as_str())
        {
            version.clone_from(&record.version);
            *next = now;
        }
        let gone = record.is_none();
        self.observe(record, now);
        if gone && let Role::Leader { until, .. } = &mut self.role {
            *until = now;
        }
    }
}

/// Whether one resource version is older than another; not where either is no number.
#[must_use]
pub fn is_older(one: &str, other: &str) -> bool {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => one < other,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
