//! Why work failed, as the Job hands it to the controller: one line of JSON as the container's
//! termination message.

use serde::{Deserialize, Serialize};
use uimgacc_convert::layer::LayerError;
use uimgacc_convert::{CreateError, LayerFailure};
use uimgacc_registry::Error as RegistryError;

use super::hint::hint;
use crate::digests::shorten_digests;

/// Kubernetes cuts termination messages at 4096 bytes.
const MAX_MESSAGE_BYTES: usize = 3500;

/// Why work failed, and whether the same work may succeed later without a change of the object.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    retry: bool,
}

/// A termination message: what [`Failure::message`] writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The error with its causes, in one line, with what to do.
    pub error: String,
    /// Whether to try again later.
    pub retry: bool,
}

impl Failure {
    /// A failure that may go away by itself, or by what somebody does elsewhere.
    pub fn retried(error: impl Into<anyhow::Error>) -> Self {
        Self {
            error: error.into(),
            retry: true,
        }
    }

    /// A failure that stays.
    pub fn final_(error: impl Into<anyhow::Error>) -> Self {
        Self {
            error: error.into(),
            retry: false,
        }
    }

    /// The same, with what it means in front.
    #[must_use]
    pub fn context(self, meaning: String) -> Self {
        Self {
            error: self.error.context(meaning),
            ..self
        }
    }

    /// The error with its causes and what to do, in one line and without whole digests.
    fn text(&self) -> String {
        let mut error = String::new();
        for cause in self.error.chain() {
            let text = cause.to_string();
            // An error that only hands on its cause says the same twice.
            if error.ends_with(&text) {
                continue;
            }
            if !error.is_empty() {
                error.push_str(": ");
            }
            error.push_str(&text);
        }
        if let Some(hint) = hint(&self.error) {
            error = format!("{error}; {hint}");
        }
        shorten_digests(&error)
    }

    /// The termination message.
    #[must_use]
    pub fn message(&self) -> String {
        let mut error = self.text();
        if error.len() > MAX_MESSAGE_BYTES {
            let end = (0..=MAX_MESSAGE_BYTES)
                .rev()
                .find(|at| error.is_char_boundary(*at));
            error.truncate(end.unwrap_or_default());
            error.push_str(" ...");
        }
        let message = Message {
            error,
            retry: self.retry,
        };
        serde_json::to_string(&message).unwrap_or_default()
    }
}

/// The log of the Pod has the same readers as the message.
impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        Self::msg(failure.text())
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        let retry = match &error {
            CreateError::Registry(error) => may_change(error),
            CreateError::Layer { source, .. } => match source.as_ref() {
                LayerFailure::Fetch(error) => may_change(error),
                LayerFailure::Layer(error) => is_short_of_memory(error) || source.is_of_store(),
                failure => failure.is_of_store(),
            },
            CreateError::Layers(error) => is_short_of_memory(error),
            CreateError::Store(_) | CreateError::Worker(_) => true,
            _ => false,
        };
        Self {
            error: error.into(),
            retry,
        }
    }
}

/// Whether the node, and not a limit, has too little memory for the image: another may have more.
fn is_short_of_memory(error: &LayerError) -> bool {
    match error {
        LayerError::TooMuchMetadata { limit, .. } => {
            let bound = limit.bound.as_ref();
            bound.is_some_and(|bound| !bound.is_limit)
        }
        _ => false,
    }
}

/// Whether a registry may answer otherwise later: also where somebody must push the image or
/// mend a password first.
fn may_change(error: &RegistryError) -> bool {
    error.is_transient()
        || error.is_not_found()
        || error.is_unauthorized()
        || matches!(
            error,
            RegistryError::Connect { .. } | RegistryError::Refused { .. }
        )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uimgacc_convert::Bound;
    use uimgacc_convert::layer::OverBudget;
    use uimgacc_store::{CommitError, PutError};

    use super::*;

    #[test]
    fn messages_are_one_line_and_bounded() {
        let cause = std::io::Error::other("disk on fire");
        let error = anyhow::Error::new(cause).context("cannot write the pack");
        let failure = Failure::retried(error);
        let message: Message = serde_json::from_str(&failure.message()).unwrap();
        assert_eq!(message.error, "cannot write the pack: disk on fire");
        assert!(message.retry);
        let long = Failure::final_(anyhow::anyhow!("ä".repeat(5000)));
        assert!(long.message().len() < 4096);
        let message: Message = serde_json::from_str(&long.message()).unwrap();
        assert!(message.error.ends_with(" ...") && !message.retry);
    }

    #[test]
    fn whole_digests_are_not_shown() {
        let (chain, blob) = ("ab".repeat(32), "0c".repeat(32));
        let cause = std::io::Error::other(format!("layer sha256:{blob}"));
        let error =
            anyhow::Error::new(cause).context(format!("cannot write chains/ab/{chain}.json"));
        let failure = Failure::retried(error);
        let expected = "cannot write chains/ab/abababababab....json: layer sha256:0c0c0c0c0c0c...";
        let message: Message = serde_json::from_str(&failure.message()).unwrap();
        assert_eq!(message.error, expected);
        assert_eq!(format!("{:#}", anyhow::Error::from(failure)), expected);
    }

    #[test]
    fn what_is_tried_again() {
        let damaged = CreateError::NoLayers;
        assert!(!Failure::from(damaged).retry);
    }

    #[test]
    fn an_image_beyond_the_limit_of_memory_is_not_tried_again() {
        let failure = |is_limit: Option<bool>| {
            let limit = OverBudget {
                max_bytes: 300 << 20,
                bound: is_limit.map(|is_limit| Bound {
                    bytes: 2 << 30,
                    source: "/sys/fs/cgroup/memory.max".into(),
                    is_limit,
                }),
            };
            let error = LayerError::TooMuchMetadata {
                limit: Arc::new(limit),
                path: "a/b".to_owned(),
            };
            let layer = CreateError::Layer {
                number: 1,
                count: 2,
                digest: uimgacc_types::Digest::of(b""),
                source: Box::new(error.into()),
            };
            Failure::from(layer)
        };
        let limited = failure(Some(true));
        assert!(!limited.retry && !failure(None).retry);
        let message = limited.message();
        for part in ["314572800 bytes", "2048 MiB", "memory.max"] {
            assert!(message.contains(part), "{message}");
        }
        // Another node may have more free memory, or this one later.
        assert!(failure(Some(false)).retry);
    }

    #[test]
    fn a_full_store_may_get_space() {
        let is_retried = |source: PutError| {
            let path = "a".to_owned();
            let content = LayerError::Content { path, source };
            let layer = CreateError::Layer {
                number: 1,
                count: 1,
                digest: uimgacc_types::Digest::of(b""),
                source: Box::new(content.into()),
            };
            Failure::from(layer).retry
        };
        let full = CommitError::Io {
            action: "write",
            path: "pack".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        assert!(is_retried(full.into()));
        assert!(!is_retried(PutError::Short { missing: 1 }));
    }
}
