//! Any bytes as an image: an error, or a tree that can be written and reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uimgacc_erofs::format::{SUPERBLOCK_OFFSET, superblock_checksum};
use uimgacc_erofs::{Limits, WriteError, Wrong, read, write};

const LIMITS: Limits = Limits {
    max_inodes: 2000,
    max_names: 2000,
    max_bytes: 1 << 20,
};

fuzz_target!(|data: &[u8]| {
    // A right checksum, so that the fuzzer gets past it.
    let mut image = data.to_vec();
    if let Some(block) = image.get_mut(SUPERBLOCK_OFFSET..4096) {
        block[4..8].fill(0);
        let checksum = superblock_checksum(block);
        block[4..8].copy_from_slice(&checksum.to_le_bytes());
    }
    let Ok(tree) = read(&image, &LIMITS) else {
        return;
    };
    let mut written = Vec::new();
    match write(&tree, &mut written) {
        Ok(_) => {}
        // Shared xattrs of one inode alone: the writer would put them beside it.
        Err(WriteError::Inode {
            wrong: Wrong::XattrsTooLarge { .. },
            ..
        }) => return,
        Err(error) => panic!("a tree that was read cannot be written: {error}"),
    }
    let again = read(&written, &Limits::default()).expect("what was written can be read");
    assert!(again == tree);
});
