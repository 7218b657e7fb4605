//! Random trees that the kernel can show: every kind, odd names, large and deep folders, xattrs
//! shared and not, hard links, holes.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use uimgacc_erofs::MAX_INLINE_BYTES;
use uimgacc_erofs::tree::{
    Bytes, ChunkAddress, ChunkedContents, Contents, Device, DeviceNumber, Inode, InodeId, Kind,
    Timestamp, Tree,
};

const DEVICE_BLOCKS: u32 = 64;

/// One step in making a tree.
#[derive(Debug, Clone)]
enum Step {
    Add(Inode),
    /// A second name for an inode that is there.
    Link(Index),
    /// Many small files whose names are `width` bytes long.
    Crowd {
        count: usize,
        width: usize,
    },
    /// Folders in folders.
    Deep(usize),
}

pub(crate) fn trees() -> impl Strategy<Value = Tree> {
    trees_of(50)
}

/// Trees made in fewer than `most` steps.
pub(crate) fn trees_of(most: usize) -> impl Strategy<Value = Tree> {
    let named = (any::<Index>(), names(), steps());
    (0..4_u16, inodes(folders()), vec(named, 0..most)).prop_map(|(devices, root, steps)| {
        let mut tree = Tree::new();
        *tree.inode_mut(Tree::ROOT) = root;
        for number in 0..devices {
            let mut tag = [0; 64];
            tag[..6].copy_from_slice(b"device");
            tag[6] = b'0' + u8::try_from(number).unwrap();
            tree.devices.push(Device {
                tag,
                blocks: DEVICE_BLOCKS,
            });
        }
        for (folder, name, step) in steps {
            take(&mut tree, folder, name, step);
        }
        tree
    })
}

fn take(tree: &mut Tree, folder: Index, name: Bytes, step: Step) {
    let of_kind = |tree: &Tree, folder: bool| -> Vec<InodeId> {
        let all = tree
            .iter()
            .filter(|(_, inode)| inode.is_directory() == folder);
        all.map(|(id, _)| id).collect()
    };
    let folders = of_kind(tree, true);
    let folder = folders[folder.index(folders.len())];
    if tree.inode(folder).entries().unwrap().contains_key(&name) {
        return;
    }
    let id = match step {
        Step::Add(mut inode) => {
            fit_devices(&mut inode, tree.devices.len());
            tree.add(inode).unwrap()
        }
        Step::Link(index) => {
            let files = of_kind(tree, false);
            if files.is_empty() {
                return;
            }
            files[index.index(files.len())]
        }
        Step::Crowd { count, width } => {
            let crowd = tree.add(Inode::empty_directory()).unwrap();
            for number in 0..count {
                let mut inode = Inode::empty_directory();
                inode.kind = Kind::Regular(Contents::Inline(Box::default()));
                let file = tree.add(inode).unwrap();
                let name = format!("{number:0width$}").into_bytes();
                link(tree, crowd, name.into(), file);
            }
            crowd
        }
        Step::Deep(count) => {
            let top = tree.add(Inode::empty_directory()).unwrap();
            let mut folder = top;
            for _ in 0..count {
                let inner = tree.add(Inode::empty_directory()).unwrap();
                link(tree, folder, (*b"d").into(), inner);
                folder = inner;
            }
            top
        }
    };
    link(tree, folder, name, id);
}

pub(crate) fn link(tree: &mut Tree, folder: InodeId, name: Bytes, id: InodeId) {
    tree.inode_mut(folder)
        .entries_mut()
        .unwrap()
        .insert(name, id);
}

/// Moves chunks onto devices that the tree has, or makes holes of them.
fn fit_devices(inode: &mut Inode, devices: usize) {
    let Kind::Regular(Contents::Chunks(contents)) = &mut inode.kind else {
        return;
    };
    for chunk in &mut contents.chunks {
        *chunk = chunk.filter(|_| devices > 0).map(|address| ChunkAddress {
            device: address.device % u16::try_from(devices).unwrap(),
            ..address
        });
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => inodes(kinds()).prop_map(Step::Add),
        8 => inodes(folders()).prop_map(Step::Add),
        3 => any::<Index>().prop_map(Step::Link),
        1 => (1..400_usize, 3..255_usize).prop_map(|(count, width)| Step::Crowd { count, width }),
        1 => (1..30_usize).prop_map(Step::Deep),
    ]
}

/// Any bytes that may be in a name; sometimes long ones, often ones around `.`.
fn names() -> impl Strategy<Value = Bytes> {
    let byte = prop_oneof![
        4 => any::<u8>(),
        1 => select(&b".-,!\n \xFF\x01"[..]),
    ]
    .prop_filter("not in a name", |byte| !matches!(byte, 0 | b'/'));
    let allowed = |name: &Vec<u8>| name != b"." && name != b"..";
    prop_oneof![
        8 => vec(byte.clone(), 1..12),
        1 => vec(byte, 200..=255),
    ]
    .prop_filter("dots", allowed)
    .prop_map(Into::into)
}

fn inodes(kinds: impl Strategy<Value = Kind>) -> impl Strategy<Value = Inode> {
    let owner = || prop_oneof![4 => Just(0), 2 => 0..70_000_u32, 1 => 0..u32::MAX];
    let parts = (0..=0o7777_u16, owner(), owner(), times(), kinds);
    parts.prop_flat_map(|(permissions, uid, gid, mtime, kind)| {
        xattrs(&kind).prop_map(move |xattrs| Inode {
            permissions,
            uid,
            gid,
            mtime,
            xattrs,
            kind: kind.clone(),
        })
    })
}

