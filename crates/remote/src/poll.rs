//! Asks again and again: until what was asked for has come about, or for what changes.
//!
//! Only Get is sent, so an answer that is lost does no harm. Cancelled at any await, nothing is left.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use crate::changes::{Change, Changes};
use crate::client::{Client, Response};
use crate::error::Error;
use crate::request::Request;
use crate::wait::{Goal, Outcome, State, Wait, whole};

/// How often in a row there may be no answer.
const FAILURES: u32 = 10;

/// How long to wait, and how often to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollOptions {
    /// For the goal.
    pub within: Duration,
    /// Between two questions, at first and after each change.
    pub shortest: Duration,
    /// Between two questions, where nothing changes.
    pub longest: Duration,
}

impl PollOptions {
    /// Asks once a second, later every three.
    #[must_use]
    pub const fn new(within: Duration) -> Self {
        Self {
            within,
            shortest: Duration::from_secs(1),
            longest: Duration::from_secs(3),
        }
    }
}

/// Is told how it goes.
pub trait Progress {
    /// Something happened.
    fn say(&self, line: &str);
    /// How far it is.
    fn state(&self, state: &State);
}

/// One question may take this long although the time is over: it was the last one.
const LAST_QUESTION: Duration = Duration::from_secs(2);

/// Waits until `goal` is reached; the answer that shows it.
///
/// # Errors
/// [`Error::Timeout`]; what the service says of failed work; what is not passing, or does not pass.
pub async fn wait(
    client: &Client,
    goal: Goal,
    patience: PollOptions,
    progress: &impl Progress,
) -> Result<Response, Error> {
    let deadline = Instant::now() + patience.within;
    let mut wait = Wait::new(goal);
    let mut last = State::default();
    let mut failures = Failures::default();
    let mut pause = patience.shortest;
    loop {
        let limit = deadline.max(Instant::now() + LAST_QUESTION);
        let asked = tokio::time::timeout_at(limit, client.send(&Request::Get)).await;
        match asked {
            // Out of time: said below.
            Err(_) => {}
            Ok(Ok(response)) => {
                failures = Failures::default();
                match wait.see(&response.answer) {
                    Outcome::Done => return Ok(response),
                    Outcome::Failed(error) => return Err(error),
                    Outcome::Waiting(state) => {
                        progress.state(&state);
                        pause = if state == last {
                            pause.mul_f32(1.1).min(patience.longest)
                        } else {
                            patience.shortest
                        };
                        last = state;
                    }
                }
            }
            Ok(Err(error)) => {
                failures.bear(error, progress)?;
                pause = (pause * 2).min(patience.longest);
            }
        }
        let now = Instant::now();
        if now >= deadline {
            let text = if last.text.is_empty() {
                "there was no answer".to_owned()
            } else {
                last.text
            };
            return Err(Error::Timeout {
                what: wait.goal().not_reached(),
                after: patience.within,
                state: text,
            });
        }
        tokio::time::sleep_until(deadline.min(now + pause)).await;
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Failures(u32);

impl Failures {
    /// Says that it is asked again, where that may help.
    fn bear(&mut self, error: Error, progress: &impl Progress) -> Result<(), Error> {
        if !error.is_passing() || self.0 >= FAILURES {
            return Err(error);
        }
        self.0 += 1;
        let cause = std::error::Error::source(&error);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        progress.say(&format!(
            "{error}{cause}; asking again ({} of {FAILURES})",
            self.0
        ));
        Ok(())
    }
}

/// Asks every `pause` and shows what changes, until `show` has enough. Once there was an answer, outages
/// are waited for.
///
/// # Errors
/// What is not passing, or does not pass at the beginning; there is no such image.
pub async fn watch(
    client: &Client,
    mut changes: Changes,
    pause: Duration,
    progress: &impl Progress,
    mut show: impl FnMut(&Change) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut failures = Failures::default();
    let mut was_answered = false;
    loop {
        match client.send(&Request::Get).await {
            Ok(response) => {
                failures = Failures::default();
                was_answered = true;
                progress.state(&whole(&response.answer));
                let seen = changes.see(&response).map_err(|image| Error::NoImage {
                    image,
                    cluster: client.cluster().to_owned(),
                })?;
                for change in seen {
                    if show(&change).is_break() {
                        return Ok(());
                    }
                }
            }
            // Said often enough.
            Err(error) if was_answered && failures.0 >= FAILURES && error.is_passing() => {}
            Err(error) => failures.bear(error, progress)?,
        }
        tokio::time::sleep(pause).await;
    }
}
