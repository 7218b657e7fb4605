use std::io::Read as _;

use proptest::prelude::*;
use uimgacc_types::{ChainId, ContentHash, Digest};

use super::*;

fn profile(files: Vec<FileReads>) -> Profile {
    Profile {
        version: VERSION,
        chain_id: ChainId::from_bytes([7; 32]),
        platform: "linux/amd64".to_owned(),
        recorded: "2026-11-29T00:00:00Z".to_owned(),
        origin: "a test".to_owned(),
        read_ahead_kb: 16,
        starts: 1,
        files,
    }
}

fn file(path: &str, runs: &[(u32, u32)]) -> FileReads {
    FileReads {
        path: path.to_owned(),
        content: None,
        starts: 1,
        runs: runs.iter().copied().map(Run::from).collect(),
    }
}

#[test]
fn what_is_encoded_is_decoded() {
    let all = profile(vec![
        file("bin/a", &[(0, 1), (2, 5)]),
        file("lib/b c", &[(7, u32::MAX >> 15)]),
    ]);
    assert_eq!(Profile::decode(&all.encode().unwrap()).unwrap(), all);
    assert_eq!(all.runs(), 3);
    assert_eq!(all.len_bytes(), (6 + u64::from(u32::MAX >> 15)) * 4096);
}

#[test]
fn what_is_impossible_is_refused() {
    for (path, runs) in [
        ("", &[(0, 1)][..]),
        ("/etc/shadow", &[(0, 1)]),
        ("../etc/shadow", &[(0, 1)]),
        ("a/../../b", &[(0, 1)]),
        ("a//b", &[(0, 1)]),
        ("a/./b", &[(0, 1)]),
        ("a\0b", &[(0, 1)]),
        ("a", &[]),
        ("a", &[(0, 0)]),
        ("a", &[(1, 1), (0, 1)]),
        ("a", &[(0, 2), (1, 1)]),
        ("a", &[(0, 1), (1, 1)]),
        ("a", &[(u32::MAX, u32::MAX)]),
    ] {
        let text = serde_json::to_vec(&profile(vec![file(path, runs)])).unwrap();
        let refused = Profile::from_json(&text);
        assert!(
            matches!(refused, Err(DecodeError::Bounds(_))),
            "{path:?} {runs:?}: {refused:?}"
        );
    }
    let many = vec![file("a", &[(0, 1)]); MAX_RUNS + 1];
    assert!(matches!(
        profile(many).encode(),
        Err(DecodeError::Bounds(_))
    ));
    let newer = Profile {
        version: 2,
        ..profile(Vec::new())
    };
    assert!(matches!(newer.encode(), Err(DecodeError::Version(2))));
}

#[test]
fn a_bomb_is_refused() {
    let bomb = zstd::encode_all(std::io::repeat(b' ').take(1 << 30), 1).unwrap();
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(
        Profile::decode(&bomb),
        Err(DecodeError::TooLong(_))
    ));
}

#[test]
fn what_most_starts_read_comes_first() {
    let first = profile(vec![
        file("once", &[(0, 4)]),
        file("twice", &[(0, 1), (9, 1)]),
    ]);
    let second = profile(vec![
        file("new", &[(3, 1)]),
        file("twice", &[(1, 4), (7, 2)]),
    ]);
    let both = first.merged_with(second);
    assert_eq!(both.starts, 2);
    let expected = vec![
        FileReads {
            starts: 2,
            ..file("twice", &[(0, 5), (7, 3)])
        },
        file("once", &[(0, 4)]),
        file("new", &[(3, 1)]),
    ];
    assert_eq!(both.files, expected);
}

#[test]
fn a_tenth_is_worth_writing() {
    let old = profile(vec![file("a", &[(0, 100)])]);
    assert!(!old.differs_from(&old));
    assert!(!old.differs_from(&profile(vec![file("a", &[(0, 105)])])));
    assert!(old.differs_from(&profile(vec![file("a", &[(0, 120)])])));
    assert!(old.differs_from(&profile(vec![file("b", &[(0, 100)])])));
    assert!(!profile(Vec::new()).differs_from(&profile(Vec::new())));
}

#[test]
fn what_is_beyond_the_bounds_is_dropped_from_the_end() {
    let pages = u32::try_from(MAX_BYTES / PAGE_BYTES).unwrap();
    let files = vec![
        file("a", &[(0, 10)]),
        file("b", &[(0, pages - 20), (pages, 20)]),
        file("c", &[(0, 1)]),
    ];
    let kept = profile(files).within_bounds();
    let expected = vec![file("a", &[(0, 10)]), file("b", &[(0, pages - 20)])];
    assert_eq!(kept.files, expected);
    kept.encode().unwrap();
}

