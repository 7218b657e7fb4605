//! The fixed header block of a tar entry: pure.

use super::BLOCK;

/// The dialects that differ in how the last 255 bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    /// POSIX.1-1988, with or without PAX records.
    Ustar,
    Star,
    Gnu,
}

/// The fields of a header block.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) format: Format,
    pub(super) flag: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) permissions: u16,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
    pub(super) device: (i64, i64),
}

/// A field of the block.
pub(super) fn field(block: &[u8; BLOCK], start: usize, len: usize) -> &[u8] {
    block.get(start..start + len).unwrap_or_default()
}

/// Bytes up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits or, where its first bit is set, in base 256 (two's complement).
pub(super) fn number(field: &[u8]) -> Result<i64, String> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        return base_256(field);
    }
    let is_filler = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field
        .iter()
        .position(|byte| !is_filler(byte))
        .unwrap_or(field.len());
    let end = field
        .iter()
        .rposition(|byte| !is_filler(byte))
        .map_or(start, |last| last + 1);
    let digits = text(field.get(start..end).unwrap_or_default());
    if digits.is_empty() {
        return Ok(0);
    }
    let bad = || format!("{:?} is no octal number", String::from_utf8_lossy(digits));
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or_else(bad),
        _ => Err(bad()),
    })
}

fn base_256(field: &[u8]) -> Result<i64, String> {
    let is_negative = field.first().is_some_and(|first| first & 0x40 != 0);
    let start = if is_negative { -1i64 } else { 0 };
    let mut value = start;
    for (index, byte) in field.iter().enumerate() {
        // The first bit only marks the encoding; the sign is the bit after it.
        let byte = match (index, is_negative) {
            (0, false) => byte & 0x7f,
            _ => *byte,
        };
        value = value
            .checked_mul(256)
            .and_then(|value| value.checked_add(i64::from(byte)))
            .ok_or("a number beyond 64 bits")?;
        if index == 0 && is_negative {
            value = i64::from(i8::from_le_bytes([byte]));
        }
    }
    Ok(value)
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, String> {
        check_sum(block)?;
        let format = match (field(block, 257, 6), field(block, 263, 2)) {
            (b"ustar\0", _) if field(block, 508, 4) == b"tar\0" => Format::Star,
            (b"ustar\0", _) => Format::Ustar,
            (b"ustar ", b" \0") => Format::Gnu,
            _ => Format::V7,
        };
        let mut name = text(field(block, 0, 100)).to_vec();
        let mut device = (0, 0);
        if format != Format::V7 {
            device = (number(field(block, 329, 8))?, number(field(block, 337, 8))?);
            let prefix = match format {
                Format::Ustar => text(field(block, 345, 155)),
                Format::Star => text(field(block, 345, 131)),
                Format::Gnu => prefix_of_old_go(block),
                Format::V7 => &[],
            };
            if !prefix.is_empty() {
                name = [prefix, b"/", &name].concat();
            }
        }
        let mode = number(field(block, 100, 8))?;
        Ok(Self {
            format,
            flag: block[156],
            name,
            link: text(field(block, 157, 100)).to_vec(),
            permissions: u16::try_from(mode & 0o7777).unwrap_or_default(),
            uid: number(field(block, 108, 8))?,
            gid: number(field(block, 116, 8))?,
            size: number(field(block, 124, 12))?,
            mtime: number(field(block, 136, 12))?,
            device,
        })
    }
}

/// Before 1.8 Go's writer put a ustar prefix into GNU headers, over the times of access and change
/// (golang/go 12594, 21005). As Go's reader does: what does not parse as those times and is ASCII
/// is such a prefix.
fn prefix_of_old_go(block: &[u8; BLOCK]) -> &[u8] {
    let is_time = |start| {
        let field = field(block, start, 12);
        field.first() == Some(&0) || number(field).is_ok()
    };
    let prefix = text(field(block, 345, 155));
    if (is_time(345) && is_time(357)) || !prefix.is_ascii() {
        return &[];
    }
    prefix
}

/// The sum of all bytes, the field of the sum itself counted as spaces; old tars summed signed.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), String> {
    let claimed = number(field(block, 148, 8))?;
    let bytes = || {
        block.iter().enumerate().map(|(at, byte)| {
            if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            }
        })
    };
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes()
        .map(|byte| i64::from(i8::from_le_bytes([byte])))
        .sum();
    if claimed == unsigned || claimed == signed {
        Ok(())
    } else {
        Err(format!("its checksum is {claimed} instead of {unsigned}"))
    }
}
