//! Pauses that grow.

use std::time::Duration;

/// Exponential backoff: the pause after so many failures in a row. It is `first` after the first
/// one, doubles with each further one, and is at most `longest`.
#[must_use]
pub fn backoff(first: Duration, failures: u32, longest: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pause =
            |failures| backoff(Duration::from_secs(3), failures, Duration::from_secs(20)).as_secs();
        let pauses: Vec<u64> = (0..6).map(pause).collect();
        assert_eq!(pauses, [3, 3, 6, 12, 20, 20]);
        assert_eq!(pause(u32::MAX), 20);
    }
}
