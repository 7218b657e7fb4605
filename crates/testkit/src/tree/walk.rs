//! The walk.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr, major, minor};
use rustix::io::Errno;

use super::{Entry, Kind, content};

/// Walks the tree below `root` and returns its names in byte order of their paths, the root first.
///
/// # Panics
/// Where anything in it cannot be read; the path is named.
#[must_use]
pub fn snapshot(root: &Path) -> Vec<Entry> {
    let mut names = vec![PathBuf::from(".")];
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let dir = root.join(&folder);
        for item in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        {
            let item = item.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
            let path = folder.join(item.file_name());
            if item
                .file_type()
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                .is_dir()
            {
                folders.push(path.clone());
            }
            names.push(path);
        }
    }
    names[1..].sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));

    // Names come in order, so the first of a group is its smallest.
    let mut groups: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut hashes: HashMap<(u64, u64), String> = HashMap::new();
    names
        .into_iter()
        .map(|path| look(root, path, &mut groups, &mut hashes))
        .collect()
}

fn look(
    root: &Path,
    path: PathBuf,
    groups: &mut HashMap<(u64, u64), PathBuf>,
    hashes: &mut HashMap<(u64, u64), String>,
) -> Entry {
    let full = root.join(&path);
    let fail = |error: io::Error| -> ! { panic!("{}: {error}", full.display()) };
    let meta = fs::symlink_metadata(&full).unwrap_or_else(|error| fail(error));
    let kind = kind(&meta);
    let inode = (meta.dev(), meta.ino());
    let link_group = if kind == Kind::Directory {
        path.clone()
    } else {
        groups.entry(inode).or_insert_with(|| path.clone()).clone()
    };
    let content = match kind {
        Kind::File => hashes
            .entry(inode)
            .or_insert_with(|| content::hash(&full, meta.len()).unwrap_or_else(|error| fail(error)))
            .clone(),
        _ => String::new(),
    };
    Entry {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        size: if matches!(kind, Kind::File | Kind::Symlink) {
            meta.len()
        } else {
            0
        },
        mtime_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        link_group,
        device: if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            (major(meta.rdev()), minor(meta.rdev()))
        } else {
            (0, 0)
        },
        xattrs: xattrs(&full).unwrap_or_else(|error| fail(error)),
        target: if kind == Kind::Symlink {
            fs::read_link(&full).unwrap_or_else(|error| fail(error))
        } else {
            PathBuf::new()
        },
        content,
        path,
    }
}

fn kind(meta: &Metadata) -> Kind {
    let file_type = meta.file_type();
    if file_type.is_file() {
        Kind::File
    } else if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink
    } else if file_type.is_char_device() {
        Kind::CharDevice
    } else if file_type.is_block_device() {
        Kind::BlockDevice
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else {
        Kind::Socket
    }
}

/// All extended attributes but those that overlayfs keeps for itself.
fn xattrs(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    // Linux limits a list of names, and a value, to 64 KiB (include/uapi/linux/limits.h: XATTR_LIST_MAX, XATTR_SIZE_MAX).
    let mut buffer = vec![0; 1 << 16];
    let bytes = match llistxattr(path, &mut buffer) {
        Ok(bytes) => bytes,
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let names: Vec<String> = buffer[..bytes]
        .split(|byte| *byte == 0)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    let mut found = BTreeMap::new();
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
            continue;
        }
        let bytes = lgetxattr(path, &name, &mut buffer)?;
        found.insert(name, buffer[..bytes].to_vec());
    }
    Ok(found)
}
