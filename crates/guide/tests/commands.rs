//! Every command of ours that the guide names exists, with every flag.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::process::Command;

use uimgacc_guide::{LANGUAGES, Page, pages, readmes};
use uimgacc_testkit::programs;

/// What the programs say of themselves, by their words.
#[derive(Default)]
struct Help(BTreeMap<Vec<String>, String>);

impl Help {
    fn of(&mut self, words: &[String]) -> &str {
        self.0.entry(words.to_vec()).or_insert_with(|| {
            let mut command = Command::new(programs::program(&words[0]));
            let output = command.args(&words[1..]).arg("--help").output().unwrap();
            assert!(
                output.status.success(),
                "{words:?} --help: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// Whether these words lead to a command with a subcommand of this name.
    fn has_verb(&mut self, words: &[String], verb: &str) -> bool {
        let help = self.of(words);
        let commands = help.split_once("Commands:").map_or("", |(_, after)| after);
        let commands = commands.split("Options:").next().unwrap_or_default();
        commands
            .lines()
            .any(|line| line.split_whitespace().next() == Some(verb))
    }

    /// What is wrong with a command.
    fn problem(&mut self, words: &[String]) -> Option<String> {
        let mut path = vec![words[0].clone()];
        let mut rest = words[1..].iter().peekable();
        while let Some(word) = rest.peek() {
            if !self.has_verb(&path, word) {
                break;
            }
            path.push((*word).clone());
            rest.next();
        }
        // A program of verbs alone was given none that it has.
        if words[0] == "uimgacc" && path.len() == 1 {
            let verb = words.get(1).filter(|word| !word.starts_with('-'));
            // VERB and the like stand for any.
            if let Some(verb) = verb.filter(|verb| verb.chars().any(char::is_lowercase)) {
                return Some(format!("there is no verb {verb}"));
            }
        }
        let help = self.of(&path).to_owned();
        let flags = rest
            .take_while(|word| *word != "--")
            .filter(|word| word.starts_with('-') && word.len() > 1);
        let unknown: Vec<_> = flags
            .map(|flag| flag.split('=').next().unwrap_or_default())
            .filter(|flag| {
                !help
                    .split([' ', ',', '\n', '=', '[', '.'])
                    .any(|word| word == *flag)
            })
            .collect();
        (!unknown.is_empty()).then(|| format!("{} has no {}", path.join(" "), unknown.join(", ")))
    }
}

/// The commands of ours in a line of a shell.
fn ours(line: &str) -> Vec<Vec<String>> {
    let parts = line.split(['|', ';', '&', '(', ')', '<', '>']);
    parts
        .filter_map(|part| {
            let words = part
                .split_whitespace()
                .map(|word| word.trim_matches(['"', '\'']).to_owned());
            let is_setting = |word: &String| word.contains('=') && !word.starts_with('-');
            let words: Vec<String> = words
                .skip_while(|word| is_setting(word) || word == "sudo" || word == "source")
                .collect();
            let program = words.first()?;
            programs::OURS.contains(&program.as_str()).then_some(words)
        })
        .collect()
}

#[test]
fn commands_and_flags_exist() {
    let mut all: Vec<Page> = readmes().unwrap();
    for language in LANGUAGES {
        all.extend(pages(language).unwrap());
    }
    let mut help = Help::default();
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for page in &all {
        let blocks = page.blocks.iter().filter(|block| block.language == "sh");
        let lines = blocks.flat_map(|block| {
            block
                .commands()
                .into_iter()
                .map(move |line| (block.line, line))
        });
        for (number, line) in lines.chain(page.spans.iter().cloned()) {
            for words in ours(&line) {
                looked_at += 1;
                if let Some(problem) = help.problem(&words) {
                    wrong.push(format!(
                        "{}:{number}: {line}: {problem}",
                        page.path.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(looked_at > 100, "only {looked_at} commands were found");
}

#[test]
fn what_is_wrong_is_found() {
    let mut help = Help::default();
    for (line, part) in [
        ("uimgacc enable --nfs 10.0.0.1", None),
        ("echo x | UIMGACC_STORE=/s uimgacc store init -q", None),
        ("uimgacc enabel --nfs 10.0.0.1", Some("no verb enabel")),
        ("uimgacc enable --nsf 10.0.0.1", Some("has no --nsf")),
        (
            "uimgacc store init --nfs x",
            Some("uimgacc store init has no --nfs"),
        ),
    ] {
        let words = ours(line);
        assert_eq!(words.len(), 1, "{line}");
        let problem = help.problem(&words[0]);
        match part {
            None => assert_eq!(problem, None, "{line}"),
            Some(part) => assert!(
                problem.as_ref().is_some_and(|text| text.contains(part)),
                "{line}: {problem:?}"
            ),
        }
    }
}
