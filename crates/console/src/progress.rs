//! Progress of a conversion: a bar a layer on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use uimgacc_convert::Progress;

use crate::{Printer, bytes, duration};

/// How often plain lines tell how far a layer is.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows what a conversion tells.
#[derive(Debug)]
pub struct LayerProgress {
    printer: Printer,
    bars: Option<MultiProgress>,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    layers: Vec<Layer>,
    last_line: Option<Instant>,
}

#[derive(Debug)]
struct Layer {
    label: String,
    total_bytes: u64,
    done_bytes: u64,
    bar: Option<ProgressBar>,
}

impl LayerProgress {
    /// Shows bars where `printer` goes to a terminal.
    #[must_use]
    pub fn new(printer: Printer) -> Self {
        Self {
            printer,
            bars: printer.shows_bars().then(MultiProgress::new),
            started: Instant::now(),
            state: Mutex::default(),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock())
    }

    fn say(&self, text: &str) {
        match &self.bars {
            // A line above the bars; a terminal that is gone needs none.
            Some(bars) => drop(bars.println(text)),
            None => self.printer.say(text),
        }
    }
}

/// `sha256:0123456789ab...` shortened as `docker` does.
fn short(digest: &str) -> String {
    digest
        .split(':')
        .next_back()
        .unwrap_or_default()
        .chars()
        .take(12)
        .collect()
}

impl Progress for LayerProgress {
    fn layers(&self, layers: &[(String, u64)]) {
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30} {decimal_bytes:>10}/{decimal_total_bytes:10} {decimal_bytes_per_sec:12} {msg}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        let layers = layers.iter().map(|(diff_id, total_bytes)| {
            let label = short(diff_id);
            let bar = self.bars.as_ref().map(|bars| {
                let bar = bars.add(ProgressBar::new(*total_bytes).with_style(style.clone()));
                bar.set_prefix(label.clone());
                bar
            });
            Layer {
                label,
                total_bytes: *total_bytes,
                done_bytes: 0,
                bar,
            }
        });
        let layers = layers.collect();
        self.with(|state| state.layers = layers);
    }

    fn layer_bytes(&self, layer: usize, count: u64) {
        let line = self.with(|state| {
            let is_due = state
                .last_line
                .is_none_or(|last| last.elapsed() >= LINE_EVERY);
            let layer = state.layers.get_mut(layer)?;
            layer.done_bytes += count;
            if let Some(bar) = &layer.bar {
                bar.set_position(layer.done_bytes);
                return None;
            }
            if !is_due {
                return None;
            }
            let line = format!(
                "layer {}: {} of {}",
                layer.label,
                bytes(layer.done_bytes),
                bytes(layer.total_bytes)
            );
            state.last_line = Some(Instant::now());
            Some(line)
        });
        if let Some(line) = line {
            self.say(&line);
        }
    }

    fn layer_done(&self, layer: usize, was_there: bool) {
        let line = self.with(|state| {
            let layer = state.layers.get_mut(layer)?;
            let how = if was_there {
                "was in the store"
            } else {
                "done"
            };
            if let Some(bar) = &layer.bar {
                bar.set_position(layer.total_bytes);
                bar.finish_with_message(how);
                return None;
            }
            Some(format!(
                "layer {}: {how} ({})",
                layer.label,
                bytes(layer.total_bytes)
            ))
        });
        if let Some(line) = line {
            self.say(&line);
        }
    }

    fn stage(&self, what: &str) {
        self.say(&format!("[{}] {what}", duration(self.started.elapsed())));
    }
}
