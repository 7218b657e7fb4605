//! As much of Markdown as the guide's pages use: headings, links, spans and fenced blocks of code. Pure.
//!
//! Assumes that a span ends on the line that it begins on; a test sees to it.

use crate::block::Block;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What it leads to, as written.
    pub target: String,
    /// Its line, from 1.
    pub line: usize,
}

/// What a page is made of.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) headings: Vec<(usize, String)>,
    pub(crate) links: Vec<Link>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) spans: Vec<(usize, String)>,
}

const FENCE: &str = "```";

/// Takes a page apart. With the line of a block that has no end, where there is one.
pub(crate) fn parse(text: &str) -> (Parts, Option<usize>) {
    let mut parts = Parts::default();
    let mut open: Option<(Block, usize)> = None;
    let mut not_run = None;
    for (number, line) in (1..).zip(text.lines()) {
        let bare = line.trim_start();
        if let Some((mut block, indent)) = open.take() {
            if bare.trim_end() == FENCE {
                parts.blocks.push(block);
            } else {
                block.text.push_str(line.get(indent..).unwrap_or(bare));
                block.text.push('\n');
                open = Some((block, indent));
            }
            continue;
        }
        if let Some(language) = bare.strip_prefix(FENCE) {
            let block = Block {
                language: language.trim().to_owned(),
                text: String::new(),
                line: number,
                not_run: not_run.take(),
            };
            open = Some((block, line.len() - bare.len()));
        } else if let Some(why) = comment(bare, "not run:") {
            not_run = Some(why);
        } else if !bare.is_empty() {
            prose(&mut parts, number, line);
        }
    }
    (parts, open.map(|(block, _)| block.line))
}

/// The rest of a comment that begins so.
fn comment(line: &str, begin: &str) -> Option<String> {
    let inner = line.strip_prefix("<!--")?.trim().strip_suffix("-->")?;
    Some(inner.trim().strip_prefix(begin)?.trim().to_owned())
}

fn prose(parts: &mut Parts, number: usize, line: &str) {
    let level = line.chars().take_while(|c| *c == '#').count();
    if level > 0 && line.get(level..=level) == Some(" ") {
        let text = line.get(level..).unwrap_or_default().trim();
        parts.headings.push((level, text.to_owned()));
    }
    // Every other piece lies between backquotes.
    let mut rest = String::new();
    for (place, piece) in line.split('`').enumerate() {
        if place % 2 == 1 {
            parts.spans.push((number, piece.to_owned()));
        } else {
            rest.push_str(piece);
        }
    }
    for after in rest.split("](").skip(1) {
        if let Some((target, _)) = after.split_once(')') {
            parts.links.push(Link {
                target: target.to_owned(),
                line: number,
            });
        }
    }
}

/// The anchor of a heading, as mdBook and GitHub make it.
pub(crate) fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|c| match c {
            c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c),
            c if c.is_whitespace() => Some('-'),
            _ => None,
        })
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page() {
        let text = "# A `b`\n[c](d.md#e) and `[no](link)`\n\n<!-- not run: x -->\n  ```sh\n  f\n    g\n  ```\n```text\n";
        let (parts, open) = parse(text);
        assert_eq!(parts.headings, [(1, "A `b`".to_owned())]);
        assert_eq!(parts.links.len(), 1);
        assert_eq!(parts.links[0].target, "d.md#e");
        assert_eq!(parts.blocks[0].text, "f\n  g\n");
        assert_eq!(parts.blocks[0].not_run.as_deref(), Some("x"));
        assert_eq!(open, Some(9));
        assert_eq!(anchor("What is `this`, and 那个?"), "what-is-this-and-那个");
    }
}
