//! A block of code in a page.

/// A block between two fences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the first fence, such as `sh`.
    pub language: String,
    /// Its lines, each with its end, without the indentation of the fence.
    pub text: String,
    /// The line of its first fence, from 1.
    pub line: usize,
    /// Why a test must not run it, from a comment `<!-- not run: WHY -->` before it.
    pub not_run: Option<String>,
}

impl Block {
    /// Its commands, one a line: without comments, with lines that a backslash continues put together, and without what a
    /// here-document feeds to one.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut open = String::new();
        let mut here: Option<String> = None;
        for line in self.text.lines() {
            if let Some(end) = &here {
                if line.trim() == end {
                    here = None;
                }
                continue;
            }
            let line = line.split(" #").next().unwrap_or_default().trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            open.push_str(line.trim_end_matches('\\'));
            if line.ends_with('\\') {
                continue;
            }
            here = line
                .split_once("<<")
                .map(|(_, end)| end.trim().trim_matches('\'').to_owned());
            all.push(std::mem::take(&mut open));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let block = Block {
            language: "sh".to_owned(),
            text: "# a comment\na --b   # why\nc \\\n  --d\ne <<'END'\nf\nEND\ng\n".to_owned(),
            line: 1,
            not_run: None,
        };
        assert_eq!(block.commands(), ["a --b", "c --d", "e <<'END'", "g"]);
    }
}
