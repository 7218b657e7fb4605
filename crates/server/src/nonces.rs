//! Second signatures that were used, for as long as their time is allowed. Pure; the caller tells the time.
//!
//! Guarantee: this process accepts a stamp once. Another replica, or this one after a restart, does not
//! know it. The clock may go backwards: what was forgotten is too old from then on.

use std::collections::{BTreeSet, HashMap};

use uimgacc_api::Refusal;
use uimgacc_api::exact::{Nonce, Stamp, WINDOW};

/// How many stamps of a key are remembered; more within the window are refused.
pub(crate) const MOST: usize = 200_000;

/// Stamps by public key.
#[derive(Debug, Default)]
pub(crate) struct Nonces {
    keys: HashMap<String, KeyNonces>,
}

#[derive(Debug, Default)]
struct KeyNonces {
    /// Older stamps are forgotten, and refused.
    oldest: u64,
    stamps: BTreeSet<(u64, Nonce)>,
}

impl Nonces {
    /// Uses a stamp that this key has signed; `now` in seconds since 1970. Only keys that exist may be
    /// given, so that the map stays bounded.
    ///
    /// # Errors
    /// [`Refusal::WrongTime`], [`Refusal::Replayed`], [`Refusal::Throttled`].
    pub(crate) fn take(
        &mut self,
        public_key: &str,
        stamp: &Stamp,
        now: u64,
    ) -> Result<(), Refusal> {
        let seen = self.keys.entry(public_key.to_owned()).or_default();
        seen.oldest = seen.oldest.max(now.saturating_sub(WINDOW));
        while seen
            .stamps
            .first()
            .is_some_and(|(time, _)| *time < seen.oldest)
        {
            seen.stamps.pop_first();
        }
        let differs = stamp.time.abs_diff(now);
        if differs > WINDOW || stamp.time < seen.oldest {
            return Err(Refusal::WrongTime(differs));
        }
        let stamp = (stamp.time, stamp.nonce);
        if seen.stamps.contains(&stamp) {
            return Err(Refusal::Replayed);
        }
        if seen.stamps.len() >= MOST {
            return Err(Refusal::Throttled);
        }
        seen.stamps.insert(stamp);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uimgacc_api::exact::Sent;

    fn stamp(time: u64, number: u32) -> Stamp {
        let sent = Sent {
            method: "POST",
            query: "",
            content_type: "",
            body: b"",
        };
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&number.to_be_bytes());
        Stamp::parse(&sent.sign("k", time, nonce)).unwrap()
    }

    #[test]
    fn each_stamp_once_within_its_window() {
        let mut nonces = Nonces::default();
        let now = 1_000_000;
        for (time, expected) in [
            (now, Ok(())),
            (now, Err(Refusal::Replayed)),
            (now - WINDOW, Ok(())),
            (now - WINDOW, Err(Refusal::Replayed)),
            (now - WINDOW - 1, Err(Refusal::WrongTime(WINDOW + 1))),
            (now + WINDOW, Ok(())),
            (now + WINDOW + 1, Err(Refusal::WrongTime(WINDOW + 1))),
            (u64::MAX, Err(Refusal::WrongTime(u64::MAX - now))),
        ] {
            assert_eq!(nonces.take("a", &stamp(time, 1), now), expected, "{time}");
        }
        assert_eq!(nonces.take("a", &stamp(now, 2), now), Ok(()));
        assert_eq!(
            nonces.take("b", &stamp(now, 1), now),
            Ok(()),
            "each key for itself"
        );
        // As long as the time of one is allowed it is remembered, and not longer.
        let ahead = stamp(now + WINDOW, 1);
        assert_eq!(
            nonces.take("a", &ahead, now + 2 * WINDOW),
            Err(Refusal::Replayed)
        );
        assert_eq!(nonces.keys["a"].stamps.len(), 1);
        // The clock is set back: what was forgotten is not taken again.
        assert!(matches!(
            nonces.take("a", &stamp(now, 1), now),
            Err(Refusal::WrongTime(_))
        ));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut nonces = Nonces::default();
        let most = u32::try_from(MOST).unwrap();
        for number in 0..most {
            assert_eq!(nonces.take("a", &stamp(7, number), 7), Ok(()));
        }
        assert_eq!(
            nonces.take("a", &stamp(7, most), 7),
            Err(Refusal::Throttled)
        );
        assert_eq!(nonces.take("b", &stamp(7, 0), 7), Ok(()));
        assert_eq!(nonces.take("a", &stamp(8 + WINDOW, 0), 8 + WINDOW), Ok(()));
    }
}
