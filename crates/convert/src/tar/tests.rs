use proptest::prelude::*;

use super::header::number;
use super::*;

/// A header block with a right checksum.
pub(crate) fn block(name: &str, flag: u8, size: u64, magic: &[u8]) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000012\0");
    put(156, &[flag]);
    put(257, magic);
    put(148, b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    format!("{length}{rest}")
}

const USTAR: &[u8] = b"ustar\x0000";
const GNU: &[u8] = b"ustar  \0";

fn pax_then(records: &str, file: [u8; BLOCK], content: &[u8]) -> Vec<u8> {
    let mut tar = block("pax", b'x', records.len() as u64, USTAR).to_vec();
    tar.extend(padded(records.as_bytes()));
    tar.extend(file);
    tar.extend(padded(content));
    tar.extend([0; 2 * BLOCK]);
    tar
}

fn only(tar: &[u8]) -> Result<(Entry, Vec<u8>), TarError> {
    let mut reader = TarReader::new(tar);
    let entry = reader.next_entry()?.expect("an entry");
    let mut content = Vec::new();
    reader.read_to_end(&mut content).expect("from memory");
    assert!(reader.next_entry()?.is_none());
    Ok((entry, content))
}

#[test]
fn times_before_1970_and_fractions() {
    for (text, seconds, nanoseconds) in [
        ("-1.25", -2, 750_000_000),
        ("-3", -3, 0),
        ("0.000000001", 0, 1),
        ("12.1234567899", 12, 123_456_789),
    ] {
        let tar = pax_then(&record("mtime", text), block("f", b'0', 0, USTAR), b"");
        let (entry, _) = only(&tar).unwrap();
        assert_eq!(
            entry.mtime,
            Timestamp {
                seconds,
                nanoseconds
            },
            "{text}"
        );
    }
    for text in ["x", "1.x", "", "1e3"] {
        let tar = pax_then(&record("mtime", text), block("f", b'0', 0, USTAR), b"");
        // An empty record takes back what other headers said: the time of the header stays.
        assert_eq!(only(&tar).is_ok(), text.is_empty(), "{text}");
    }
}

#[test]
fn base_256_numbers() {
    let mut field = [0xff; 12];
    assert_eq!(number(&field), Ok(-1));
    field = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(number(&field), Ok(256));
    field = [0x80, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(number(&field).is_err());
    assert_eq!(number(b"0000644\0"), Ok(0o644));
    assert_eq!(number(b"  644 \0 "), Ok(0o644));
    assert_eq!(number(b"\0\0\0"), Ok(0));
    assert!(number(b"9").is_err());
}

#[test]
fn long_names_and_xattrs() {
    let long = "d/".repeat(120) + "f";
    let mut tar = block("././@LongLink", b'L', long.len() as u64 + 1, GNU).to_vec();
    tar.extend(padded(format!("{long}\0").as_bytes()));
    tar.extend(block("cut", b'0', 2, GNU));
    tar.extend(padded(b"hi"));
    let (entry, content) = only(&tar).unwrap();
    assert_eq!((entry.name, content), (long.into_bytes(), b"hi".to_vec()));

    let records = record("SCHILY.xattr.user.a", "x=y\n") + &record("SCHILY.xattr.user.b", "");
    let (entry, _) = only(&pax_then(&records, block("f", b'0', 0, USTAR), b"")).unwrap();
    let expected = vec![
        (b"user.a".to_vec(), b"x=y\n".to_vec()),
        (b"user.b".to_vec(), Vec::new()),
    ];
    assert_eq!(entry.xattrs, expected);
}

#[test]
fn sparse_files_of_every_kind() {
    let expected = vec![
        Segment {
            offset_bytes: 4096,
            len_bytes: 3,
        },
        Segment {
            offset_bytes: 1 << 40,
            len_bytes: 2,
        },
    ];
    let map = format!("4096,3,{},2", 1u64 << 40);
    let size = ((1u64 << 40) + 2).to_string();
    let v0_1 = record("GNU.sparse.map", &map) + &record("GNU.sparse.size", &size);
    let v0_0 = [
        ("offset", "4096"),
        ("numbytes", "3"),
        ("offset", "1099511627776"),
        ("numbytes", "2"),
    ]
    .iter()
    .map(|(key, value)| record(&format!("GNU.sparse.{key}"), value))
    .collect::<String>()
        + &record("GNU.sparse.size", &size);
    let v1_0 = record("GNU.sparse.major", "1")
        + &record("GNU.sparse.minor", "0")
        + &record("GNU.sparse.name", "real")
        + &record("GNU.sparse.realsize", &size);
    let map_1_0 = padded(format!("2\n4096\n3\n{}\n2\n", 1u64 << 40).as_bytes());
    let content_1_0 = [map_1_0.as_slice(), b"abcde"].concat();
    let mut old = block("f", b'S', 5, GNU);
    old[386..398].copy_from_slice(b"00000010000\0");
    old[398..410].copy_from_slice(b"00000000003\0");
    old[410..422].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    old[422..434].copy_from_slice(b"00000000002\0");
    old[483..495].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2]);
    old[148..156].copy_from_slice(b"        ");
    let sum: u32 = old.iter().map(|byte| u32::from(*byte)).sum();
    old[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let old = [old.as_slice(), &padded(b"abcde")].concat();
    for (name, tar) in [
        ("f", pax_then(&v0_1, block("f", b'0', 5, USTAR), b"abcde")),
        ("f", pax_then(&v0_0, block("f", b'0', 5, USTAR), b"abcde")),
        (
            "real",
            pax_then(
                &v1_0,
                block("f", b'0', content_1_0.len() as u64, USTAR),
                &content_1_0,
            ),
        ),
        ("f", old),
    ] {
        let (entry, content) = only(&tar).unwrap();
        assert_eq!(entry.name, name.as_bytes());
        assert_eq!(entry.size_bytes, (1 << 40) + 2);
        assert_eq!(entry.sparse.as_ref(), Some(&expected));
        assert_eq!(content, b"abcde");
    }
    let overlapping = record("GNU.sparse.map", "0,3,2,2") + &record("GNU.sparse.size", "9");
    assert!(
        only(&pax_then(
            &overlapping,
            block("f", b'0', 5, USTAR),
            b"abcde"
        ))
        .is_err()
    );
}

