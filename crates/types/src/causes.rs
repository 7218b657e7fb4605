//! An error and its causes as text.

use std::error::Error;

/// The messages of an error and of its causes, outermost first. An error that only hands on its
/// cause has the message of that cause, which appears once.
#[must_use]
pub fn messages(error: &dyn Error) -> Vec<String> {
    let mut messages = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        messages.push(error.to_string());
        cause = error.source();
    }
    messages.dedup();
    messages
}

/// An error with all its causes, in one line.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    messages(error).join(": ")
}

/// The innermost cause of an error, or the error itself.
#[must_use]
pub fn root_cause(error: &dyn Error) -> String {
    messages(error).pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Failure(&'static str, Option<Box<Self>>);

    impl std::fmt::Display for Failure {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Failure {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn causes_once_each() {
        let inner = Failure("disk on fire", None);
        let handed_on = Failure("cannot write", Some(Box::new(inner)));
        let error = Failure("cannot write", Some(Box::new(handed_on)));
        assert_eq!(with_causes(&error), "cannot write: disk on fire");
        assert_eq!(root_cause(&error), "disk on fire");
    }
}
