//! Loop devices: a file as a read-only block device.
//!
//! Guarantees: a [`LoopDevice`] is configured in one step (`LOOP_CONFIGURE`), so no other process
//! ever sees it half made; it frees itself when its last user (this handle, a mount) is gone, also
//! when the process is killed.
//!
//! Assumptions: `/dev/loop-control` is there (module `loop`) and devtmpfs makes the nodes.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl};

/// Kernel: `include/uapi/linux/loop.h`.
const LOOP_CONFIGURE: Opcode = 0x4C0A;
/// Kernel: `include/uapi/linux/loop.h`.
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// How often a free device may be snatched away by another process before we give up.
const ATTEMPTS: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,

    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,

    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232);
const _: () = assert!(size_of::<LoopConfig>() == 304);
const _: () = assert!(std::mem::offset_of!(LoopConfig, info) == 8);

/// Asks `/dev/loop-control` for the number of a free device; the answer is the call's result.
struct GetFree;

// SAFETY: the opcode takes no argument (`as_ptr` is null) and returns its answer as the result of
// the call, so no memory is read or written.
unsafe impl Ioctl for GetFree {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        u32::try_from(out).map_err(|_| Errno::INVAL)
    }
}

/// What to ask of a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopOptions {
    /// Read the file past the page cache (the kernel quietly reads through it where the file
    /// system cannot do direct reads).
    pub direct_io: bool,
    /// Logical block size in bytes, 0 for the kernel's choice.
    pub block_size: u32,
}

/// A configured loop device, kept alive by this handle.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// Makes `backing` a read-only block device.
    ///
    /// # Errors
    /// No loop driver, no free device, no permission, or a file that cannot be a device.
    pub fn attach(backing: impl AsFd, options: LoopOptions) -> io::Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        let fd =
            u32::try_from(backing.as_fd().as_raw_fd()).map_err(|_| io::Error::from(Errno::BADF))?;
        let mut flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
        if options.direct_io {
            flags |= LO_FLAGS_DIRECT_IO;
        }
        let config = LoopConfig {
            fd,
            block_size: options.block_size,
            info: LoopInfo64 {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: 0,
                size_limit: 0,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags,
                file_name: [0; 64],
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        for attempt in 0..ATTEMPTS {
            // SAFETY: `GetFree` touches no memory (see its implementation).
            let number = unsafe { ioctl(&control, GetFree) }?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = match File::open(&path) {
                Ok(device) => device,
                // The node appears a moment after the device.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    pause(attempt);
                    continue;
                }
                Err(error) => return Err(error),
            };
            // SAFETY: `LOOP_CONFIGURE` reads one `struct loop_config`, whose layout `LoopConfig`
            // has (asserted above), and writes nothing.
            let configure = unsafe { Setter::<LOOP_CONFIGURE, LoopConfig>::new(config) };
            // SAFETY: the same; `fd` in it is open as long as `backing` is borrowed.
            match unsafe { ioctl(&device, configure) } {
                Ok(()) => {
                    return Ok(Self {
                        path,
                        _device: device,
                    });
                }
                // Another process was faster, or the last user is just leaving.
                Err(Errno::BUSY | Errno::AGAIN) => pause(attempt),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::BUSY.into())
    }

    /// The device node, `/dev/loopN`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn pause(attempt: u32) {
    std::thread::sleep(Duration::from_millis(u64::from(attempt.min(10))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_file_reads_the_same_through_its_device_which_then_frees_itself() {
        let mut backing = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..64 * 1024u32)
            .map(|n| u8::try_from(n % 251).unwrap())
            .collect();
        backing.write_all(&content).unwrap();
        backing.flush().unwrap();
        for direct_io in [false, true] {
            let options = LoopOptions {
                direct_io,
                block_size: 0,
            };
            let device = LoopDevice::attach(File::open(backing.path()).unwrap(), options).unwrap();
            let mut read = Vec::new();
            File::open(device.path())
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            assert_eq!(read, content);
            // The kernel refuses the open or the write, by version.
            let written =
                OpenOptions::new()
                    .write(true)
                    .open(device.path())
                    .and_then(|mut device| {
                        device.write_all(&[1; 4096])?;
                        device.sync_all()
                    });
            assert!(written.is_err(), "must be read-only");
            let name = device.path().file_name().unwrap().to_owned();
            drop(device);
            let backing_file = Path::new("/sys/block").join(name).join("loop/backing_file");
            let free = (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                std::fs::read_to_string(&backing_file)
                    .map_or(true, |text| text.trim() != backing.path().to_string_lossy())
            });
            assert!(free, "the device outlives its last user");
        }
    }

    #[test]
    fn many_at_once_get_devices_of_their_own() {
        let mut backing = tempfile::NamedTempFile::new().unwrap();
        backing.write_all(&[7; 8192]).unwrap();
        let options = LoopOptions {
            direct_io: false,
            block_size: 0,
        };
        let devices: Vec<LoopDevice> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    let file = backing.reopen().unwrap();
                    scope.spawn(move || LoopDevice::attach(file, options).unwrap())
                })
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        let paths: std::collections::BTreeSet<_> = devices.iter().map(LoopDevice::path).collect();
        assert_eq!(paths.len(), 8);
    }
}