#[test]
fn damage_is_named() {
    let tar = pax_then("", block("f", b'0', 700, USTAR), &[1; 700]);
    for end in 513..tar.len() {
        let result = only(&tar[..end]);
        let message = result.as_ref().map_err(ToString::to_string);
        match end {
            // At a block's end the archive may end.
            512 => {}
            ..1024 => assert!(message.unwrap_err().contains("a header"), "{end}"),
            1024..1724 => assert!(result.is_err(), "{end}"),
            // In the padding it may end as well: Go takes that.
            1724..=2048 | 2560 => assert!(result.is_ok(), "{end}"),
            _ => assert!(result.is_err(), "{end}"),
        }
    }
    let mut tar = tar;
    tar[600] ^= 1;
    assert!(only(&tar).unwrap_err().to_string().contains("checksum"));
}

/// A header with other bytes in it, and the sum that they make.
fn patched(mut block: [u8; BLOCK], at: usize, bytes: &[u8]) -> [u8; BLOCK] {
    block[at..at + bytes.len()].copy_from_slice(bytes);
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn prefixes_in_gnu_headers_of_old_go() {
    let name = |header: [u8; BLOCK]| {
        let tar = [header.as_slice(), &[0; 2 * BLOCK]].concat();
        String::from_utf8(only(&tar).unwrap().0.name).unwrap()
    };
    let gnu = block("file", b'0', 0, GNU);
    let long = "a/folder/".repeat(16);
    let long = long.trim_end_matches('/');
    assert_eq!(
        name(patched(gnu, 345, long.as_bytes())),
        format!("{long}/file")
    );
    assert_eq!(name(patched(gnu, 345, b"short\0")), "short/file");
    // Real times, octal or in base 256; one of them unused; what is no ASCII.
    assert_eq!(
        name(patched(gnu, 345, b"13712345670\x0013712345670\0")),
        "file"
    );
    let base_256 = [0x80, 0, 0, 0, 0, 0, 0, 0, 0x5f, 0, 0, 0];
    assert_eq!(name(patched(gnu, 345, &base_256)), "file");
    assert_eq!(name(patched(gnu, 357, b"13712345670\0")), "file");
    assert_eq!(name(patched(gnu, 345, "größe".as_bytes())), "file");
}

#[test]
fn empty_pieces_at_the_end_of_a_map_are_dropped() {
    // The map of `truncate -s 10G; printf data | dd conv=notrunc` as GNU tar writes it.
    let records =
        record("GNU.sparse.map", "0,4,10737418240,0") + &record("GNU.sparse.size", "10737418240");
    let tar = pax_then(&records, block("f", b'0', 4, USTAR), b"data");
    let (entry, _) = only(&tar).unwrap();
    let expected = [Segment {
        offset_bytes: 0,
        len_bytes: 4,
    }];
    assert_eq!(entry.sparse.as_deref(), Some(&expected[..]));
    assert_eq!(entry.size_bytes, 10 << 30);
}

proptest! {
    /// Whatever comes, there is an entry, an end or an error.
    #[test]
    fn noise_never_panics(
        mut tar in proptest::collection::vec(any::<u8>(), 0..4096),
        flag in proptest::sample::select(&b"0125xLKgSD\0"[..]),
        size in 0u64..2000,
    ) {
        let header = block("n", flag, size, GNU);
        tar.splice(..0, header);
        let mut reader = TarReader::new(tar.as_slice());
        while let Ok(Some(_)) = reader.next_entry() {}
    }

    #[test]
    fn pax_noise_never_panics(body in "[0-9]{1,3} (path|size|mtime|GNU.sparse.map|GNU.sparse.offset)=[-0-9.,a]{0,9}\n") {
        let _ = only(&pax_then(&body, block("f", b'0', 0, USTAR), b""));
    }
}
