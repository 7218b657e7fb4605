//! Progress of work that is only told in words and per cent: a bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::Printer;

/// How often plain lines tell how far it is.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often the time is shown anew.
const TICK: Duration = Duration::from_millis(250);

/// Shows how far something is.
#[derive(Debug)]
pub struct StateProgress {
    printer: Printer,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bar: Option<ProgressBar>,
    /// What was told last.
    line: String,
    text: String,
    last_line: Option<Instant>,
}

impl StateProgress {
    /// Shows a bar where `printer` goes to a terminal, from the first update on.
    #[must_use]
    pub fn new(printer: Printer) -> Self {
        Self {
            printer,
            state: Mutex::default(),
        }
    }

    /// How it is, in words, and how much of it is done.
    pub fn update(&self, text: &str, percent: Option<u8>) {
        let mut state = self.state.lock();
        if self.printer.shows_bars() {
            let bar = state.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new(100);
                bar.enable_steady_tick(TICK);
                bar
            });
            let template = match percent {
                Some(_) => "{bar:30} {percent:>3} % {elapsed} {wide_msg}",
                None => "{spinner} {elapsed} {wide_msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_position(percent.unwrap_or_default().into());
            bar.set_message(text.to_owned());
            return;
        }
        let line = line(text, percent);
        let is_due = state
            .last_line
            .is_none_or(|last| last.elapsed() >= LINE_EVERY);
        // Each change of the words is told, numbers now and then.
        if line == state.line || text == state.text && !is_due {
            return;
        }
        text.clone_into(&mut state.text);
        state.last_line = Some(Instant::now());
        self.printer.say(&line);
        state.line = line;
    }

    /// A line of talk, above the bar.
    pub fn say(&self, text: &str) {
        let state = self.state.lock();
        match &state.bar {
            Some(bar) => bar.suspend(|| self.printer.say(text)),
            None => self.printer.say(text),
        }
    }
}

impl Drop for StateProgress {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn line(text: &str, percent: Option<u8>) -> String {
    percent.map_or_else(|| text.to_owned(), |percent| format!("{text}: {percent} %"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(line("Unknown", None), "Unknown");
        assert_eq!(line("Creating, layers", Some(45)), "Creating, layers: 45 %");
    }
}
