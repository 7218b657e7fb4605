//! How many requests a key may send. Pure; the caller tells the time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// One bucket of tokens for each key: it fills by `per_second`, and holds twice as many.
#[derive(Debug)]
pub(crate) struct Rates {
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
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            buckets: HashMap::new(),
        }
    }

    /// Takes one request of this key; whether it may be done. Only keys that exist may be asked for,
    /// so that the map stays bounded.
    pub(crate) fn take(&mut self, key: &str, now: Instant) -> bool {
        if !self.buckets.contains_key(key) {
            let bucket = Bucket::full(self.per_second, now);
            self.buckets.insert(key.to_owned(), bucket);
        }
        let bucket = self.buckets.get_mut(key);
        bucket.is_some_and(|bucket| bucket.take(self.per_second, now))
    }
}

impl Bucket {
    fn full(per_second: u32, now: Instant) -> Self {
        Self {
            left: u64::from(per_second) * 2000,
            at: now,
        }
    }

    fn fill(&mut self, per_second: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let came = millis.saturating_mul(u64::from(per_second));
        let full = u64::from(per_second) * 2000;
        self.left = self.left.saturating_add(came).min(full);
        // What is less than a millisecond counts the next time.
        self.at += Duration::from_millis(millis);
    }

    fn take(&mut self, per_second: u32, now: Instant) -> bool {
        self.fill(per_second, now);
        match self.left.checked_sub(1000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// How many addresses are remembered; while so many send wrong signatures, those of others are not
/// limited.
const MOST_PEERS: usize = 10_000;
/// How often addresses are forgotten whose bucket is full again.
const FORGET: Duration = Duration::from_secs(1);

/// One bucket for each address (of IPv6: each network of 64 bits), of requests that nobody signed.
#[derive(Debug)]
pub(crate) struct Strangers {
    per_second: u32,
    peers: HashMap<IpAddr, Bucket>,
    forgotten: Option<Instant>,
}

impl Strangers {
    /// Buckets that are all full.
    #[must_use]
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            peers: HashMap::new(),
            forgotten: None,
        }
    }

    /// Takes one request of this address; whether its refusal is to be told.
    pub(crate) fn take(&mut self, peer: IpAddr, now: Instant) -> bool {
        let per_second = self.per_second;
        if let Some(bucket) = self.peers.get_mut(&peer) {
            return bucket.take(per_second, now);
        }
        if self.peers.len() >= MOST_PEERS {
            let is_due = self
                .forgotten
                .is_none_or(|last| now.saturating_duration_since(last) >= FORGET);
            if is_due {
                self.forgotten = Some(now);
                self.peers.retain(|_, bucket| {
                    bucket.fill(per_second, now);
                    bucket.left < u64::from(per_second) * 2000
                });
            }
            if self.peers.len() >= MOST_PEERS {
                return true;
            }
        }
        let mut bucket = Bucket::full(per_second, now);
        let is_told = bucket.take(per_second, now);
        self.peers.insert(peer, bucket);
        is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_strangers_are_bounded() {
        let mut strangers = Strangers::new(10);
        let start = Instant::now();
        let peer = |number: u32| IpAddr::from(number.to_be_bytes());
        let taken = |strangers: &mut Strangers, number, now| {
            (0..100)
                .filter(|_| strangers.take(peer(number), now))
                .count()
        };
        assert_eq!(taken(&mut strangers, 0, start), 20);
        assert_eq!(
            taken(&mut strangers, 1, start),
            20,
            "each address for itself"
        );
        for number in 2..20_000 {
            assert!(strangers.take(peer(number), start));
        }
        assert_eq!(strangers.peers.len(), MOST_PEERS);
        // Newcomers are let be; those that are known stay limited.
        assert_eq!(taken(&mut strangers, 30_000, start), 100);
        assert_eq!(taken(&mut strangers, 0, start), 0);
        // Buckets that are full again are forgotten.
        let later = start + Duration::from_secs(2);
        assert_eq!(taken(&mut strangers, 30_000, later), 20);
        assert!(strangers.peers.len() <= 2, "{}", strangers.peers.len());
    }

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
