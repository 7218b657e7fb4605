//! Asks for settings: on a terminal one by one, elsewhere the lines of standard input in the same order.

use std::io::{self, BufRead, IsTerminal as _, Read as _, Write as _};

use anyhow::Context as _;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use uimgacc_console::Printer;
use uimgacc_remote::{Config, Setting, config};

/// Stands for a value that is not shown.
pub(super) const REDACTED: &str = "****";
/// Takes a value away.
const CLEAR: &str = "-";
/// No setting is longer.
const MAX_BYTES: u64 = 64 << 10;

/// A changed setting; `None`: taken away.
pub(super) type Change = (Setting, Option<String>);

/// The terminal that is standard input, as it was. Whatever happens, it is so again afterwards.
#[derive(Debug)]
pub(super) struct Terminal(Option<Termios>);

impl Terminal {
    pub(super) fn new() -> Self {
        let stdin = io::stdin();
        let modes = stdin.is_terminal().then(|| tcgetattr(&stdin).ok());
        Self(modes.flatten())
    }

    pub(super) const fn is_one(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(modes) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
        }
    }
}

/// What standard input wants changed. What it says nothing of stays.
pub(super) fn ask(
    old: &Config,
    is_terminal: bool,
    printer: Printer,
) -> anyhow::Result<Vec<Change>> {
    if is_terminal {
        printer.complain(&format!(
            "Enter keeps what stands in brackets, {CLEAR} takes it away."
        ));
        return Setting::ALL
            .into_iter()
            .filter_map(|setting| on_terminal(setting, old.get(setting)).transpose())
            .collect();
    }
    let mut input = io::stdin().lock();
    let mut changes = Vec::new();
    for setting in Setting::ALL {
        let Some(line) = line(&mut input)? else {
            break;
        };
        changes.extend(change(setting, &line)?);
    }
    Ok(changes)
}

/// Asks until the answer can be used.
fn on_terminal(setting: Setting, old: Option<&str>) -> anyhow::Result<Option<Change>> {
    let known = match old.or(setting.default()) {
        Some(_) if setting.is_secret() => format!(" [{REDACTED}]"),
        Some(value) => format!(" [{value}]"),
        None => String::new(),
    };
    loop {
        // Nothing of a secret is echoed, whenever it is typed: first this, then the question.
        let hidden = setting.is_secret().then(Hidden::new).transpose()?;
        let mut talk = io::stderr();
        write!(talk, "{}: {}{known}: ", setting.key(), setting.about())?;
        talk.flush()?;
        let answer = line(&mut io::stdin().lock())?;
        if hidden.is_some() {
            writeln!(talk)?;
        }
        drop(hidden);
        let Some(answer) = answer else {
            anyhow::bail!("the terminal is gone; nothing was written");
        };
        match change(setting, &answer) {
            Ok(change) => return Ok(change),
            Err(error) => writeln!(talk, "{error}")?,
        }
    }
}

/// What an answer means; `None`: it stays.
fn change(setting: Setting, answer: &str) -> Result<Option<Change>, config::ConfigError> {
    let answer = answer.trim();
    Ok(match answer {
        "" => None,
        CLEAR => Some((setting, None)),
        value => {
            config::check(setting, value)?;
            Some((setting, Some(value.to_owned())))
        }
    })
}

/// A line without its end; `None` behind the last one.
fn line(input: &mut impl BufRead) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    let read = input.take(MAX_BYTES).read_line(&mut text);
    let count = read.context("cannot read standard input")?;
    Ok((count > 0).then_some(text))
}

/// While it lives, the terminal does not show what is typed.
struct Hidden(Termios);

impl Hidden {
    fn new() -> anyhow::Result<Self> {
        let old = tcgetattr(io::stdin()).context("cannot read the terminal's modes")?;
        let mut modes = old.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &modes)
            .context("cannot hide what is typed on the terminal")?;
        Ok(Self(old))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let of = |answer| change(Setting::Region, answer).unwrap();
        assert_eq!(of("\n"), None);
        assert_eq!(of("-\n"), Some((Setting::Region, None)));
        let set = Some((Setting::Region, Some("cn-bj2".to_owned())));
        assert_eq!(of(" cn-bj2\r\n"), set);
        assert!(change(Setting::BaseUrl, "nowhere\n").is_err());
    }

    #[test]
    fn lines_end_and_have_an_end() {
        let mut input = io::Cursor::new("a\n\nb".as_bytes());
        let read: Vec<_> = std::iter::from_fn(|| line(&mut input).unwrap()).collect();
        assert_eq!(read, ["a\n", "\n", "b"]);
    }
}
