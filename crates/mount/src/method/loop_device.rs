//! EROFS on loop devices: for kernels that cannot mount files, and for stores whose file system
//! is itself stacked.

use std::fs::File;
use std::io;
use std::path::Path;

use uimgacc_sys::{LoopDevice, LoopOptions};

use super::file;
use crate::{AttemptError, MountRequest, ReadAhead};

pub(crate) fn mount(request: &MountRequest) -> Result<Option<ReadAhead>, AttemptError> {
    let index = attach(&request.index, File::open(&request.index))?;
    let packs: Vec<LoopDevice> = request
        .packs
        .iter()
        .map(|pack| attach(pack.found_at(), pack.open()))
        .collect::<Result<_, _>>()?;
    let devices: Vec<&Path> = packs.iter().map(LoopDevice::path).collect();
    // The mount holds the devices from here on; they free themselves when it goes.
    file::mount_devices(request, index.path(), &devices)
}

/// A device of an open file; `path` is for messages.
fn attach(path: &Path, file: io::Result<File>) -> Result<LoopDevice, AttemptError> {
    let options = LoopOptions {
        direct_io: true,
        block_size: 0,
    };
    file.and_then(|file| LoopDevice::attach(file, options))
        .map_err(|error| AttemptError::Kernel {
            step: format!("loop device of {}", path.display()),
            messages: Vec::new(),
            error,
        })
}
