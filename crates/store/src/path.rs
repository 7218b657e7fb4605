//! Paths in a store, and the only way to the files behind them.
//!
//! Who can write to the store is not trusted with the machine that reads it. So no file of the store
//! is ever opened, linked, renamed or removed by its whole path: each step goes beneath the store's
//! root (`openat2(2)`), follows no symbolic link, and what is read must be a regular file. A link in
//! place of a pack or a directory is an error, and a named pipe or a device is never even opened.
//!
//! [`StorePath`] is no `Path` on purpose: nothing of `std::fs` takes it.
//!
//! Assumptions: Linux 5.6 or later, `/proc` is mounted. The root itself is the operator's: links that
//! lead to it are followed.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, CWD, Dir, FallocateFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags,
};
use rustix::io::Errno;

/// How often an open is tried again that met a file being replaced (NFS: `ESTALE`) or a rename.
const ATTEMPTS: u32 = 8;

/// Links beneath the root are refused, whatever they lead to.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Called before each system call that changes a store, with what it does and to which path. The
/// directories that the call needs are open by then: a test that stops a process here stops it at
/// the worst moment.
pub type Observer = Arc<dyn Fn(&'static str, &Path) + Send + Sync>;

/// Where a store is.
#[derive(Clone)]
pub(crate) struct Root {
    path: Arc<Path>,
    observer: Option<Observer>,
}

impl Root {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn observed_by(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }
}

impl From<Arc<Path>> for Root {
    fn from(path: Arc<Path>) -> Self {
        let observer = None;
        Self { path, observer }
    }
}

impl PartialEq for Root {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for Root {}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// A place in a store: the store's root and a path below it, without `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePath {
    root: Root,
    relative: PathBuf,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Length in bytes.
    pub len_bytes: u64,
    /// What it takes on the disk in bytes, as far as the file system says.
    pub(crate) allocated_bytes: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// When it was last written, by the file server's clock.
    pub modified: SystemTime,
    /// Device (major, minor) and number of the inode.
    pub(crate) id: (u32, u32, u64),
    /// What it is, in words.
    pub(crate) what: &'static str,
}

/// What stands in place of a file of the store.
#[derive(Debug, thiserror::Error)]
#[error("it is {0}, where the store has only regular files and directories: move it away")]
struct Foreign(&'static str);

/// Whether the error says that something stands there which the store never has.
pub(crate) fn is_foreign(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.downcast_ref::<Foreign>().is_some())
}

fn foreign(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Foreign(what))
}

fn explained(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => foreign("a symbolic link, or lies behind one"),
        Errno::NOSYS => io::Error::new(
            io::ErrorKind::Unsupported,
            "the system call openat2 is missing: Linux 5.6 or later is needed",
        ),
        errno => errno.into(),
    }
}

