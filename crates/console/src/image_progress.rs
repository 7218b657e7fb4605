//! Progress of one image that is made elsewhere: one bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::{Printer, bytes};

/// How often plain lines tell how far it is.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how far an image is.
#[derive(Debug)]
pub struct ImageProgress {
    printer: Printer,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bar: Option<ProgressBar>,
    stage: String,
    last_line: Option<Instant>,
}

impl ImageProgress {
    /// Shows a bar where `printer` goes to a terminal, from the first update on.
    #[must_use]
    pub fn new(printer: Printer) -> Self {
        Self {
            printer,
            state: Mutex::default(),
        }
    }

    /// What is being done, and how much of it; a total of 0 is not known.
    pub fn update(&self, stage: &str, done_bytes: u64, total_bytes: u64) {
        let mut state = self.state.lock();
        if self.printer.shows_bars() {
            let bar = state.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template(
                    "{bar:30} {decimal_bytes:>10}/{decimal_total_bytes:10} {decimal_bytes_per_sec:12} {msg}",
                );
                ProgressBar::new(0)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            });
            bar.set_length(total_bytes);
            bar.set_position(done_bytes);
            bar.set_message(stage.to_owned());
            return;
        }
        let is_due = state
            .last_line
            .is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if stage == state.stage && !(is_due && total_bytes > 0) {
            return;
        }
        stage.clone_into(&mut state.stage);
        state.last_line = Some(Instant::now());
        self.printer.say(&line(stage, done_bytes, total_bytes));
    }
}

impl Drop for ImageProgress {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn line(stage: &str, done_bytes: u64, total_bytes: u64) -> String {
    if total_bytes == 0 {
        return stage.to_owned();
    }
    format!("{stage}: {} of {}", bytes(done_bytes), bytes(total_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(line("Creating", 0, 0), "Creating");
        assert_eq!(
            line("layers", 1_210_000, 5_000_000),
            "layers: 1.21 MB of 5.00 MB"
        );
    }
}
