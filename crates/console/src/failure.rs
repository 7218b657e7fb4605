//! Failures as lines for people.

use uimgacc_types::messages;

/// An error with its causes, a line each.
#[must_use]
pub fn render(error: &anyhow::Error) -> String {
    format!("error: {}", messages(error.as_ref()).join("\n  because: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_cause() {
        let error = anyhow::anyhow!("disk on fire").context("cannot write");
        assert_eq!(
            render(&error),
            "error: cannot write\n  because: disk on fire"
        );
    }
}
