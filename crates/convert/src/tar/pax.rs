//! PAX records and GNU long names: pure.

use std::collections::BTreeMap;

use uimgacc_erofs::tree::Timestamp;

use super::header::text;
use super::sparse::Segment;
use super::{Entry, MAX_SPARSE_SEGMENTS};

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Where a PAX sparse file has its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SparseVersion {
    /// GNU.sparse 0.0 and 0.1.
    InRecords,
    /// GNU.sparse 1.0.
    InContent,
}

/// What headers before an entry say about it.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Offsets and lengths of GNU.sparse 0.0, which repeats its keys.
    sparse_pairs: Vec<u64>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn decimal<T: std::str::FromStr>(key: &str, value: &[u8]) -> Result<T, String> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| format!("the PAX record {key} is {:?}", show(value)))
}

/// Seconds with an optional fraction; further digits than nanoseconds are cut off.
fn time(value: &[u8]) -> Result<Timestamp, String> {
    let bad = || format!("the PAX record mtime is {:?}", show(value));
    let value = std::str::from_utf8(value).map_err(|_| bad())?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = whole.parse().map_err(|_| bad())?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(bad());
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().map_err(|_| bad())?;
    if !whole.starts_with('-') || nanoseconds == 0 {
        return Ok(Timestamp {
            seconds,
            nanoseconds,
        });
    }
    // -1.25 is 1.25 s before 1970: second -2 and 0.75 s.
    Ok(Timestamp {
        seconds: seconds.checked_sub(1).ok_or_else(bad)?,
        nanoseconds: 1_000_000_000 - nanoseconds,
    })
}

impl Extensions {
    /// Takes in the body of a header of type `x`, `L` or `K`.
    pub(super) fn add(&mut self, flag: u8, body: &[u8]) -> Result<(), String> {
        match flag {
            b'L' => self.long_name = Some(text(body).to_vec()),
            b'K' => self.long_link = Some(text(body).to_vec()),
            _ => {
                // A second PAX header takes the place of the first.
                self.records.clear();
                self.sparse_pairs.clear();
                self.add_records(body)?;
            }
        }
        Ok(())
    }

    fn add_records(&mut self, mut body: &[u8]) -> Result<(), String> {
        while !body.is_empty() {
            let (key, value, rest) =
                split_record(body).ok_or("a PAX record is not `length key=value`")?;
            let has_nul = match key {
                b"path" | b"linkpath" | b"uname" | b"gname" => value.contains(&0),
                _ => key.contains(&0),
            };
            if key.is_empty() || has_nul {
                return Err(format!("the PAX record {} is not allowed", show(key)));
            }
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    let is_offset = key == b"GNU.sparse.offset";
                    if self.sparse_pairs.len().is_multiple_of(2) != is_offset {
                        return Err("GNU.sparse offsets and lengths do not alternate".to_owned());
                    }
                    if self.sparse_pairs.len() >= 2 * MAX_SPARSE_SEGMENTS {
                        return Err("too many pieces of data".to_owned());
                    }
                    self.sparse_pairs.push(decimal(&show(key), value)?);
                }
                _ => {
                    self.records.insert(key.to_vec(), value.to_vec());
                }
            }
            body = rest;
        }
        Ok(())
    }

    /// A record that is there and not empty (an empty one takes back what another header said).
    fn get(&self, key: &str) -> Option<&[u8]> {
        self.records
            .get(key.as_bytes())
            .map(Vec::as_slice)
            .filter(|value| !value.is_empty())
    }

    /// Lays the records over an entry; `stored` is the length of its content in the tar.
    pub(super) fn apply(&self, entry: &mut Entry, stored: &mut i64) -> Result<(), String> {
        if let Some(value) = self.get("path") {
            entry.name = value.to_vec();
        }
        if let Some(value) = self.get("linkpath") {
            entry.link = value.to_vec();
        }
        if let Some(value) = self.get("uid") {
            entry.uid = decimal("uid", value)?;
        }
        if let Some(value) = self.get("gid") {
            entry.gid = decimal("gid", value)?;
        }
        if let Some(value) = self.get("size") {
            *stored = decimal("size", value)?;
        }
        if let Some(value) = self.get("mtime") {
            entry.mtime = time(value)?;
        }
        if let Some(name) = self.long_name.as_ref().filter(|name| !name.is_empty()) {
            entry.name.clone_from(name);
        }
        if let Some(link) = self.long_link.as_ref().filter(|link| !link.is_empty()) {
            entry.link.clone_from(link);
        }
        entry.xattrs = self
            .records
            .iter()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix(XATTR_PREFIX)?.to_vec(), value.clone()))
            })
            .collect();
        Ok(())
    }

    /// Whether the entry is a PAX sparse file.
    pub(super) fn sparse_version(&self) -> Option<SparseVersion> {
        match (self.get("GNU.sparse.major"), self.get("GNU.sparse.minor")) {
            (Some(b"0"), Some(b"0" | b"1")) => Some(SparseVersion::InRecords),
            (Some(b"1"), Some(b"0")) => Some(SparseVersion::InContent),
            (Some(_), _) | (_, Some(_)) => None,
            (None, None) => (self.get("GNU.sparse.map").is_some() || !self.sparse_pairs.is_empty())
                .then_some(SparseVersion::InRecords),
        }
    }

    /// The real name of a sparse file.
    pub(super) fn sparse_name(&self) -> Option<Vec<u8>> {
        self.get("GNU.sparse.name").map(<[u8]>::to_vec)
    }

    /// The real length of a sparse file; `stored` where no record tells.
    pub(super) fn sparse_size(&self, stored: u64) -> Result<u64, String> {
        for key in ["GNU.sparse.size", "GNU.sparse.realsize"] {
            if let Some(value) = self.get(key) {
                return decimal(key, value);
            }
        }
        Ok(stored)
    }

    /// The map of GNU.sparse 0.0 or 0.1.
    pub(super) fn sparse_map(&self) -> Result<Vec<Segment>, String> {
        let numbers: Vec<u64> = match self.get("GNU.sparse.map") {
            Some(map) => map
                .split(|byte| *byte == b',')
                .map(|number| decimal("GNU.sparse.map", number))
                .collect::<Result<_, _>>()?,
            None => self.sparse_pairs.clone(),
        };
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("its sparse map has an offset without a length".to_owned());
        }
        Ok(pairs
            .iter()
            .map(|[offset_bytes, len_bytes]| Segment {
                offset_bytes: *offset_bytes,
                len_bytes: *len_bytes,
            })
            .collect())
    }
}

/// Splits `<length> <key>=<value>\n` from the front; the length counts the whole record.
fn split_record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = body.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(body.get(..space)?).ok()?.parse().ok()?;
    let record = body.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((
        record.get(..equals)?,
        record.get(equals + 1..)?,
        body.get(length..)?,
    ))
}
