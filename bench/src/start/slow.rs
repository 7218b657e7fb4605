//! A folder as a slow network file system shows it: through FUSE, with a delay for each read or a rate
//! for all of them. Counts what is read.
//!
//! Reads are 128 KiB at most, as with most FUSE file systems; up to 64 are served at once.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request, SessionACL,
};
use parking_lot::Mutex;

const READ_BYTES: u32 = 128 << 10;
const THREADS: usize = 64;
/// As NFS clients do by default, at least.
const VALID: Duration = Duration::from_secs(3);

/// What is slow about it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Link {
    /// Added to each read and each look-up.
    pub(crate) delay: Duration,
    /// Bytes a second, all reads together.
    pub(crate) rate: Option<u64>,
}

/// What was asked of it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// A mount that goes with this.
#[derive(Debug)]
pub(crate) struct SlowFolder {
    pub(crate) counters: Arc<Counters>,
    _session: BackgroundSession,
}

impl SlowFolder {
    pub(crate) fn mount(folder: &Path, target: &Path, link: Link) -> anyhow::Result<Self> {
        let counters: Arc<Counters> = Arc::default();
        let slow = Slow {
            link,
            counters: counters.clone(),
            paths: Mutex::new(HashMap::from([(INodeNo::ROOT.0, folder.to_owned())])),
            open: Mutex::default(),
            free: Mutex::new(Instant::now()),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("slow".to_owned()), MountOption::RO];
        config.acl = SessionACL::All;
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let session = fuser::spawn_mount(slow, target, &config)
            .with_context(|| format!("cannot mount FUSE at {}", target.display()))?;
        Ok(Self {
            counters,
            _session: session,
        })
    }
}

struct Slow {
    link: Link,
    counters: Arc<Counters>,
    paths: Mutex<HashMap<u64, PathBuf>>,
    open: Mutex<HashMap<u64, Arc<File>>>,
    /// When the link is free again.
    free: Mutex<Instant>,
}

impl Slow {
    fn path(&self, inode: INodeNo) -> io::Result<PathBuf> {
        let paths = self.paths.lock();
        paths
            .get(&inode.0)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn wait(&self, bytes: u64) {
        std::thread::sleep(self.link.delay);
        let Some(rate) = self.link.rate else { return };
        let end = {
            let mut free = self.free.lock();
            let takes = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
            *free = (*free).max(Instant::now()) + takes;
            *free
        };
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
    }

    fn entry(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        std::thread::sleep(self.link.delay);
        let path = self.path(parent)?.join(name);
        let attributes = attributes(&fs::symlink_metadata(&path)?);
        self.paths.lock().insert(attributes.ino.0, path);
        Ok(attributes)
    }

    fn bytes(&self, handle: FileHandle, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let file = self.open.lock().get(&handle.0).cloned();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + read as u64)? {
                0 => break,
                count => read += count,
            }
        }
        bytes.truncate(read);
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.counters
            .bytes
            .fetch_add(read as u64, Ordering::Relaxed);
        self.wait(read as u64);
        Ok(bytes)
    }
}

fn attributes(metadata: &Metadata) -> FileAttr {
    let kind = metadata.file_type();
    let since = |seconds: i64, nanoseconds: i64| {
        std::time::UNIX_EPOCH
            + Duration::new(
                u64::try_from(seconds).unwrap_or_default(),
                u32::try_from(nanoseconds).unwrap_or_default(),
            )
    };
    let modified = since(metadata.mtime(), metadata.mtime_nsec());
    FileAttr {
        ino: INodeNo(metadata.ino()),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: if kind.is_dir() {
            FileType::Directory
        } else if kind.is_symlink() {
            FileType::Symlink
        } else if kind.is_fifo() {
            FileType::NamedPipe
        } else {
            FileType::RegularFile
        },
        perm: u16::try_from(metadata.mode() & 0o7777).unwrap_or_default(),
        nlink: u32::try_from(metadata.nlink()).unwrap_or(1),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Slow {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What the kernel offers instead of too large a value is as good.
        let _ = config.set_max_write(READ_BYTES);
        let _ = config.set_max_readahead(READ_BYTES);
        let _ = config.set_max_background(u16::try_from(THREADS).unwrap_or(u16::MAX));
        // As libfuse does by default: a direct read is sent as all its parts at once.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.entry(parent, name) {
            Ok(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.path(inode).and_then(|path| {
            let mut attributes = attributes(&fs::symlink_metadata(path)?);
            attributes.ino = inode;
            Ok(attributes)
        });
        match found {
            Ok(attributes) => reply.attr(&VALID, &attributes),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        std::thread::sleep(self.link.delay);
        match self.path(inode).and_then(File::open) {
            Ok(file) => {
                // One handle an inode will do: nothing here is written.
                self.open.lock().insert(inode.0, Arc::new(file));
                reply.opened(FileHandle(inode.0), FopenFlags::empty());
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.bytes(handle, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        std::thread::sleep(self.link.delay);
        let entries = self.path(inode).and_then(|path| {
            let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
            entries.sort_by_key(fs::DirEntry::file_name);
            Ok(entries)
        });
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return reply.error(Errno::from(error)),
        };
        for (number, entry) in (1u64..)
            .zip(entries)
            .skip(usize::try_from(offset).unwrap_or(0))
        {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let found = attributes(&metadata);
            if reply.add(found.ino, number, found.kind, entry.file_name()) {
                break;
            }
        }
        reply.ok();
    }
}
