//! The header block of an entry and what may stand before it: PAX records and GNU long names.

use super::{BLOCK_BYTES, Dialect, Entry};

/// Bytes of the fields `name` and `linkname`.
const NAME_BYTES: usize = 100;

/// The block of one header, its checksum not set.
pub(super) struct Block(pub(super) [u8; BLOCK_BYTES]);

impl Block {
    pub(super) fn new(flag: u8, dialect: Dialect) -> Self {
        let mut block = Self([0; BLOCK_BYTES]);
        block.0[156] = flag;
        match dialect {
            Dialect::Pax => block.put(257, b"ustar\x0000"),
            Dialect::Gnu => block.put(257, b"ustar  \0"),
        }
        block
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Octal digits with a zero byte at the end; false where the number does not fit.
    pub(super) fn octal(&mut self, at: usize, field_bytes: usize, value: u64) -> bool {
        let digits = format!("{value:0width$o}", width = field_bytes - 1);
        let fits = digits.len() < field_bytes;
        if fits {
            self.put(at, digits.as_bytes());
        }
        fits
    }

    /// Two's complement in base 256, with the high bit as its mark (GNU tar).
    pub(super) fn base256(&mut self, at: usize, field_bytes: usize, value: i64) {
        let fill = if value < 0 { 0xff } else { 0 };
        self.0[at..at + field_bytes].fill(fill);
        let tail = value.to_be_bytes();
        let used = tail.len().min(field_bytes - 1);
        self.put(at + field_bytes - used, &tail[tail.len() - used..]);
        self.0[at] |= 0x80;
    }

    /// Sets the checksum and appends the block.
    pub(super) fn append_to(mut self, out: &mut Vec<u8>) {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&self.0);
    }
}

/// Appends content and fills up its last block.
pub(super) fn append_padded(out: &mut Vec<u8>, content: &[u8]) {
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
}

/// Appends an entry with its content.
pub(super) fn write(out: &mut Vec<u8>, entry: &Entry) {
    let block = prepare(out, entry, entry.kind.flag(), length(&entry.content), &[]);
    block.append_to(out);
    append_padded(out, &entry.content);
}

pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits 64 bits")
}

/// Appends what must stand before the header of `entry` and returns that header, ready but for its checksum.
pub(super) fn prepare(
    out: &mut Vec<u8>,
    entry: &Entry,
    flag: u8,
    stored_bytes: u64,
    first_records: &[(String, Vec<u8>)],
) -> Block {
    let mut block = Block::new(flag, entry.dialect);
    let mut records = first_records.to_vec();
    let mut record = |key: &str, value: &[u8]| records.push((key.to_owned(), value.to_vec()));

    for (at, name, key, long_flag) in [
        (0, &entry.path, "path", b'L'),
        (157, &entry.link, "linkpath", b'K'),
    ] {
        if name.len() > NAME_BYTES {
            match entry.dialect {
                Dialect::Pax => record(key, name),
                Dialect::Gnu => write_long_name(out, long_flag, name),
            }
        }
        block.put(at, &name[..name.len().min(NAME_BYTES)]);
    }
    block.octal(100, 8, u64::from(entry.mode));
    for (at, field_bytes, value, key) in [
        (108, 8, u64::from(entry.uid), "uid"),
        (116, 8, u64::from(entry.gid), "gid"),
        (124, 12, stored_bytes, "size"),
    ] {
        if !block.octal(at, field_bytes, value) {
            match entry.dialect {
                Dialect::Pax => record(key, value.to_string().as_bytes()),
                Dialect::Gnu => block.base256(
                    at,
                    field_bytes,
                    i64::try_from(value).expect("a size fits 63 bits"),
                ),
            }
        }
    }
    match (entry.dialect, u64::try_from(entry.mtime)) {
        (Dialect::Pax, Ok(seconds)) if entry.mtime_nanos == 0 && block.octal(136, 12, seconds) => {}
        (Dialect::Pax, _) => {
            block.octal(136, 12, 0);
            record(
                "mtime",
                decimal_time(entry.mtime, entry.mtime_nanos).as_bytes(),
            );
        }
        (Dialect::Gnu, Ok(seconds)) if block.octal(136, 12, seconds) => {}
        (Dialect::Gnu, _) => block.base256(136, 12, entry.mtime),
    }
    block.octal(329, 8, u64::from(entry.device.0));
    block.octal(337, 8, u64::from(entry.device.1));

    records.extend(entry.pax.iter().cloned());
    if !records.is_empty() {
        write_pax(out, b'x', &records);
    }
    block
}

/// Seconds with a fraction as PAX has it: -1.5 s is one and a half seconds before 1970.
fn decimal_time(seconds: i64, nanos: u32) -> String {
    if nanos == 0 {
        return seconds.to_string();
    }
    if seconds >= 0 {
        return format!("{seconds}.{nanos:09}");
    }
    // seconds + nanos lies above `seconds`: -2 s and 500,000,000 ns are -1.5 s.
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos)
}

/// Appends a PAX header with these records.
pub(super) fn write_pax(out: &mut Vec<u8>, flag: u8, records: &[(String, Vec<u8>)]) {
    let mut body = Vec::new();
    for (key, value) in records {
        // A record starts with its own length, digits included.
        let rest = key.len() + value.len() + 3;
        let mut total = rest + 1;
        while total != rest + total.to_string().len() {
            total = rest + total.to_string().len();
        }
        body.extend_from_slice(format!("{total} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    let mut block = Block::new(flag, Dialect::Pax);
    block.put(0, b"PaxHeaders/entry");
    block.octal(100, 8, 0o644);
    block.octal(124, 12, length(&body));
    block.append_to(out);
    append_padded(out, &body);
}

fn write_long_name(out: &mut Vec<u8>, flag: u8, name: &[u8]) {
    let mut body = name.to_vec();
    body.push(0);
    let mut block = Block::new(flag, Dialect::Gnu);
    block.put(0, b"././@LongLink");
    block.octal(124, 12, length(&body));
    block.append_to(out);
    append_padded(out, &body);
}
