//! Every error that people may see, and every word that conditions and events give as a reason, has its paragraph in the page of
//! troubles, in both languages.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use uimgacc_guide::{LANGUAGES, Page, pages, root};

const PAGE: &str = "troubleshooting.md";
/// Crates that no user runs.
const NOT_SHIPPED: [&str; 3] = ["testkit", "playground", "guide"];
/// Where the reasons of conditions and events are made.
const DECIDING: [&str; 2] = ["controller/src/decide", "agent/src/node/decide.rs"];
/// Kubernetes' own words that are read there.
const NOT_OURS: [&str; 5] = ["True", "False", "Error", "OOMKilled", "DeadlineExceeded"];
/// What stands for a part that differs from case to case.
const ANY: &str = "…";

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.is_file() {
        found.push(folder.to_owned());
        return;
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        let is_source =
            path.is_dir() || path.extension().is_some_and(|extension| extension == "rs");
        if is_source && !is_test {
            sources(&path, found);
        }
    }
}

/// The text of a literal that begins behind its first quote, and what follows it.
fn literal(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, one)) = characters.next() {
        match one {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                // The rest of the line, and how far the next is indented, are no part of it.
                '\n' => {
                    let rest = characters.as_str().trim_start();
                    let at = text.len() - rest.len();
                    let (more, after) = literal(&text[at..])?;
                    return Some((value + &more, after));
                }
                'n' => value.push('\n'),
                other => value.push(other),
            },
            one => value.push(one),
        }
    }
    None
}

/// A message as the page has it: its first line, with [`ANY`] for what differs.
fn pattern(message: &str) -> String {
    let mut pattern = String::new();
    let mut depth = 0;
    let plain = message.replace("{{", "\u{1}").replace("}}", "\u{2}");
    for one in plain.lines().next().unwrap_or_default().chars() {
        match one {
            '{' => {
                depth += 1;
                if !pattern.ends_with(ANY) {
                    pattern.push_str(ANY);
                }
            }
            '}' => depth -= 1,
            _ if depth > 0 => {}
            '\u{1}' => pattern.push('{'),
            '\u{2}' => pattern.push('}'),
            one => pattern.push(one),
        }
    }
    pattern
}

/// The messages of all error types, by the file that has them. What is nothing but another error's text is left out.
fn messages() -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let krate = entry.unwrap();
        if NOT_SHIPPED.iter().any(|name| krate.file_name() == *name) {
            continue;
        }
        let mut files = Vec::new();
        sources(&krate.path().join("src"), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for after in text.split("#[error(").skip(1) {
                let Some(after) = after.trim_start().strip_prefix('"') else {
                    continue;
                };
                let (message, _) = literal(after).unwrap();
                let pattern = pattern(&message);
                if pattern != ANY {
                    all.push((file.clone(), pattern));
                }
            }
        }
    }
    all
}

/// The words of conditions and events.
fn reasons() -> BTreeSet<String> {
    let mut files = Vec::new();
    for place in DECIDING {
        sources(&root().join("crates").join(place), &mut files);
    }
    let mut all = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for piece in text.split('"').skip(1).step_by(2) {
            let is_word = piece.len() > 3 && piece.chars().all(|c| c.is_ascii_alphabetic());
            let has_both = piece.starts_with(|c: char| c.is_ascii_uppercase())
                && piece.contains(|c: char| c.is_ascii_lowercase());
            if is_word && has_both && !NOT_OURS.contains(&piece) {
                all.insert(piece.to_owned());
            }
        }
    }
    all
}

fn page(language: &str) -> Page {
    let mut all = pages(language).unwrap().into_iter();
    all.find(|page| page.name() == PAGE).unwrap()
}

#[test]
fn every_message_has_its_paragraph() {
    let messages = messages();
    assert!(
        messages.len() > 200,
        "only {} messages were found",
        messages.len()
    );
    for language in LANGUAGES {
        let page = page(language);
        let blocks = page.blocks.iter().filter(|block| block.language == "text");
        let told: BTreeSet<&str> = blocks.flat_map(|block| block.text.lines()).collect();
        let missing: Vec<String> = messages
            .iter()
            .filter(|(_, pattern)| !told.contains(pattern.as_str()))
            .map(|(file, pattern)| {
                format!(
                    "{}: {pattern}",
                    file.strip_prefix(root()).unwrap().display()
                )
            })
            .collect();
        assert!(
            missing.is_empty(),
            "docs/{language}/{PAGE} has no paragraph for:\n{}",
            missing.join("\n")
        );
        let known: BTreeSet<&str> = messages
            .iter()
            .map(|(_, pattern)| pattern.as_str())
            .collect();
        let gone: Vec<_> = told.iter().filter(|line| !known.contains(*line)).collect();
        assert!(
            gone.is_empty(),
            "docs/{language}/{PAGE} has messages that nothing says: {gone:#?}"
        );
        paragraphs_follow(&page);
    }
}

/// Behind each block of messages stands what they mean.
fn paragraphs_follow(page: &Page) {
    let lines: Vec<&str> = page.text.lines().collect();
    for block in page.blocks.iter().filter(|block| block.language == "text") {
        let end = block.line + block.text.lines().count() + 1;
        let after = lines.iter().skip(end).find(|line| !line.trim().is_empty());
        assert!(
            after
                .is_some_and(|line| !line.starts_with(['#', '|', '<']) && !line.starts_with("```")),
            "{}:{}: no paragraph follows",
            page.path.display(),
            block.line
        );
    }
}

#[test]
fn every_reason_has_its_line() {
    let reasons = reasons();
    assert!(reasons.len() > 20, "only {reasons:?} were found");
    for language in LANGUAGES {
        let page = page(language);
        let told: BTreeSet<&str> = page.spans.iter().map(|(_, span)| span.as_str()).collect();
        let missing: Vec<_> = reasons
            .iter()
            .filter(|reason| !told.contains(reason.as_str()))
            .collect();
        assert!(
            missing.is_empty(),
            "docs/{language}/{PAGE} says nothing of {missing:?}"
        );
    }
}

#[test]
fn messages_are_read_as_they_are_shown() {
    let source = "a {b:?} \\\n     c {{d}} {} {e}\" , f)";
    let (message, after) = literal(source).unwrap();
    assert_eq!(after, " , f)");
    assert_eq!(pattern(&message), "a … c {d} … …");
    assert_eq!(pattern("{a}{b}: x\ny"), "…: x");
}
