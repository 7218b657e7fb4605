//! Whether what was asked for has come about, answer by answer. Pure.
//!
//! Guarantees:
//! - An answer that does not know ends nothing: Status `Unknown`, fields that are absent, an agent that
//!   is not ready (which empties Images).
//! - An end that rests on something *not* being in an answer counts when two answers in a row have it,
//!   unless an answer before has shown the work going on. The same goes for an error that may be that
//!   of another image.
//! - Where the service counts nodes, all of them must be ready; one that is down is waited for until
//!   the others have stood still for a while.
//! - Where the service sends `Tasks`, only what they say of this image is an error of this image.
//!
//! Assumption: the service has taken note before it answers Create or Delete.

use crate::error::Error;
use uimgacc_api::answer::{Answer, Status, one_line};

/// Answers in a row with the same count of nodes after which the rest of them is not waited for: they
/// may be down. Waiting asks every one to three seconds.
const SETTLED: u32 = 15;

/// What is waited for. Images are targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// The cluster is enabled and ready.
    Enabled,
    /// The image is ready.
    Created(String),
    /// The image is gone.
    Deleted(String),
    /// The cluster is not enabled.
    Disabled,
}

impl Goal {
    /// How a failure to reach it in time begins.
    #[must_use]
    pub fn not_reached(&self) -> String {
        match self {
            Self::Enabled => "the cluster is not ready".to_owned(),
            Self::Created(image) => format!("{image} is not ready"),
            Self::Deleted(image) => format!("{image} is not deleted"),
            Self::Disabled => "acceleration is not disabled".to_owned(),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// In a few words.
    pub text: String,
    /// 0 to 100, where that is told.
    pub percent: Option<u8>,
}

/// What an answer means.
#[derive(Debug)]
pub enum Outcome {
    /// It has come about.
    Done,
    /// Not yet.
    Waiting(State),
    /// It will not come about.
    Failed(Error),
}

/// What an answer means by itself.
enum Verdict {
    Sure(Outcome),
    /// Counts when the next answer says it too.
    Unsure(Outcome),
}

/// Waits for a goal.
#[derive(Debug)]
pub struct Wait {
    goal: Goal,
    /// The answer before was an unsure end, of this kind.
    was_unsure: Option<bool>,
    /// The deletion was seen going on.
    saw_deleting: bool,
    /// Counts of nodes, and how often in a row they were the same.
    nodes: (Option<u64>, Option<u64>, u32),
}

impl Wait {
    /// Begins to wait.
    #[must_use]
    pub const fn new(goal: Goal) -> Self {
        Self {
            goal,
            was_unsure: None,
            saw_deleting: false,
            nodes: (None, None, 0),
        }
    }

    /// What is waited for.
    #[must_use]
    pub const fn goal(&self) -> &Goal {
        &self.goal
    }

    /// Takes an answer.
    pub fn see(&mut self, answer: &Answer) -> Outcome {
        let verdict = match &self.goal {
            Goal::Enabled => enabled(answer, self.has_nodes(answer)),
            Goal::Disabled => disabled(answer),
            Goal::Created(image) => created(answer, image),
            Goal::Deleted(image) => {
                let status = match &answer.tasks {
                    Some(_) => answer.task(image).map(|task| task.status),
                    None => Some(answer.state()),
                };
                self.saw_deleting |= status == Some(Status::Deleting);
                deleted(answer, image, self.saw_deleting)
            }
        };
        match verdict {
            Verdict::Sure(step) => {
                self.was_unsure = None;
                step
            }
            Verdict::Unsure(step) => {
                let kind = Some(matches!(step, Outcome::Done));
                if self.was_unsure == kind {
                    return step;
                }
                self.was_unsure = kind;
                Outcome::Waiting(whole(answer))
            }
        }
    }
}

impl Wait {
    /// Whether no more nodes are waited for.
    fn has_nodes(&mut self, answer: &Answer) -> bool {
        let (ready, all, times) = &mut self.nodes;
        if (*ready, *all) == (answer.ready_nodes, answer.nodes) {
            *times += 1;
        } else {
            self.nodes = (answer.ready_nodes, answer.nodes, 1);
        }
        match (answer.ready_nodes, answer.nodes) {
            (Some(ready), Some(all)) if ready < all || all == 0 => {
                (ready > 0 || all == 0) && self.nodes.2 >= SETTLED
            }
            _ => true,
        }
    }
}

const fn waiting(state: State) -> Verdict {
    Verdict::Sure(Outcome::Waiting(state))
}

/// Whether the answer knows about images.
fn is_known(answer: &Answer) -> bool {
    answer.state() != Status::Unknown && answer.agent_ready != Some(false)
}

/// A cluster that cannot be reached may look the same, but has an error.
fn is_disabled(answer: &Answer) -> bool {
    answer.enable == Some(false)
        && (answer.problem().is_empty() || answer.state() != Status::Unknown)
}

fn enabled(answer: &Answer, has_nodes: bool) -> Verdict {
    let all = [answer.enable, answer.nfs_ready, answer.agent_ready];
    let is_ready = all.iter().all(|flag| *flag == Some(true));
    let is_told = match answer.state() {
        // Errors of images are not what is waited for.
        Status::Ready | Status::CreateError | Status::DeleteError => true,
        // These are of images for sure only where images are told apart.
        Status::Creating | Status::Deleting => answer.tasks.is_some(),
        Status::Unknown => false,
    };
    if is_ready && is_told && has_nodes {
        return Verdict::Sure(Outcome::Done);
    }
    waiting(whole(answer))
}

fn disabled(answer: &Answer) -> Verdict {
    if is_disabled(answer) {
        return Verdict::Unsure(Outcome::Done);
    }
    waiting(whole(answer))
}

fn created(answer: &Answer, image: &str) -> Verdict {
    let failed = |message: &str| {
        Outcome::Failed(Error::CreateFailed {
            image: image.to_owned(),
            message: or_no_reason(message),
        })
    };
    if let Some(task) = answer.task(image) {
        return match task.status {
            Status::Ready => Verdict::Sure(Outcome::Done),
            Status::CreateError => Verdict::Sure(failed(task.error.as_deref().unwrap_or_default())),
            Status::Deleting | Status::DeleteError => Verdict::Unsure(Outcome::Failed(
                Error::Lost(format!("{image} is being deleted by somebody")),
            )),
            Status::Creating | Status::Unknown => waiting(own(answer, image)),
        };
    }
    if is_disabled(answer) {
        return Verdict::Unsure(Outcome::Failed(no_longer_enabled()));
    }
    if !is_known(answer) {
        return waiting(whole(answer));
    }
    let is_listed = answer.image(image).is_some();
    match (&answer.tasks, answer.state()) {
        (Some(_), _) | (None, Status::Ready) if is_listed => Verdict::Sure(Outcome::Done),
        (None, Status::CreateError | Status::DeleteError) => {
            Verdict::Unsure(failed(&answer.problem()))
        }
        _ => waiting(whole(answer)),
    }
}

fn deleted(answer: &Answer, image: &str, saw_deleting: bool) -> Verdict {
    let failed = |message: &str| {
        Outcome::Failed(Error::DeleteFailed {
            image: image.to_owned(),
            message: or_no_reason(message),
        })
    };
    if let Some(task) = answer.task(image) {
        return match task.status {
            Status::DeleteError => Verdict::Sure(failed(task.error.as_deref().unwrap_or_default())),
            _ => waiting(own(answer, image)),
        };
    }
    if is_disabled(answer) {
        return Verdict::Unsure(Outcome::Failed(no_longer_enabled()));
    }
    let Some(images) = &answer.images else {
        return waiting(whole(answer));
    };
    if !is_known(answer) || answer.image(image).is_some() {
        return waiting(whole(answer));
    }
    let is_sure = |is_sure: bool| match is_sure {
        true => Verdict::Sure(Outcome::Done),
        false => Verdict::Unsure(Outcome::Done),
    };
    match (&answer.tasks, answer.state()) {
        // Nobody comes back from being deleted.
        (Some(_), _) if saw_deleting => Verdict::Sure(Outcome::Done),
        (Some(_), Status::Creating | Status::Deleting) => waiting(whole(answer)),
        (Some(_), _) | (None, Status::Ready) => is_sure(!images.is_empty() || saw_deleting),
        (None, Status::DeleteError) => Verdict::Unsure(failed(&answer.problem())),
        // It may be that another image could not be made, which may empty Images.
        (None, Status::CreateError) if saw_deleting || !images.is_empty() => is_sure(false),
        (None, _) => waiting(whole(answer)),
    }
}

fn no_longer_enabled() -> Error {
    Error::Lost("image acceleration is not enabled (any more) in this cluster".to_owned())
}

fn or_no_reason(message: &str) -> String {
    let message = one_line(message);
    if message.is_empty() {
        return "the service says no reason".to_owned();
    }
    message
}

/// Where an image stands: `Creating, layers`.
fn own(answer: &Answer, image: &str) -> State {
    let Some(task) = answer.task(image) else {
        return whole(answer);
    };
    let mut text = task.status.name().to_owned();
    for more in [&task.stage, &task.error].into_iter().flatten() {
        let more = one_line(more);
        if !more.is_empty() {
            text.push_str(", ");
            text.push_str(&more);
        }
    }
    let percent = task.percent.filter(|_| task.status == Status::Creating);
    State {
        text,
        percent: percent.map(|percent| u8::try_from(percent.min(100)).unwrap_or(100)),
    }
}

/// How the cluster is: `Unknown, store ready, agent not ready, 2 of 5 nodes ready`.
#[must_use]
pub fn whole(answer: &Answer) -> State {
    let mut text = answer.state().name().to_owned();
    let mut add = |more: &str| {
        if !more.is_empty() {
            text.push_str(", ");
            text.push_str(more);
        }
    };
    if answer.enable == Some(false) {
        add("not enabled");
    } else {
        for (what, flag) in [("store", answer.nfs_ready), ("agent", answer.agent_ready)] {
            match flag {
                Some(true) => add(&format!("{what} ready")),
                Some(false) => add(&format!("{what} not ready")),
                None => {}
            }
        }
        if let (Some(ready), Some(all)) = (answer.ready_nodes, answer.nodes) {
            add(&format!("{ready} of {all} nodes ready"));
        }
    }
    add(&answer.problem());
    State {
        text,
        percent: None,
    }
}

#[cfg(test)]
mod tests;
