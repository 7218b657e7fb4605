//! The folders where things are mounted.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statfs, statx};
use rustix::mount::UnmountFlags;

use crate::MountError;

/// `EROFS_SUPER_MAGIC_V1` (kernel: `include/uapi/linux/magic.h`).
const EROFS_MAGIC: u32 = 0xE0F5_E1E2;

/// Whether an EROFS file system is mounted at `path`.
///
/// Asks only the root folder of the mount, whose inode is in memory: never waits for the store.
///
/// # Errors
/// The system's error, but not that there is no such folder: then nothing is mounted.
pub fn is_mounted(path: &Path) -> Result<bool, MountError> {
    if !is_mount_point(path)? {
        return Ok(false);
    }
    let found = statfs(path).map_err(|errno| MountError::system("look at", path, errno))?;
    Ok(u32::try_from(found.f_type).is_ok_and(|magic| magic == EROFS_MAGIC))
}

/// Whether anything at all is mounted at `path`: an image, an overlay, a bind.
///
/// # Errors
/// The system's error, but not that there is no such folder: then nothing is mounted.
pub fn is_mount_point(path: &Path) -> Result<bool, MountError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match statx(CWD, path, flags, StatxFlags::TYPE) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(MountError::system("look at", path, errno)),
    }
}

/// Takes every mount at `path` away, the uppermost first. Nothing mounted there is no error.
///
/// # Errors
/// The system's error; `EBUSY` where one is in use. What lies below that one stays.
pub fn unmount_all(path: &Path) -> Result<(), MountError> {
    while is_mount_point(path)? {
        rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)
            .map_err(|errno| MountError::system("unmount", path, errno))?;
    }
    Ok(())
}

/// Takes the uppermost mount at `path` away. Nothing mounted there is no error.
///
/// With `detach` also while something uses it: the mount leaves the tree at once and goes when
/// its last user does.
///
/// # Errors
/// The system's error; `EBUSY` where it is in use.
pub fn unmount(path: &Path, detach: bool) -> Result<(), MountError> {
    let mut flags = UnmountFlags::NOFOLLOW;
    if detach {
        flags |= UnmountFlags::DETACH;
    }
    match rustix::mount::unmount(path, flags) {
        // EINVAL: not a mount point.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(MountError::system("unmount", path, errno)),
    }
}
