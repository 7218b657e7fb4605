//! Overlays and binds, for mounts that people make by hand.

use std::path::{Path, PathBuf};

use rustix::mount::{MountAttrFlags, MountFlags, mount_bind, mount_remount};

use crate::MountError;
use crate::context::Context;

/// A writable view of a read-only folder.
#[derive(Debug, Clone)]
pub struct OverlayRequest {
    /// The read-only folder.
    pub lower: PathBuf,
    /// Where changes go; on a local disk.
    pub upper: PathBuf,
    /// An empty folder beside `upper`, for overlayfs itself.
    pub work: PathBuf,
    /// A folder that is there.
    pub target: PathBuf,
}

/// Mounts an overlay.
///
/// # Errors
/// What the kernel said.
pub fn mount_overlay(request: &OverlayRequest) -> Result<(), MountError> {
    let mount = || {
        let mut context = Context::open("overlay")?;
        context.set_string("source", "overlay")?;
        // overlayfs splits lower folders at colons and takes a backslash for an escape.
        context.set_path("lowerdir", &request.lower, b":\\,")?;
        context.set_path("upperdir", &request.upper, b":\\,")?;
        context.set_path("workdir", &request.work, b":\\,")?;
        context.mount_at(&request.target, MountAttrFlags::empty())
    };
    mount().map_err(|source| MountError::Overlay {
        target: request.target.clone(),
        source,
    })
}

/// Shows `source` at `target` as well, read-only there.
///
/// # Errors
/// The system's error; nothing is left mounted then.
pub fn bind_read_only(source: &Path, target: &Path) -> Result<(), MountError> {
    mount_bind(source, target).map_err(|errno| MountError::system("bind to", target, errno))?;
    mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "").map_err(|errno| {
        // The first error is the one to tell.
        let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
        MountError::system("make read-only", target, errno)
    })
}
