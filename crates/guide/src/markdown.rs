//! The parts of a page in Markdown that the tests ask about: headings, links, spans and fenced blocks
//! of code. Pure.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

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
    let mut unclosed = None;
    let mut not_run = None;
    let mut block: Option<Block> = None;
    let mut heading: Option<(usize, String)> = None;
    let line_of = |offset: usize| text[..offset].matches('\n').count() + 1;
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        let line = line_of(range.start);
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                let source = text[range].trim_end();
                if source.matches(FENCE).count() < 2 {
                    unclosed = Some(line);
                }
                block = Some(Block {
                    language: language.into_string(),
                    text: String::new(),
                    line,
                    not_run: not_run.take(),
                });
            }
            Event::End(TagEnd::CodeBlock) => parts.blocks.extend(block.take()),
            Event::Start(Tag::Heading { level, .. }) => {
                heading = Some((level as usize, String::new()));
            }
            Event::End(TagEnd::Heading(_)) => parts.headings.extend(heading.take()),
            Event::Start(Tag::Link { dest_url, .. }) => parts.links.push(Link {
                target: dest_url.into_string(),
                line,
            }),
            Event::Text(piece) => {
                if let Some(block) = &mut block {
                    block.text.push_str(&piece);
                } else if let Some((_, heading)) = &mut heading {
                    heading.push_str(&piece);
                }
            }
            Event::Code(span) => {
                if let Some((_, heading)) = &mut heading {
                    heading.push_str(&span);
                }
                parts.spans.push((line, span.into_string()));
            }
            Event::Html(html) => not_run = comment(html.trim(), "not run:").or(not_run),
            _ => {}
        }
    }
    (parts, unclosed)
}

/// The rest of a comment that begins so.
fn comment(line: &str, begin: &str) -> Option<String> {
    let inner = line.strip_prefix("<!--")?.trim().strip_suffix("-->")?;
    Some(inner.trim().strip_prefix(begin)?.trim().to_owned())
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
        let text = "# A `b`\n[c](d.md#e) and `[no](link)` and `two\nlines`\n\n<!-- not run: x -->\n  ```sh\n  f\n    g\n  ```\n```text\n";
        let (parts, open) = parse(text);
        assert_eq!(parts.headings, [(1, "A b".to_owned())]);
        assert_eq!(parts.spans[2], (2, "two lines".to_owned()));
        assert_eq!(parts.links.len(), 1);
        assert_eq!(parts.links[0].target, "d.md#e");
        assert_eq!(parts.blocks[0].text, "f\n  g\n");
        assert_eq!(parts.blocks[0].not_run.as_deref(), Some("x"));
        assert_eq!(open, Some(10));
        assert_eq!(anchor("What is `this`, and 那个?"), "what-is-this-and-那个");
    }
}
