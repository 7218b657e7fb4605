//! A tree as a program sees it, so that what went in can be compared with what a reader shows.

use std::collections::BTreeMap;

use uimgacc_erofs::tree::{DeviceNumber, Inode, InodeId, Kind, Tree};

use crate::devices;

/// How many bytes of a file's beginning and of its end are compared.
pub(crate) const WINDOW_BYTES: usize = 1 << 18;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u64,
    pub(crate) mtime: (i64, i64),
    /// Not of folders.
    pub(crate) size: u64,
    pub(crate) device: Option<(u32, u32)>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) first: Vec<u8>,
    pub(crate) last: Vec<u8>,
    /// The least path of the same inode.
    pub(crate) least_path: Vec<u8>,
}

pub(crate) type Paths = BTreeMap<Vec<u8>, Seen>;

/// What every reader must see of a tree.
pub(crate) fn expected(tree: &Tree) -> Paths {
    let mut names: BTreeMap<Vec<u8>, InodeId> = BTreeMap::new();
    let mut open = vec![(Vec::new(), Tree::ROOT)];
    while let Some((path, id)) = open.pop() {
        for (name, &child) in tree.inode(id).entries().into_iter().flatten() {
            let path = [&path[..], b"/", name].concat();
            open.push((path, child));
        }
        names.insert(path, id);
    }
    let mut least: BTreeMap<InodeId, (Vec<u8>, u64)> = BTreeMap::new();
    for (path, id) in &names {
        least.entry(*id).or_insert_with(|| (path.clone(), 0)).1 += 1;
    }
    names
        .iter()
        .map(|(path, id)| {
            let (least_path, count) = &least[id];
            (
                path.clone(),
                seen(tree, tree.inode(*id), least_path.clone(), *count),
            )
        })
        .collect()
}

fn seen(tree: &Tree, inode: &Inode, least_path: Vec<u8>, names: u64) -> Seen {
    let (kind_mode, size, device) = match &inode.kind {
        Kind::Directory(_) => (0o040_000, 0, None),
        Kind::Regular(_) => (0o100_000, file_size(&inode.kind), None),
        Kind::Symlink(target) => (0o120_000, target.len() as u64, None),
        Kind::CharacterDevice(number) => (0o020_000, 0, Some(pair(*number))),
        Kind::BlockDevice(number) => (0o060_000, 0, Some(pair(*number))),
        Kind::Fifo => (0o010_000, 0, None),
        Kind::Socket => (0o140_000, 0, None),
    };
    let folders = inode.entries().into_iter().flatten();
    let folders = folders
        .filter(|&(_, &id)| tree.inode(id).is_directory())
        .count() as u64;
    Seen {
        mode: kind_mode | u32::from(inode.permissions),
        uid: inode.uid,
        gid: inode.gid,
        links: if inode.is_directory() {
            2 + folders
        } else {
            names
        },
        mtime: (inode.mtime.seconds, inode.mtime.nanoseconds.into()),
        size,
        device,
        xattrs: inode
            .xattrs
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
        target: match &inode.kind {
            Kind::Symlink(target) => Some(target.to_vec()),
            _ => None,
        },
        first: devices::contents(&inode.kind, 0, WINDOW_BYTES),
        last: devices::contents(
            &inode.kind,
            size.saturating_sub(WINDOW_BYTES as u64),
            WINDOW_BYTES,
        ),
        least_path,
    }
}

fn pair(number: DeviceNumber) -> (u32, u32) {
    (number.major, number.minor)
}

fn file_size(kind: &Kind) -> u64 {
    use uimgacc_erofs::tree::Contents;
    match kind {
        Kind::Regular(Contents::Inline(bytes)) => bytes.len() as u64,
        Kind::Regular(Contents::Chunks(chunks)) => chunks.size_bytes,
        _ => 0,
    }
}

/// Fails with the first difference, not with both trees.
pub(crate) fn assert_same(expected: &Paths, found: &Paths) {
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    for (path, expected) in expected {
        let found = found.get(path);
        let found = found.unwrap_or_else(|| panic!("{:?} is missing", shown(path)));
        if expected != found {
            let mut expected = expected.clone();
            let mut found = found.clone();
            let same = expected.first == found.first && expected.last == found.last;
            for seen in [&mut expected, &mut found] {
                seen.first.truncate(64);
                seen.last.truncate(64);
            }
            panic!(
                "{:?} (contents same: {same})\nexpected {expected:?}\nfound    {found:?}",
                shown(path)
            );
        }
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{:?} is too much", shown(path));
    }
}
