//! How many requests a key may send. Pure; the caller tells the time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// One bucket of tokens for each key: it fills by `per_second`, and holds twice as many.
#[derive(Debug)]
pub struct Rates {
    per_second: u32,
    buckets: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Thousandths of a request.
    left: u64,
    at: Instant,
}

impl Rates {
    /// Buckets that are all full. With 0 a second every request is one too many.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            buckets: HashMap::new(),
        }
    }

    /// Takes one request of this key; whether it may be done. Only keys that exist may be asked for,
    /// so that the map stays bounded.
    pub fn take(&mut self, key: &str, now: Instant) -> bool {
        let full = u64::from(self.per_second) * 2000;
        if !self.buckets.contains_key(key) {
            let bucket = Bucket {
                left: full,
                at: now,
            };
            self.buckets.insert(key.to_owned(), bucket);
        }
        let Some(bucket) = self.buckets.get_mut(key) else {
            return false;
        };
        let passed = now.saturating_duration_since(bucket.at);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let came = millis.saturating_mul(u64::from(self.per_second));
        bucket.left = bucket.left.saturating_add(came).min(full);
        // What is less than a millisecond counts the next time.
        bucket.at += Duration::from_millis(millis);
        match bucket.left.checked_sub(1000) {
            Some(left) => {
                bucket.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let mut rates = Rates::new(10);
        let start = Instant::now();
        let taken = |rates: &mut Rates, now| (0..100).filter(|_| rates.take("a", now)).count();
        assert_eq!(taken(&mut rates, start), 20);
        assert!(rates.take("b", start), "each key for itself");
        assert_eq!(taken(&mut rates, start + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut rates, start + Duration::from_millis(100)), 1);
        assert_eq!(taken(&mut rates, start + Duration::from_millis(1100)), 10);
        assert_eq!(taken(&mut rates, start + Duration::from_secs(3600)), 20);
        // Many small steps count as much as one.
        let mut steps = 0;
        let begin = start + Duration::from_secs(3600);
        for micros in (0..1_000_000).step_by(700) {
            steps += usize::from(rates.take("a", begin + Duration::from_micros(micros)));
        }
        assert!((9..=11).contains(&steps), "{steps}");
        assert!(!Rates::new(0).take("a", start));
    }
}
