//! Owner, mode, time and xattrs of an entry, as Linux takes them from containerd: pure.

use uimgacc_erofs::tree::{Inode, Kind, Timestamp};
use uimgacc_store::acl;

use crate::tar::Entry;

const CAPABILITY: &[u8] = b"security.capability";
/// Longest value that an index can hold.
const MAX_VALUE_BYTES: usize = u16::MAX as usize;
/// Linux `XATTR_NAME_MAX`.
const MAX_XATTR_NAME_BYTES: usize = 255;
/// The latest second of containerd: the end of 64 bits of nanoseconds. Later times become 0.
const MAX_SECONDS: i64 = i64::MAX / 1_000_000_000;

/// The time that a file gets: containerd's, but for times before 1970, which it makes 1970.
pub(super) fn bounded(time: Timestamp) -> Timestamp {
    if time.seconds > MAX_SECONDS {
        return Timestamp::default();
    }
    time
}

/// Sets on a new inode what Linux gives it from its folder: of a default ACL the access ACL, and
/// to folders the default one. Mode and owner come from the entry later.
pub(super) fn inherit(inode: &mut Inode, folder: &Inode) {
    let Some(default) = folder.xattrs.get(acl::DEFAULT) else {
        return;
    };
    if matches!(inode.kind, Kind::Symlink(_)) {
        return;
    }
    if inode.is_directory() {
        inode.xattrs.insert(acl::DEFAULT.into(), default.clone());
    }
    if acl::check(default) == Ok(acl::Meaning::More) {
        let access = acl::with_mode(default, inode.permissions);
        inode.xattrs.insert(acl::ACCESS.into(), access);
    }
}

/// What a folder that an entry needs but the tar does not name gets from its own folder: besides
/// ACLs the group, where that folder is setgid (the bit itself goes with containerd's chmod).
pub(super) fn inherit_implied(inode: &mut Inode, folder: &Inode) {
    const SET_GID: u16 = 0o2000;
    inherit(inode, folder);
    if folder.permissions & SET_GID != 0 {
        inode.gid = folder.gid;
    }
}

/// Sets what `entry` says on `inode`, in the kernel's order: owner, xattrs, mode, time.
///
/// # Errors
/// In words, what Linux would refuse.
pub(super) fn set(inode: &mut Inode, entry: &Entry) -> Result<(), String> {
    let id = |what: &str, id: i64| {
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| format!("the {what} {id}"))
    };
    inode.uid = id("uid", entry.uid)?;
    inode.gid = id("gid", entry.gid)?;
    if !inode.is_directory() {
        // A change of owner takes capabilities away: a hard link's entry does so to its target.
        inode.xattrs.remove(CAPABILITY);
    }
    for (name, value) in &entry.xattrs {
        set_xattr(inode, name, value)?;
    }
    if !matches!(inode.kind, Kind::Symlink(_)) {
        inode.permissions = entry.permissions;
        if let Some(acl) = inode.xattrs.get(acl::ACCESS) {
            let acl = acl::with_mode(acl, entry.permissions);
            inode.xattrs.insert(acl::ACCESS.into(), acl);
        }
    } else {
        inode.permissions = 0o777;
    }
    inode.mtime = bounded(entry.mtime);
    Ok(())
}

fn set_xattr(inode: &mut Inode, name: &[u8], value: &[u8]) -> Result<(), String> {
    let show = || String::from_utf8_lossy(name).into_owned();
    let is_link = matches!(inode.kind, Kind::Symlink(_));
    let can_have_user = matches!(inode.kind, Kind::Regular(_) | Kind::Directory(_));
    if name.len() > MAX_XATTR_NAME_BYTES || name.contains(&0) {
        return Err(format!("the xattr name {}", show()));
    }
    let is_kept = match name {
        acl::ACCESS if is_link => false,
        acl::ACCESS => match acl::check(value)? {
            acl::Meaning::Mode => {
                inode.xattrs.remove(acl::ACCESS);
                false
            }
            acl::Meaning::More => true,
        },
        acl::DEFAULT if is_link => false,
        acl::DEFAULT if !inode.is_directory() => {
            return Err("a default ACL on something that is no folder".to_owned());
        }
        acl::DEFAULT => {
            acl::check(value)?;
            true
        }
        CAPABILITY => match is_capability(value) {
            true => true,
            false => return Err("a malformed security.capability".to_owned()),
        },
        // containerd passes over what it may not set or the kernel does not know.
        _ if name.starts_with(b"user.") => can_have_user && name.len() > 5,
        _ => name.starts_with(b"security.") && name.len() > 9,
    };
    if !is_kept {
        return Ok(());
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(format!(
            "the xattr {} has {} bytes ({MAX_VALUE_BYTES} at most)",
            show(),
            value.len()
        ));
    }
    inode.xattrs.insert(name.into(), value.into());
    Ok(())
}

/// Versions 2 and 3 of the kernel's file capabilities (`linux/capability.h`).
fn is_capability(value: &[u8]) -> bool {
    let magic = value
        .first_chunk::<4>()
        .map(|bytes| u32::from_le_bytes(*bytes) & 0xff00_0000);
    matches!(
        (magic, value.len()),
        (Some(0x0200_0000), 20) | (Some(0x0300_0000), 24)
    )
}
