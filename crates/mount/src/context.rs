//! One mount under construction: the kernel's file system context (`fsopen(2)`).
//!
//! Guarantees: every error carries the messages that the kernel left in the context. Paths of any
//! length work, though the kernel takes at most 255 bytes as a string.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use uimgacc_store::StoreFile;

use crate::AttemptError;

/// The kernel's limit for a string (`fs/fsopen.c`: 256 with the NUL).
const MAX_STRING_BYTES: usize = 255;

pub(crate) struct Context {
    fd: OwnedFd,
    /// Files that stand in the context as `/proc/self/fd/N`: open until the mount is made.
    held: Vec<OwnedFd>,
}

impl Context {
    pub(crate) fn open(file_system: &str) -> Result<Self, AttemptError> {
        let fd = fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| failed(format!("fsopen {file_system}"), errno, Vec::new()))?;
        Ok(Self {
            fd,
            held: Vec::new(),
        })
    }

    pub(crate) fn set_flag(&self, key: &str) -> Result<(), AttemptError> {
        fsconfig_set_flag(&self.fd, key).map_err(|errno| self.failed(format!("set {key}"), errno))
    }

    pub(crate) fn set_string(&self, key: &str, value: &str) -> Result<(), AttemptError> {
        fsconfig_set_string(&self.fd, key, value)
            .map_err(|errno| self.failed(format!("set {key}={value}"), errno))
    }

    /// Sets a string that is a path, through a descriptor where it is too long or has characters
    /// in it that this option would split at.
    pub(crate) fn set_path(
        &mut self,
        key: &str,
        path: &Path,
        special: &[u8],
    ) -> Result<(), AttemptError> {
        use std::os::unix::ffi::OsStrExt as _;
        let bytes = path.as_os_str().as_bytes();
        let plain =
            bytes.len() <= MAX_STRING_BYTES && !bytes.iter().any(|byte| special.contains(byte));
        let name = |path: &Path| format!("set {key}={}", path.display());
        let value = if plain {
            path.to_owned()
        } else {
            let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| self.failed(name(path), errno))?;
            let value = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            self.held.push(fd);
            value
        };
        fsconfig_set_string(&self.fd, key, &value).map_err(|errno| self.failed(name(path), errno))
    }

    /// Sets a string that is a file of the store, by its handle: the kernel opens that very file.
    pub(crate) fn set_file(&self, key: &str, file: &StoreFile) -> Result<(), AttemptError> {
        fsconfig_set_string(&self.fd, key, file.as_path())
            .map_err(|errno| self.failed(format!("set {key}={}", file.found_at().display()), errno))
    }

    /// Makes the file system and puts it at `target`.
    pub(crate) fn mount_at(
        self,
        target: &Path,
        attributes: MountAttrFlags,
    ) -> Result<(), AttemptError> {
        let mount = self.mount_detached(attributes)?;
        move_mount(
            &mount,
            "",
            CWD,
            target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|errno| self.failed(format!("move_mount to {}", target.display()), errno))
    }

    /// Makes the file system and a mount of it that is in no folder.
    pub(crate) fn mount_detached(
        &self,
        attributes: MountAttrFlags,
    ) -> Result<OwnedFd, AttemptError> {
        self.create()?;
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| self.failed("fsmount".to_owned(), errno))
    }

    /// The same, and no symbolic link in it is ever followed (Linux 5.14; older kernels refuse the
    /// flag and mount it without).
    pub(crate) fn mount_detached_without_links(
        &self,
        attributes: MountAttrFlags,
    ) -> Result<OwnedFd, AttemptError> {
        self.create()?;
        let strict = attributes | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, strict)
            .or_else(|errno| match errno {
                Errno::INVAL => fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes),
                errno => Err(errno),
            })
            .map_err(|errno| self.failed("fsmount".to_owned(), errno))
    }

    fn create(&self) -> Result<(), AttemptError> {
        fsconfig_create(&self.fd).map_err(|errno| self.failed("create".to_owned(), errno))
    }

    fn failed(&self, step: String, errno: Errno) -> AttemptError {
        failed(step, errno, self.messages())
    }

    /// What the kernel has to say; one message a read (kernel: `fscontext_read`).
    fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(length) = rustix::io::read(&self.fd, &mut buffer) {
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            // "e " for an error, "w " for a warning, "i " for a remark.
            let text = text.trim_end();
            messages.push(text.get(2..).unwrap_or(text).to_owned());
            if length == 0 || messages.len() >= 16 {
                break;
            }
        }
        messages
    }
}

fn failed(step: String, errno: Errno, messages: Vec<String>) -> AttemptError {
    AttemptError::Kernel {
        step,
        messages,
        error: io::Error::from(errno),
    }
}