fn times() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![-(1_i64 << 33)..1 << 33, any::<i64>()];
    prop_oneof![
        3 => Just(Timestamp { seconds: 1_700_000_000, nanoseconds: 5 }),
        1 => (seconds, 0..1_000_000_000_u32)
            .prop_map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds }),
    ]
}

fn folders() -> impl Strategy<Value = Kind> {
    Just(Kind::Directory(BTreeMap::new()))
}

fn kinds() -> impl Strategy<Value = Kind> {
    let device = (0..=4095_u32, 0..=0x000F_FFFF_u32)
        .prop_map(|(major, minor)| DeviceNumber { major, minor });
    let target = prop_oneof![4 => 1..80_usize, 1 => 1..=4095_usize]
        .prop_flat_map(|length| vec(1..=255_u8, length));
    let inline = prop_oneof![
        1 => Just(0_usize),
        6 => 0..300_usize,
        3 => 0..=MAX_INLINE_BYTES,
        1 => Just(MAX_INLINE_BYTES),
    ]
    .prop_flat_map(|length| vec(any::<u8>(), length));
    prop_oneof![
        6 => inline.prop_map(|bytes| Kind::Regular(Contents::Inline(bytes.into()))),
        6 => chunks().prop_map(|chunks| Kind::Regular(Contents::Chunks(chunks))),
        3 => target.prop_map(|target| Kind::Symlink(target.into())),
        1 => device.clone().prop_map(Kind::CharacterDevice),
        1 => Just(Kind::CharacterDevice(DeviceNumber::WHITEOUT)),
        1 => device.prop_map(Kind::BlockDevice),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Socket),
    ]
}

fn chunks() -> impl Strategy<Value = ChunkedContents> {
    let sizes = prop_oneof![4 => 1..200_000_u64, 1 => 1..=4096_u64];
    let logs = prop_oneof![6 => 12..=17_u8, 1 => 18..=43_u8];
    (sizes, logs).prop_flat_map(|(size_bytes, chunk_log2)| {
        let count = usize::try_from(size_bytes.div_ceil(1 << chunk_log2)).unwrap();
        let longest = size_bytes.min(1 << chunk_log2).div_ceil(4096);
        let last = DEVICE_BLOCKS - u32::try_from(longest).unwrap();
        let address = (any::<u16>(), 0..=last).prop_map(|(device, start_block)| ChunkAddress {
            device,
            start_block,
        });
        vec(proptest::option::weighted(0.8, address), count).prop_map(move |chunks| {
            ChunkedContents {
                size_bytes,
                chunk_log2,
                chunks,
            }
        })
    })
}

/// Xattrs that the kernel lets a program read on this kind of inode.
fn xattrs(kind: &Kind) -> impl Strategy<Value = BTreeMap<Bytes, Bytes>> + use<> {
    let plain = matches!(kind, Kind::Directory(_) | Kind::Regular(_));
    let folder = matches!(kind, Kind::Directory(_));
    let suffix = prop_oneof![4 => "[a-c]", 1 => "[ -~]{1,200}"];
    let prefix = if plain {
        select(vec!["user.", "trusted.", "security."])
    } else {
        select(vec!["trusted.", "security."])
    };
    let name =
        (prefix, suffix).prop_map(|(prefix, suffix)| format!("{prefix}{suffix}").into_bytes());
    let value = prop_oneof![
        4 => select(vec![&b""[..], b"y", b"a value that is long enough to be shared"])
            .prop_map(<[u8]>::to_vec),
        2 => vec(any::<u8>(), 0..100),
        1 => vec(any::<u8>(), 0..9000),
    ];
    let some = btree_map(name, value, 1..8);
    let many = btree_map(
        "trusted\\.[a-z]{3}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..3),
        260..300,
    );
    let pairs = prop_oneof![
        12 => Just(BTreeMap::new()),
        6 => some,
        1 => many,
    ];
    (pairs, any::<[bool; 4]>()).prop_map(
        move |(mut pairs, [capability, access, default, opaque])| {
            if capability && plain && !folder {
                pairs.insert(b"security.capability".to_vec(), CAPABILITY.to_vec());
            }
            if access && plain {
                pairs.insert(b"system.posix_acl_access".to_vec(), ACL.to_vec());
            }
            if default && folder {
                pairs.insert(b"system.posix_acl_default".to_vec(), ACL.to_vec());
            }
            if opaque && folder {
                pairs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
            }
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect()
        },
    )
}

/// A file capability of version 2: `cap_net_bind_service=ep`.
pub(crate) const CAPABILITY: [u8; 20] =
    [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An ACL of version 2: owner, user 1000, group, mask, others.
pub(crate) const ACL: [u8; 44] = {
    let entries: [[u8; 8]; 5] = [
        [0x01, 0, 7, 0, 0xFF, 0xFF, 0xFF, 0xFF],
        [0x02, 0, 5, 0, 0xE8, 0x03, 0, 0],
        [0x04, 0, 5, 0, 0xFF, 0xFF, 0xFF, 0xFF],
        [0x10, 0, 7, 0, 0xFF, 0xFF, 0xFF, 0xFF],
        [0x20, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
    ];
    let mut acl = [0; 44];
    acl[0] = 2;
    let mut index = 0;
    while index < 40 {
        acl[4 + index] = entries[index / 8][index % 8];
        index += 1;
    }
    acl
};
