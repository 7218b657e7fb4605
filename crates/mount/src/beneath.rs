//! Regular files of a mounted image, by their paths in it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, fstat, openat2};

/// An image's own names: no link, nothing that is mounted over it, nothing above it.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV)
    .union(ResolveFlags::NO_MAGICLINKS);

/// The root of a mounted image. While it is open the image cannot be unmounted.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    pub(crate) fn open(mount: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(mount, flags, Mode::empty())?))
    }

    /// Opens a regular file to read it. What is no regular file is an error and is not opened.
    pub(crate) fn file(&self, path: &str) -> io::Result<File> {
        if !is_regular(&self.stat(path)?) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(openat2(&self.0, path, flags, Mode::empty(), BENEATH)?.into())
    }

    pub(crate) fn stat(&self, path: &str) -> io::Result<Stat> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = openat2(&self.0, path, flags, Mode::empty(), BENEATH)?;
        Ok(fstat(handle)?)
    }
}

pub(crate) fn is_regular(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
}
