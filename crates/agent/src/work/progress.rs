//! How far a conversion is, counted from what the conversion tells.

use parking_lot::Mutex;
use uimgacc_convert::Progress as Listener;
use uimgacc_objects::Progress;

/// Counts; [`Self::now`] is what the object's status gets.
#[derive(Debug, Default)]
pub(super) struct Counter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Compressed bytes of each layer, and how many of them have come in.
    layers: Vec<(u64, u64)>,
    stage: String,
}

impl Counter {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock())
    }

    /// How far it is now. Below 100 % as long as it runs, since indexes and the target image come
    /// after the layers.
    pub(super) fn now(&self) -> Progress {
        self.with(|state| {
            let total_bytes: u64 = state.layers.iter().map(|(total, _)| total).sum();
            let done_bytes: u64 = state
                .layers
                .iter()
                .map(|(total, done)| (*done).min(*total))
                .sum();
            let percent = (u128::from(done_bytes) * 100)
                .checked_div(u128::from(total_bytes))
                .unwrap_or(0);
            Progress {
                done_bytes,
                total_bytes,
                percent: u32::try_from(percent).unwrap_or(100).min(99),
                stage: state.stage.clone(),
            }
        })
    }
}

impl Listener for Counter {
    fn layers(&self, layers: &[(String, u64)]) {
        self.with(|state| state.layers = layers.iter().map(|(_, size)| (*size, 0)).collect());
    }

    fn layer_bytes(&self, layer: usize, bytes: u64) {
        self.with(|state| {
            if let Some((_, done)) = state.layers.get_mut(layer) {
                *done = done.saturating_add(bytes);
            }
        });
    }

    fn layer_done(&self, layer: usize, _: bool) {
        self.with(|state| {
            if let Some((total, done)) = state.layers.get_mut(layer) {
                *done = *total;
            }
        });
    }

    fn stage(&self, what: &str) {
        tracing::info!(stage = what);
        self.with(|state| what.clone_into(&mut state.stage));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_layers() {
        let counter = Counter::default();
        assert_eq!(counter.now().percent, 0);
        counter.stage("converting layers");
        counter.layers(&[("a".to_owned(), 300), ("b".to_owned(), 100)]);
        counter.layer_bytes(0, 150);
        counter.layer_bytes(0, 1000);
        counter.layer_bytes(7, 1);
        let now = counter.now();
        assert_eq!(
            (now.done_bytes, now.total_bytes, now.percent),
            (300, 400, 75)
        );
        counter.layer_done(1, true);
        assert_eq!(counter.now().percent, 99);
        assert_eq!(counter.now().stage, "converting layers");
    }
}
