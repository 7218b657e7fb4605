//! Durations of one side of a comparison. Pure.

use std::time::Duration;

/// What was measured of one side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The sample at that percentile, 0 to 100, by the nearest rank; zero without samples.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted
            .get((last * percent + 50) / 100)
            .copied()
            .unwrap_or_default()
    }

    /// `median 81.2 ms (p10 79.0, p90 90.1)`.
    pub(crate) fn text(&self) -> String {
        let milliseconds = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        format!(
            "median {:7.1} ms (p10 {:.1}, p90 {:.1}, {} runs)",
            milliseconds(50),
            milliseconds(10),
            milliseconds(90),
            self.0.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile(50), Duration::ZERO);
        for milliseconds in [5, 1, 4, 2, 3] {
            samples.add(Duration::from_millis(milliseconds));
        }
        let at = |percent| samples.percentile(percent).as_millis();
        assert_eq!((at(0), at(50), at(100)), (1, 3, 5));
    }
}
