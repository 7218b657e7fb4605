//! The second signature (`v2`): a header with an HMAC-SHA-256 over the request as it is sent, with the
//! time and a nonce.
//!
//! ```text
//! X-Uimgacc-Signature: v2;time=1764366000;nonce=<32 hex digits>;mac=<64 hex digits>
//! ```
//!
//! The MAC's key is the private key, its message these lines, each ended by a line feed, and then the
//! body: `uimgacc-v2`, the method, the query without `?`, the content type, the time in seconds since
//! 1970, the nonce. The path is always `/`, and proxies may put one before it; they may change the
//! `Host` as well, so neither is signed: one pair of keys belongs to one service.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The header.
pub const HEADER: &str = "x-uimgacc-signature";
/// How many seconds the client's time may differ from the server's.
pub const WINDOW: u64 = 300;

/// A nonce: 16 bytes that the client never uses again.
pub type Nonce = [u8; 16];

/// A request as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent<'r> {
    /// Its method, in capitals.
    pub method: &'r str,
    /// Its query, without the question mark.
    pub query: &'r str,
    /// Its content type as it is written; empty where there is none.
    pub content_type: &'r str,
    /// Its body.
    pub body: &'r [u8],
}

/// What a header says, before it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When it was signed, in seconds since 1970.
    pub time: u64,
    /// The nonce.
    pub nonce: Nonce,
    mac: [u8; 32],
}

impl Sent<'_> {
    /// The value of the header.
    #[must_use]
    pub fn sign(&self, private_key: &str, time: u64, nonce: Nonce) -> String {
        let nonce_text = hex(&nonce);
        let mac = self.mac(private_key, time, &nonce_text).map(|mac| {
            let bytes = mac.finalize().into_bytes();
            hex(&bytes)
        });
        format!(
            "v2;time={time};nonce={nonce_text};mac={}",
            mac.unwrap_or_default()
        )
    }

    /// Whether that private key signed this request; in constant time.
    #[must_use]
    pub fn is_signed_by(&self, private_key: &str, stamp: &Stamp) -> bool {
        let mac = self.mac(private_key, stamp.time, &hex(&stamp.nonce));
        mac.is_some_and(|mac| mac.verify_slice(&stamp.mac).is_ok())
    }

    /// HMAC takes keys of any length, so there is always one.
    fn mac(&self, private_key: &str, time: u64, nonce: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(private_key.as_bytes()).ok()?;
        let time = time.to_string();
        // None of these lines contains a line feed: HTTP allows none there.
        for line in [
            "uimgacc-v2",
            self.method,
            self.query,
            self.content_type,
            &time,
            nonce,
        ] {
            mac.update(line.as_bytes());
            mac.update(b"\n");
        }
        mac.update(self.body);
        Some(mac)
    }
}

impl Stamp {
    /// Reads the value of a header; only what [`Sent::sign`] writes is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("v2;time=")?;
        let (digits, rest) = rest.split_once(";nonce=")?;
        let (nonce, mac) = rest.split_once(";mac=")?;
        let time: u64 = digits.parse().ok()?;
        // Not `+1` nor `01`: one text for one stamp.
        (time.to_string() == digits).then_some(Self {
            time,
            nonce: bytes(nonce)?,
            mac: bytes(mac)?,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|nibble| char::from_digit(nibble.into(), 16));
    bytes.iter().flat_map(digits).flatten().collect()
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut all = [0; N];
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(is_hex) {
        return None;
    }
    for (byte, pair) in all.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Sent<'_> = Sent {
        method: "POST",
        query: "",
        content_type: "application/x-www-form-urlencoded",
        body: b"Action=GetUK8SImageAccelerate",
    };

    /// By `printf ... | openssl dgst -sha256 -hmac geheim`.
    #[test]
    fn a_signature_that_openssl_makes_too() {
        let header = SENT.sign("geheim", 1_764_366_000, [0xab; 16]);
        let nonce = "ab".repeat(16);
        let mac = "549c5cf4d2f462a8e99df8d07ff76906d5cbca40620923084babba0ea31d230d";
        assert_eq!(
            header,
            format!("v2;time=1764366000;nonce={nonce};mac={mac}")
        );
    }

    #[test]
    fn every_part_of_a_request_is_signed() {
        let header = SENT.sign("k", 7, [1; 16]);
        let stamp = Stamp::parse(&header).unwrap();
        assert!(SENT.is_signed_by("k", &stamp));
        assert!(!SENT.is_signed_by("k2", &stamp));
        for other in [
            Sent {
                method: "GET",
                ..SENT
            },
            Sent {
                query: "a=b",
                ..SENT
            },
            Sent {
                content_type: "application/json",
                ..SENT
            },
            Sent {
                body: b"Action=GetUK8SImageAccelerate&",
                ..SENT
            },
        ] {
            assert!(!other.is_signed_by("k", &stamp), "{other:?}");
        }
        for other in [
            Stamp { time: 8, ..stamp },
            Stamp {
                nonce: [2; 16],
                ..stamp
            },
            Stamp {
                mac: [0; 32],
                ..stamp
            },
        ] {
            assert!(!SENT.is_signed_by("k", &other), "{other:?}");
        }
    }

    #[test]
    fn only_what_is_written_is_read() {
        let header = SENT.sign("k", 7, [1; 16]);
        for (from, to) in [
            ("v2", "v3"),
            ("time=7", "time=+7"),
            ("time=7", "time=07"),
            ("time=7", "time="),
            ("nonce=01", "nonce=0"),
            ("nonce=01", "nonce=0g"),
            ("nonce=01", "nonce=0A"),
            (";mac=", ";mac=00"),
            (";mac=", ";max="),
        ] {
            assert!(header.contains(from), "{from}");
            assert_eq!(Stamp::parse(&header.replacen(from, to, 1)), None, "{to}");
        }
        assert_eq!(Stamp::parse(""), None);
    }
}
