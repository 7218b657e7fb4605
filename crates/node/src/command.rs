//! Programs of the host, run to their end.

use std::process::{Command, Output, Stdio};

use crate::error::NodeError;

/// Runs a program without input and returns what came of it.
pub(crate) fn output(command: &mut Command) -> Result<Output, NodeError> {
    let words = words(command);
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| NodeError::Run {
            command: words,
            source,
        })
}

/// Runs a program that must succeed and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, NodeError> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(NodeError::Failed {
        command: words(command),
        message: message(&output),
    })
}

/// A command of its words; `None` where there are none.
pub(crate) fn of(words: &[String]) -> Option<Command> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments);
    Some(command)
}

/// The last lines of what a failed program said, or else its status.
pub(crate) fn message(output: &Output) -> String {
    let text = [output.stderr.as_slice(), &output.stdout]
        .into_iter()
        .map(String::from_utf8_lossy)
        .find(|text| !text.trim().is_empty());
    let Some(text) = text else {
        return output.status.to_string();
    };
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn words(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args() {
        text = text + " " + &word.to_string_lossy();
    }
    text
}
