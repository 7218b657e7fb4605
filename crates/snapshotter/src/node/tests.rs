use uimgacc_store::{ChainLayer, ChainRecord};
use uimgacc_types::{DiffId, Digest, chain_ids};

use super::taking::lies_on;
use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn the_owner_of_a_mapped_root() {
    let owner = |uid, gid| Some(Owner { uid, gid });
    for (uids, gids, expected) in [
        ("0:1000:65536", "0:2000:65536", owner(1000, 2000)),
        ("5:1:1,0:7:1", "0:8:2", owner(7, 8)),
    ] {
        let mapped = labels(&[(UID_MAPPING_LABEL, uids), (GID_MAPPING_LABEL, gids)]);
        assert_eq!(mapped_owner(&mapped).unwrap(), expected);
    }
    assert_eq!(mapped_owner(&Labels::new()).unwrap(), None);
    for bad in [
        labels(&[(UID_MAPPING_LABEL, "0:1:1")]),
        labels(&[(UID_MAPPING_LABEL, "0:1"), (GID_MAPPING_LABEL, "0:1:1")]),
        labels(&[(UID_MAPPING_LABEL, "0:1:0"), (GID_MAPPING_LABEL, "0:1:1")]),
        labels(&[(UID_MAPPING_LABEL, "1:1:1"), (GID_MAPPING_LABEL, "0:1:1")]),
        labels(&[(UID_MAPPING_LABEL, "0:-1:1"), (GID_MAPPING_LABEL, "0:1:1")]),
        labels(&[(UID_MAPPING_LABEL, ""), (GID_MAPPING_LABEL, "0:1:1")]),
    ] {
        assert!(mapped_owner(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_chain_is_taken_only_on_the_chain_below_it() {
    let diff_ids = [1, 2, 3].map(|seed| DiffId::from_bytes([seed; 32]));
    let chains = chain_ids(&diff_ids);
    let record = |length: usize| ChainRecord {
        chain_id: chains[length - 1],
        layers: diff_ids[..length]
            .iter()
            .map(|diff_id| ChainLayer {
                diff_id: *diff_id,
                index_digest: Digest::of(b""),
            })
            .collect(),
        index: None,
    };
    let mut state = State::new([], 1);
    let time = now();
    // One from the store, one unpacked here under containerd's name, one of any name.
    let change = state.create_remote(chains[0], "remote", None, Labels::new(), time);
    state.apply(&change.unwrap().unwrap());
    let local = format!("default/7/{}", chains[1]);
    for (key, name) in [("a", local.as_str()), ("b", "other")] {
        let (change, _) = state
            .create(Kind::Active, key, None, Labels::new(), time)
            .unwrap();
        state.apply(&change);
        let change = state.commit(name, key, Usage::default(), Labels::new(), time);
        state.apply(&change.unwrap());
    }
    for (length, parent, expected) in [
        (1, None, true),
        (1, Some("remote"), false),
        (2, Some("remote"), true),
        (2, None, false),
        (2, Some(local.as_str()), false),
        (3, Some(local.as_str()), true),
        (3, Some("remote"), false),
        (2, Some("other"), false),
        (2, Some("missing"), false),
    ] {
        assert_eq!(
            lies_on(&state, &record(length), parent),
            expected,
            "{length} layers on {parent:?}"
        );
    }
}
