//! Whether a coarse list is worth reading over a link. Pure.
//!
//! A list that was recorded at the kernel's own read-ahead has a good part that no start touches, and
//! some that it touches only once it is of use. What reading it saves is one round trip for each step
//! of the kernel. So where a round trip costs next to nothing beside the bytes, a start is faster
//! without.

use std::time::Duration;

/// The link is known once so much was read.
pub(super) const PROBE_BYTES: u64 = 4 << 20;
/// How many reads are made one by one, to see what a round trip takes.
pub(super) const PROBE_READS: usize = 2;
/// What a coarse list has too much for each step of the kernel, 128 KiB: measured with `import torch`,
/// an eighth.
const WASTE_BYTES: f64 = 16.0 * 1024.0;

/// Bytes, and what it took to read them.
pub(super) type Read = (u64, Duration);

/// By reads that were made one by one, and by many at the same time.
pub(super) fn is_worth_it(single: &[Read], many: Read) -> bool {
    let seconds_a_byte = many.1.as_secs_f64() / many.0.max(1) as f64;
    let round_trip = single
        .iter()
        .map(|(bytes, took)| took.as_secs_f64() - *bytes as f64 * seconds_a_byte)
        .fold(f64::INFINITY, f64::min);
    round_trip > WASTE_BYTES * seconds_a_byte
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a link with this round trip in microseconds, and this rate in MB/s.
    fn is_worth(round_trip: u64, rate: u64) -> bool {
        let took = |bytes: u64| Duration::from_micros(bytes / rate);
        let trip = Duration::from_micros(round_trip);
        let single = [128 << 10, 4096].map(|bytes| (bytes, trip + took(bytes)));
        is_worth_it(&single, (PROBE_BYTES, took(PROBE_BYTES)))
    }

    #[test]
    fn only_round_trips_are_saved() {
        assert!(!is_worth(100, 15), "15 MB/s, next to no round trip");
        assert!(is_worth(2_000, 15), "the capacity tier of UFS");
        assert!(is_worth(5_000, 1_000), "its SSD tier");
        assert!(is_worth(1_000, 100));
        assert!(is_worth(200, 1_000), "a server in the same rack");
        assert!(is_worth_it(&[], (0, Duration::ZERO)), "nothing is known");
    }
}
