//! Owner, mode, time and xattrs of an entry, as Linux takes them from containerd: pure.

use uimgacc_erofs::tree::{Inode, Kind, Timestamp};

use super::acl;
use crate::tar::Entry;

const CAPABILITY: &[u8] = b"security.capability";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
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
        if let Some(acl) = inode.xattrs.get(ACL_ACCESS) {
            let acl = acl::with_mode(acl, entry.permissions);
            inode.xattrs.insert(ACL_ACCESS.into(), acl);
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
        ACL_ACCESS if is_link => false,
        ACL_ACCESS => match acl::check(value)? {
            acl::Meaning::Mode => {
                inode.xattrs.remove(ACL_ACCESS);
                false
            }
            acl::Meaning::More => true,
        },
        ACL_DEFAULT if is_link => false,
        ACL_DEFAULT if !inode.is_directory() => {
            return Err("a default ACL on something that is no folder".to_owned());
        }
        ACL_DEFAULT => {
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
