//! An error and its causes as text.

/// `error: ...` and a line for each cause that says something new.
#[must_use]
pub fn render(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain() {
        let message = cause.to_string();
        // An error that only hands on its cause says the same twice.
        if message == last {
            continue;
        }
        let prefix = if text.is_empty() {
            "error: "
        } else {
            "\n  because: "
        };
        text = text + prefix + &message;
        last = message;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_once_each() {
        let inner = std::io::Error::other("disk on fire");
        let error = anyhow::Error::new(inner)
            .context("cannot write")
            .context("cannot write");
        assert_eq!(
            render(&error),
            "error: cannot write\n  because: disk on fire"
        );
    }
}