#[test]
fn pages_behind_the_end_are_cut() {
    for (run, file_bytes, left) in [
        ((0, 4), 16384, 4),
        ((0, 4), 16383, 4),
        ((0, 4), 12288, 3),
        ((1, 4), 4096, 0),
        ((9, u32::MAX), 1, 0),
        ((0, u32::MAX), u64::MAX, u32::MAX),
    ] {
        let mut cut = Run::from(run);
        assert_eq!(cut.cut(file_bytes), left > 0, "{run:?} {file_bytes}");
        assert_eq!(cut.pages, left, "{run:?} {file_bytes}");
    }
}

#[test]
fn a_record_becomes_a_profile_of_one_start() {
    let files = vec![
        FileReads {
            starts: 9,
            content: Some(ContentHash::from_bytes([9; 32])),
            ..file("bin/a", &[(0, 1)])
        },
        file("lib/b", &[(3, 2)]),
    ];
    let record = Record::new(128, files);
    let record = Record::decode(&record.encode().unwrap()).unwrap();
    let expected = Profile {
        read_ahead_kb: 128,
        ..profile(vec![file("bin/a", &[(0, 1)]), file("lib/b", &[(3, 2)])])
    };
    let chain = ChainId::from_bytes([7; 32]);
    let texts = ["linux/amd64", "a test", "2026-11-29T00:00:00Z"].map(str::to_owned);
    let [platform, origin, recorded] = texts;
    let made = record.into_profile(chain, platform, origin, recorded);
    assert_eq!(made, expected);
}

#[test]
fn a_record_that_is_too_long_loses_its_last_files() {
    // Names that do not compress.
    let name = |number: u64| {
        let hash = |part: u64| Digest::of(&(number * 4 + part).to_le_bytes()).hex();
        (0..4).map(hash).collect::<Vec<_>>().join("/")
    };
    let files: Vec<FileReads> = (0..9000)
        .map(|number| file(&name(number), &[(0, 1)]))
        .collect();
    let record = Record::new(128, files.clone());
    let bytes = record.encode().unwrap();
    assert!(bytes.len() as u64 <= MAX_RECORD_BYTES);
    let record = Record::decode(&bytes).unwrap();
    let chain = ChainId::from_bytes([7; 32]);
    let kept = record
        .into_profile(chain, String::new(), String::new(), String::new())
        .files;
    assert!(kept.len() > 500 && kept[..] == files[..kept.len()]);
}

#[test]
fn hostile_records_are_refused() {
    let bomb = zstd::encode_all(std::io::repeat(b' ').take(1 << 30), 1).unwrap();
    assert!((bomb.len() as u64) < MAX_RECORD_BYTES);
    assert!(matches!(
        Record::decode(&bomb),
        Err(DecodeError::TooLong(_))
    ));
    for text in [
        r#"{"version":2,"readAheadKb":1,"files":[]}"#,
        r#"{"version":1,"readAheadKb":1,"files":[{"path":"../x","starts":1,"runs":[[0,1]]}]}"#,
        r#"{"version":1,"readAheadKb":1,"files":[{"path":"x","starts":1,"runs":[[0,4294967295]]}]}"#,
        r#"{"version":1,"readAheadKb":1,"files":[],"chainId":"sha256:0"}"#,
    ] {
        let bytes = zstd::encode_all(text.as_bytes(), 1).unwrap();
        assert!(Record::decode(&bytes).is_err(), "{text}");
    }
}

fn runs() -> impl Strategy<Value = Vec<(u32, u32)>> {
    proptest::collection::vec((1u32..50, 1u32..9), 1..20).prop_map(|steps| {
        let mut end = 0;
        steps
            .into_iter()
            .map(|(gap, pages)| {
                let first = end + gap;
                end = first + pages;
                (first, pages)
            })
            .collect()
    })
}

fn pages(runs: &[Run]) -> std::collections::BTreeSet<u64> {
    runs.iter()
        .flat_map(|run| u64::from(run.first)..run.end())
        .collect()
}

proptest! {
    #[test]
    fn a_merge_has_the_pages_of_both(a in runs(), b in runs()) {
        let (a, b) = (file("x", &a), file("x", &b));
        let both: std::collections::BTreeSet<u64> =
            pages(&a.runs).union(&pages(&b.runs)).copied().collect();
        let merged = profile(vec![a]).merged_with(profile(vec![b]));
        prop_assert_eq!(pages(&merged.files[0].runs), both);
        merged.encode().unwrap();
    }

    #[test]
    fn any_bytes_are_refused_or_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Profile::decode(&bytes);
        let _ = Profile::from_json(&bytes);
        let _ = Record::decode(&bytes);
    }
}
