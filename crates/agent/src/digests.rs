//! Keeps whole digests out of what a program of the cluster reports: statuses, events and logs.
//!
//! The log of a Pod and the status of an object have more readers than images do (`view` suffices),
//! and whoever knows the digests of an image's layers can claim to have them.

use std::io::{self, Write};

/// How many hex digits of a digest are shown.
const SHOWN_DIGITS: usize = 12;

/// The text with every hash of 64 and more hex digits cut to its first ones.
#[must_use]
pub fn shorten_digests(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    for part in text.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        match (part.get(..SHOWN_DIGITS), part.get(digits..)) {
            (Some(shown), Some(rest)) if digits >= 64 => {
                short.push_str(shown);
                short.push_str("...");
                short.push_str(rest);
            }
            _ => short.push_str(part),
        }
    }
    short
}

/// Shortens the digests in what is written through it. Each call must write whole lines, as the
/// subscriber of `tracing` does.
#[derive(Debug)]
pub struct ShortDigests<W>(pub W);

impl<W: Write> Write for ShortDigests<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .write_all(shorten_digests(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_digests_are_cut() {
        let hash = "ab".repeat(32);
        for (text, short) in [
            (
                format!("chains/ab/{hash}.json is damaged"),
                "chains/ab/abababababab....json is damaged".to_owned(),
            ),
            (
                format!("sha256:{hash}{hash}"),
                "sha256:abababababab...".to_owned(),
            ),
            (hash.clone(), "abababababab...".to_owned()),
        ] {
            assert_eq!(shorten_digests(&text), short);
            let mut written = ShortDigests(Vec::new());
            written.write_all(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(written.0).unwrap(), short);
        }
        for same in ["", "é", &format!("é{}é", "d".repeat(63)), &"z".repeat(80)] {
            assert_eq!(shorten_digests(same), same);
        }
    }
}