impl StorePath {
    pub(crate) fn new(root: impl Into<Root>, relative: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            relative: relative.into(),
        }
    }

    fn about_to(&self, change: &'static str) {
        if let Some(observer) = &self.root.observer {
            observer(change, &self.on_host());
        }
    }

    /// The whole path, for messages and for tests: files are opened by [`Self::open`] alone.
    #[must_use]
    pub fn on_host(&self) -> PathBuf {
        self.root.path.join(&self.relative)
    }

    /// A name below this one.
    #[must_use]
    pub fn join(&self, name: impl AsRef<OsStr>) -> Self {
        Self::new(self.root.clone(), self.relative.join(name.as_ref()))
    }

    /// The last name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.relative.file_name()?.to_str()
    }

    pub(crate) fn stem(&self) -> Option<&str> {
        self.name()?.split('.').next()
    }

    pub(crate) fn has_suffix(&self, suffix: &str) -> bool {
        self.name()
            .and_then(|name| name.strip_suffix(suffix))
            .is_some_and(|rest| rest.ends_with('.'))
    }

    /// The file of the same id with that suffix.
    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        self.with_name(&format!("{}.{suffix}", self.stem().unwrap_or_default()))
    }

    pub(crate) fn with_name(&self, name: &str) -> Self {
        Self::new(self.root.clone(), self.relative.with_file_name(name))
    }

    /// The directory that it is in; that of the root's own entries is the root.
    pub(crate) fn parent(&self) -> Option<Self> {
        let parent = self.relative.parent()?;
        Some(Self::new(self.root.clone(), parent))
    }

    /// The store's root, opened now: a store that is mounted anew is seen by the next call, and a
    /// store that nobody reads can be unmounted.
    fn open_root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root: &Path = if self.root.path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &self.root.path
        };
        Ok(rustix::fs::openat(CWD, root, flags, Mode::empty())?)
    }

    /// Opens whatever has the name, with these flags.
    fn open_beneath(&self, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        // A directory that is a link fails as a link and not as no directory: nothing is followed.
        let flags = if flags.contains(OFlags::DIRECTORY) {
            flags | OFlags::CLOEXEC
        } else {
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW
        };
        let root = self.open_root()?;
        if self.relative.as_os_str().is_empty() {
            return Ok(rustix::fs::openat(&root, ".", flags, mode)?);
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            match rustix::fs::openat2(&root, &self.relative, flags, mode, BENEATH) {
                // A rename was under way, or the file was replaced on its server.
                Err(Errno::AGAIN | Errno::STALE) if attempts < ATTEMPTS => {}
                Err(errno) => return Err(explained(errno)),
                Ok(fd) => return Ok(fd),
            }
        }
    }

    /// A handle of the regular file, which can be read through `/proc/self/fd/N` and nothing else:
    /// what the kernel is to open by itself.
    ///
    /// # Errors
    /// The file system's error, a link on the way, or something else than a regular file.
    pub fn handle(&self) -> io::Result<StoreFile> {
        let fd = self.open_beneath(OFlags::PATH, Mode::empty())?;
        StoreFile::of(fd, self.on_host())
    }

    /// Opens a regular file to read it.
    ///
    /// # Errors
    /// As for [`Self::handle`].
    pub fn open(&self) -> io::Result<File> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.handle().and_then(|handle| handle.open()) {
                Err(error)
                    if error.raw_os_error() == Some(Errno::STALE.raw_os_error())
                        && attempts < ATTEMPTS => {}
                other => return other,
            }
        }
    }

    /// The whole of a regular file, where it has at most `max_bytes`.
    ///
    /// # Errors
    /// As for [`Self::handle`]; a longer file has the kind [`io::ErrorKind::FileTooLarge`].
    pub fn read(&self, max_bytes: u64) -> io::Result<Vec<u8>> {
        use io::Read as _;
        let file = self.open()?;
        let mut bytes = Vec::new();
        let read = file
            .take(max_bytes.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if read as u64 > max_bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("longer than {max_bytes} bytes"),
            ));
        }
        Ok(bytes)
    }

    /// What stands there, a link as itself.
    ///
    /// # Errors
    /// The file system's error, or a link on the way.
    pub fn facts(&self) -> io::Result<FileFacts> {
        facts_of(self.open_beneath(OFlags::PATH, Mode::empty())?)
    }

    /// Makes all changes to the file system last.
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        let fd = self.open_beneath(OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(rustix::fs::syncfs(fd)?)
    }

    /// The magic number of the file system (statfs(2)).
    pub(crate) fn file_system(&self) -> io::Result<i64> {
        let fd = self.open_beneath(OFlags::PATH, Mode::empty())?;
        Ok(rustix::fs::fstatfs(fd)?.f_type)
    }

    /// Whether something has the name.
    ///
    /// # Errors
    /// As for [`Self::facts`], but for a missing name.
    pub fn exists(&self) -> io::Result<bool> {
        match self.facts() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) if is_foreign(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// The file system's error, or a link on the way.
    pub fn list(&self) -> io::Result<Vec<Self>> {
        let fd = self.open_beneath(OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in Dir::new(fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                use std::os::unix::ffi::OsStrExt as _;
                entries.push(self.join(OsStr::from_bytes(name)));
            }
        }
        Ok(entries)
    }

    /// Makes a new file, to be written and read.
    pub(crate) fn create_new(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.about_to("create");
        self.open_beneath(flags, Mode::from_raw_mode(0o666))
            .map(File::from)
    }

    /// The directory that it is in, and its name there.
    fn place(&self) -> io::Result<(OwnedFd, &OsStr)> {
        let (Some(parent), Some(name)) = (self.parent(), self.relative.file_name()) else {
            return Err(Errno::INVAL.into());
        };
        let parent = parent.open_beneath(OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok((parent, name))
    }

    /// Opens a regular file to give back space of it, or to write what it should have.
    pub(crate) fn open_to_change(&self) -> io::Result<File> {
        let fd = self.open_beneath(OFlags::RDWR, Mode::empty())?;
        let facts = facts_of(&fd)?;
        if !facts.is_file {
            return Err(foreign(facts.what));
        }
        Ok(File::from(fd))
    }

    /// Gives these ranges of the open file back to the file system: they read as zeros from then on. For what
    /// stands at this path, or stood there when it was opened.
    pub(crate) fn deallocate(
        &self,
        file: &File,
        ranges: impl IntoIterator<Item = Range<u64>>,
    ) -> io::Result<()> {
        self.about_to("give back space of");
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for range in ranges {
            rustix::fs::fallocate(file, flags, range.start, range.end - range.start)?;
        }
        Ok(())
    }

    pub(crate) fn create_directory(&self) -> io::Result<()> {
        let (parent, name) = self.place()?;
        self.about_to("make the directory");
        Ok(rustix::fs::mkdirat(
            parent,
            name,
            Mode::from_raw_mode(0o777),
        )?)
    }

    /// Makes the names in this directory last.
    pub(crate) fn sync_directory(&self) -> io::Result<()> {
        let fd = self.open_beneath(OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        File::from(fd).sync_all()
    }

    pub(crate) fn rename(&self, to: &Self) -> io::Result<()> {
        let ((from_parent, from), (to_parent, to)) = (self.place()?, to.place()?);
        self.about_to("rename");
        Ok(rustix::fs::renameat(from_parent, from, to_parent, to)?)
    }

    pub(crate) fn hard_link(&self, to: &Self) -> io::Result<()> {
        let ((from_parent, from), (to_parent, to)) = (self.place()?, to.place()?);
        let flags = AtFlags::empty();
        self.about_to("link");
        Ok(rustix::fs::linkat(from_parent, from, to_parent, to, flags)?)
    }

    pub(crate) fn remove_file(&self) -> io::Result<()> {
        let (parent, name) = self.place()?;
        self.about_to("remove");
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
    }

    /// Removes a directory with all that is in it; links in it are removed, not followed.
    #[expect(clippy::disallowed_methods, reason = "beneath an open directory")]
    pub(crate) fn remove_tree(&self) -> io::Result<()> {
        let (parent, name) = self.place()?;
        self.about_to("remove all of");
        // The standard library walks by descriptors from there on.
        std::fs::remove_dir_all(in_proc(&parent).join(name))
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.on_host().display().fmt(f)
    }
}

/// A regular file of a store that was found beneath its root: a handle, and where it was.
#[derive(Debug)]
pub struct StoreFile {
    fd: OwnedFd,
    path: PathBuf,
    len_bytes: u64,
}

impl StoreFile {
    /// A file of this machine, wherever it is: links to it are followed.
    ///
    /// # Errors
    /// The file system's error, or something else than a regular file.
    pub fn of_this_machine(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Self::of(fd, path.to_owned())
    }

    fn of(fd: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let facts = facts_of(&fd)?;
        if !facts.is_file {
            return Err(foreign(facts.what));
        }
        Ok(Self {
            fd,
            path,
            len_bytes: facts.len_bytes,
        })
    }

    /// Opens the very file to read it.
    ///
    /// # Errors
    /// The file system's error.
    #[expect(
        clippy::disallowed_methods,
        reason = "the very file, by its descriptor"
    )]
    pub fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).open(self.as_path())
    }

    /// A path that leads to the very file, in this process and as long as this value lives.
    #[must_use]
    pub fn as_path(&self) -> PathBuf {
        in_proc(&self.fd)
    }

    /// Where it was found, for messages.
    #[must_use]
    pub fn found_at(&self) -> &Path {
        &self.path
    }

    /// Its length when it was found.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

fn in_proc(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn statx(fd: impl AsFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::statx(fd, "", flags, StatxFlags::BASIC_STATS)?)
}

fn facts_of(fd: impl AsFd) -> io::Result<FileFacts> {
    let found = statx(fd)?;
    let kind = FileType::from_raw_mode(found.stx_mode.into());
    let seconds = Duration::from_secs(found.stx_mtime.tv_sec.unsigned_abs());
    let modified = if found.stx_mtime.tv_sec < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let nanoseconds = Duration::from_nanos(found.stx_mtime.tv_nsec.into());
    Ok(FileFacts {
        len_bytes: found.stx_size,
        // In units of 512 bytes, whatever the block size (statx(2)).
        allocated_bytes: found.stx_blocks.saturating_mul(512),
        is_file: kind == FileType::RegularFile,
        is_directory: kind == FileType::Directory,
        modified: modified
            .and_then(|time| time.checked_add(nanoseconds))
            .unwrap_or(SystemTime::UNIX_EPOCH),
        id: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
        what: in_words(kind),
    })
}

fn in_words(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Directory => "a directory",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests;
