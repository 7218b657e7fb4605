//! EROFS on the files themselves: no block device at all.
//!
//! The kernel opens the files while the mount is made and keeps them open, so nothing of this
//! process stays behind.

use std::path::Path;

use rustix::mount::MountAttrFlags;

use crate::context::Context;
use crate::{AttemptError, MountRequest, ReadAhead, read_ahead};

pub(crate) fn mount(
    request: &MountRequest,
    directio: bool,
) -> Result<Option<ReadAhead>, AttemptError> {
    let context = start(&request.index, directio)?;
    for pack in &request.packs {
        context.set_file("device", pack)?;
    }
    finish(context, request)
}

/// Mounts an EROFS image whose device and extra devices are given.
pub(crate) fn mount_devices(
    request: &MountRequest,
    source: &Path,
    devices: &[&Path],
) -> Result<Option<ReadAhead>, AttemptError> {
    let mut context = start(source, false)?;
    for device in devices {
        context.set_path("device", device, &[])?;
    }
    finish(context, request)
}

fn start(source: &Path, directio: bool) -> Result<Context, AttemptError> {
    let mut context = Context::open("erofs")?;
    context.set_path("source", source, &[])?;
    if directio {
        context.set_flag("directio")?;
    }
    Ok(context)
}

fn finish(context: Context, request: &MountRequest) -> Result<Option<ReadAhead>, AttemptError> {
    context.set_flag("ro")?;
    let mounting = read_ahead::before_mount();
    // Of no effect in containers: an overlay goes by its own flags, and a bind that is remounted
    // read-only (as containerd's views are) by those of the remount.
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    context.mount_at(&request.target, attributes)?;
    Ok(mounting.found(&request.target))
}
