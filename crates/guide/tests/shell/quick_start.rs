//! The quick start, word for word: its commands in one shell, and what the page says they print.

use uimgacc_guide::{Page, pages};

use super::playground::{Playground, Step, ready};

/// The blocks to be run, each with the one of its output, where that follows.
fn steps(page: &Page) -> (Vec<Step>, Vec<Vec<String>>) {
    let (mut steps, mut expected) = (Vec::new(), Vec::new());
    let mut is_output_of_last = false;
    for block in &page.blocks {
        match block.language.as_str() {
            "sh" if block.not_run.is_none() => {
                steps.push(Step {
                    name: format!("the block at line {}", block.line),
                    script: block.text.clone(),
                });
                expected.push(Vec::new());
                is_output_of_last = true;
            }
            "text" if is_output_of_last => {
                let lines = block.text.lines().map(str::to_owned);
                *expected.last_mut().unwrap() = lines.collect();
                is_output_of_last = false;
            }
            _ => is_output_of_last = false,
        }
    }
    (steps, expected)
}

/// Whether a line is as the page has it; `…` stands for anything, and so many spaces are as good as others.
fn is_like(line: &str, pattern: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, pattern) = (words(line), words(pattern));
    let mut pieces = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    let mut last = "";
    let mut has_more = false;
    for piece in pieces {
        has_more = true;
        last = piece;
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    if has_more {
        last.is_empty() || rest.is_empty() || line.ends_with(last)
    } else {
        rest.is_empty()
    }
}

/// The first line of the page that is not among these, in this order.
fn missing<'e>(output: &str, expected: &'e [String]) -> Option<&'e String> {
    let mut lines = output.lines();
    expected
        .iter()
        .find(|pattern| !lines.any(|line| is_like(line, pattern)))
}

#[test]
fn the_quick_start_runs_word_for_word() {
    if !ready() {
        return;
    }
    let page = pages("en")
        .unwrap()
        .into_iter()
        .find(|page| page.name() == "quick-start.md")
        .unwrap();
    let (steps, expected) = steps(&page);
    let left_out = page.blocks.iter().filter(|block| block.not_run.is_some());
    assert_eq!(left_out.count(), 1, "only what gets Rust is not run");
    assert!(steps.len() >= 6, "only {} blocks were found", steps.len());
    let playground = Playground::new();
    let told = playground.run(&steps);
    for ((step, expected), told) in steps.iter().zip(&expected).zip(told) {
        if let Some(line) = missing(&told, expected) {
            panic!("{} does not print {line:?}", step.name);
        }
    }
    assert!(
        !playground.folder().exists(),
        "the playground is left behind"
    );
}

#[test]
fn lines_are_compared() {
    assert!(is_like("a  b c", "a b c"));
    assert!(is_like("a 12 b 3", "a … b …"));
    assert!(!is_like("a 12 b 3", "a … c …"));
    assert!(!is_like("a b", "a"));
    assert!(!is_like("a x c d", "a … c"));
    let expected = ["a".to_owned(), "c…".to_owned()];
    assert_eq!(missing("a\nb\ncd\n", &expected), None);
    assert_eq!(missing("cd\na\n", &expected), Some(&expected[1]));
}
