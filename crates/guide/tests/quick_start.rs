//! The quick start, word for word: its commands in one shell, and what the page says they print.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use uimgacc_guide::{Page, pages, programs, root};
use uimgacc_testkit::{Need, ready};

/// What ends the output of a block.
const MARK: &str = "--- end of block";
const PATIENCE: Duration = Duration::from_secs(600);

/// What is run, and what must be printed by it.
struct Step {
    line: usize,
    script: String,
    expected: Vec<String>,
}

/// The blocks to be run, each with the one of its output, where that follows.
fn steps(page: &Page) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_output_of_last = false;
    for block in &page.blocks {
        match block.language.as_str() {
            "sh" if block.not_run.is_none() => {
                steps.push(Step {
                    line: block.line,
                    script: block.text.clone(),
                    expected: Vec::new(),
                });
                is_output_of_last = true;
            }
            "text" if is_output_of_last => {
                let lines = block.text.lines().map(str::to_owned);
                steps.last_mut().unwrap().expected = lines.collect();
                is_output_of_last = false;
            }
            _ => is_output_of_last = false,
        }
    }
    steps
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

/// Ends the playground whatever comes.
struct Playground {
    folder: PathBuf,
}

impl Playground {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(root())
            .env("UIMGACC_PLAYGROUND", &self.folder)
            .env("UIMGACC_PROGRAMS", programs::folder())
            // No store, no HTTP API: the playground's cluster.
            .env("XDG_CONFIG_HOME", self.folder.with_file_name("no-config"))
            .env_remove("UIMGACC_CONFIG")
            .env_remove("UIMGACC_BASE_URL")
            .env_remove("UIMGACC_STORE")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        let status = self.command("scripts/playground.sh").arg("down").status();
        println!("playground.sh down: {status:?}");
    }
}

/// Runs a shell to its end, with all output in a file.
fn run(mut command: Command, output: &Path) -> ExitStatus {
    let out = File::create(output).unwrap();
    let err = out.try_clone().unwrap();
    let mut child = command.stdout(out).stderr(err).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            return child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_quick_start_runs_word_for_word() {
    if !ready(&[Need::Root, Need::Parts, Need::Kubernetes, Need::OurImage]) {
        return;
    }
    for name in ["uimgacc", "uimgacc-playground"] {
        programs::program(name).unwrap();
    }
    let page = pages("en")
        .unwrap()
        .into_iter()
        .find(|page| page.name() == "quick-start.md")
        .unwrap();
    let steps = steps(&page);
    let left_out = page.blocks.iter().filter(|block| block.not_run.is_some());
    assert_eq!(left_out.count(), 1, "only what gets Rust is not run");
    assert!(steps.len() >= 6, "only {} blocks were found", steps.len());
    let mut script = "set -euo pipefail\n".to_owned();
    for step in &steps {
        script.push_str(&format!(
            "{}\nprintf '\\n{MARK} %s\\n' {}\n",
            step.script, step.line
        ));
    }
    let work = tempfile::Builder::new()
        .prefix("uimgacc-quick-start-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let file = work.path().join("script");
    std::fs::write(&file, script).unwrap();
    let playground = Playground {
        folder: work.path().join("playground"),
    };
    let mut bash = playground.command("bash");
    bash.arg(&file);
    let output = work.path().join("output");
    let began = Instant::now();
    let status = run(bash, &output);
    let output = String::from_utf8_lossy(&std::fs::read(&output).unwrap()).into_owned();
    println!("{output}\nthe quick start took {:?}", began.elapsed());
    let mut rest = output.as_str();
    for step in &steps {
        let mark = format!("\n{MARK} {}\n", step.line);
        let Some((told, after)) = rest.split_once(&mark) else {
            panic!("the block at line {} failed ({status})", step.line);
        };
        if let Some(line) = missing(told, &step.expected) {
            panic!("the block at line {} does not print {line:?}", step.line);
        }
        rest = after;
    }
    assert!(status.success(), "{status}");
    assert!(!playground.folder.exists(), "the playground is left behind");
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
