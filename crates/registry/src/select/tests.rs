use std::collections::BTreeMap;

use proptest::prelude::*;
use uimgacc_types::Digest;

use super::*;
use crate::Descriptor;

fn entry(platform: Option<&str>, at: u64) -> IndexEntry {
    IndexEntry {
        descriptor: Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: Digest::of(&at.to_le_bytes()),
            size: at,
            annotations: BTreeMap::new(),
        },
        platform: platform.map(|text| text.parse().unwrap()),
    }
}

fn index(platforms: &[&str]) -> Vec<IndexEntry> {
    (0..)
        .zip(platforms)
        .map(|(at, text)| entry((*text != "-").then_some(*text), at))
        .collect()
}

fn chosen(platforms: &[&str], wanted: &str) -> Option<u64> {
    choose(&index(platforms), &wanted.parse().unwrap()).map(|entry| entry.descriptor.size)
}

#[test]
fn the_best_match_wins() {
    let all = [
        "linux/386",
        "linux/amd64",
        "linux/arm/v6",
        "linux/arm/v7",
        "linux/arm64/v8",
    ];
    assert_eq!(chosen(&all, "linux/amd64"), Some(1));
    assert_eq!(chosen(&all, "linux/amd64/v3"), Some(1));
    assert_eq!(chosen(&all, "linux/386"), Some(0));
    assert_eq!(chosen(&all, "linux/arm/v7"), Some(3));
    assert_eq!(chosen(&all, "linux/arm/v6"), Some(2));
    assert_eq!(chosen(&all, "linux/arm/v5"), None);
    assert_eq!(chosen(&all, "linux/arm64"), Some(4));
    assert_eq!(chosen(&all, "linux/s390x"), None);
    assert_eq!(chosen(&all, "windows/amd64"), None);
    assert_eq!(chosen(&["linux/386"], "linux/amd64"), Some(0));
    assert_eq!(chosen(&["linux/amd64", "linux/amd64"], "amd64"), Some(0));
}

#[test]
fn attestations_are_no_images() {
    let entries = index(&["unknown/unknown", "linux/amd64"]);
    assert_eq!(available(&entries), ["linux/amd64".parse().unwrap()]);
    assert_eq!(chosen(&["unknown/unknown"], "unknown/unknown"), None);

    let mut marked = entry(Some("linux/amd64"), 7);
    marked
        .descriptor
        .annotations
        .insert(REFERENCE_TYPE.to_owned(), ATTESTATION.to_owned());
    assert_eq!(choose(&[marked], &"linux/amd64".parse().unwrap()), None);
}

#[test]
fn a_lone_entry_without_platform_is_tried() {
    assert_eq!(chosen(&["-"], "amd64"), Some(0));
    assert_eq!(chosen(&["-", "amd64"], "amd64"), Some(1));
    assert_eq!(chosen(&["-", "-"], "amd64"), None);
}

proptest! {
    #[test]
    fn what_is_chosen_is_accepted(
        platforms in proptest::collection::vec(
            proptest::sample::select(vec!["linux/386", "linux/amd64/v2", "amd64", "arm64", "linux/arm/v6", "linux/arm", "unknown/unknown"]), 0..6),
        wanted in proptest::sample::select(vec!["386", "amd64", "linux/amd64/v3", "arm64", "arm", "riscv64"]),
    ) {
        let entries = index(&platforms);
        let wanted: Platform = wanted.parse().unwrap();
        let accepted = wanted.accepted();
        match choose(&entries, &wanted) {
            Some(entry) => prop_assert!(accepted.contains(entry.platform.as_ref().unwrap())),
            None => prop_assert!(!available(&entries).iter().any(|p| accepted.contains(p))),
        }
    }
}
