//! Our reader: gives back what was written, and errors for everything else.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use uimgacc_erofs::format::{SUPERBLOCK_OFFSET, superblock_checksum};
use uimgacc_erofs::{Limits, ReadError, Tree, WriteError, Wrong, read, write};

use crate::{random, samples};

fn image(tree: &Tree) -> Vec<u8> {
    let mut image = Vec::new();
    write(tree, &mut image).unwrap();
    image
}

fn run<T: std::fmt::Debug>(cases: u32, strategy: impl Strategy<Value = T>, test: impl Fn(T)) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn check_round_trip(tree: &Tree) {
    let written = image(tree);
    let found = read(&written, &Limits::default()).unwrap();
    assert!(found == tree.normalized().unwrap());
    assert!(image(&found) == written, "the same tree gave other bytes");
}

#[test]
fn reads_back_every_sample() {
    for (name, tree) in samples::all() {
        println!("sample {name}");
        check_round_trip(&tree);
    }
}

#[test]
fn reads_back_random_trees() {
    run(256, random::trees(), |tree| check_round_trip(&tree));
}

/// Makes the checksum right again, so that damage is met further in.
fn fix_checksum(image: &mut [u8]) {
    let Some(block) = image.get_mut(SUPERBLOCK_OFFSET..4096) else {
        return;
    };
    block[4..8].fill(0);
    let checksum = superblock_checksum(block);
    block[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Whatever reads must be a tree that can be written and reads the same.
fn check_hostile(image: &[u8]) {
    let limits = Limits {
        max_inodes: 5000,
        max_names: 5000,
        max_bytes: 1 << 20,
    };
    let Ok(tree) = read(image, &limits) else {
        return;
    };
    let mut again = Vec::new();
    match write(&tree, &mut again) {
        Ok(_) => assert!(read(&again, &limits) == Ok(tree)),
        // Shared xattrs of one inode alone: the writer would put them beside it.
        Err(WriteError::Inode {
            wrong: Wrong::XattrsTooLarge { .. },
            ..
        }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn damaged_images_never_panic() {
    let damage = (
        any::<Index>(),
        prop_oneof![any::<u8>(), Just(0), Just(0xFF), Just(1)],
    );
    let damages = proptest::collection::vec(damage, 1..12);
    run(
        256,
        (random::trees_of(8), damages, any::<Index>()),
        |(tree, damages, cut)| {
            let whole = image(&tree);
            let mut image = whole.clone();
            for (at, byte) in &damages {
                let at = at.index(image.len() - SUPERBLOCK_OFFSET) + SUPERBLOCK_OFFSET;
                image[at] = *byte;
                fix_checksum(&mut image);
                check_hostile(&image);
            }
            check_hostile(&whole[..cut.index(whole.len())]);
        },
    );
}

/// Every bit that a small image has: what is not an error must still be a tree.
#[test]
fn every_flipped_bit_is_survived() {
    let whole = image(&samples::overlay());
    for at in SUPERBLOCK_OFFSET..whole.len() {
        // In the middle of padding one bit stands for all.
        let near = &whole[at - 16..whole.len().min(at + 16)];
        let bits = if near.iter().all(|&byte| byte == 0) {
            1
        } else {
            8
        };
        for bit in 0..bits {
            let mut image = whole.clone();
            image[at] ^= 1 << bit;
            if (SUPERBLOCK_OFFSET..4096).contains(&at) {
                let found = read(&image, &Limits::default());
                // Not where the flag of the checksum itself is gone.
                let flag = at == SUPERBLOCK_OFFSET + 8 && bit == 0;
                let magic = at < SUPERBLOCK_OFFSET + 4;
                assert!(flag || magic || matches!(found, Err(ReadError::Checksum { .. })));
            }
            fix_checksum(&mut image);
            check_hostile(&image);
        }
    }
}

#[test]
fn limits_hold() {
    let tree = samples::every_kind().normalized().unwrap();
    let image = image(&tree);
    let all = Limits::default();
    let inodes = u32::try_from(tree.len()).unwrap();
    let limit = |limits: Limits| match read(&image, &limits) {
        Err(ReadError::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert!(
        read(
            &image,
            &Limits {
                max_inodes: inodes,
                ..all
            }
        )
        .is_ok()
    );
    assert_eq!(
        limit(Limits {
            max_inodes: inodes - 1,
            ..all
        }),
        "inodes"
    );
    assert_eq!(
        limit(Limits {
            max_names: 3,
            ..all
        }),
        "names"
    );
    let bytes = limit(Limits {
        max_bytes: 4000,
        ..all
    });
    assert_eq!(bytes, "bytes of names, contents and xattrs");
}

#[test]
fn no_image_is_named() {
    for bytes in [&b""[..], &[0; 100], &[0; 4096], &[0xFF; 10_000]] {
        assert_eq!(
            read(bytes, &Limits::default()),
            Err(ReadError::NoSuperblock)
        );
    }
}
