//! What is opened on a mounted image, and which pages of it were read.
//!
//! Opens are told by the kernel (fanotify with a mark on the whole file system), so that those through
//! overlays are among them; it costs who opens next to nothing, and nobody ever waits for us. Pages
//! are looked up in the page cache once the start is over (`mincore`): the cache is the mount's, and
//! shared by all its containers.
//!
//! Assumptions: `CAP_SYS_ADMIN`. Linux 5.1.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use uimgacc_profile::{FileReads, MAX_RUNS, PAGE_BYTES, Run};

use crate::beneath::{Root, is_regular};

/// Listens to what is opened on a mounted image by others than this process.
///
/// The image can be unmounted meanwhile.
#[derive(Debug)]
pub struct Opens {
    group: Fanotify,
    mount: PathBuf,
    /// Inodes that were met.
    met: HashSet<u64>,
    /// Their paths in the image, by first open.
    files: Vec<String>,
}

impl Opens {
    /// Starts to listen at the mount point `mount`.
    ///
    /// # Errors
    /// The system's error.
    pub fn listen(mount: &Path) -> io::Result<Self> {
        let group = Fanotify::init(
            InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
            EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC | EventFFlags::O_LARGEFILE,
        )?;
        group.mark(
            MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM,
            MaskFlags::FAN_OPEN,
            rustix::fs::CWD,
            Some(mount),
        )?;
        Ok(Self {
            group,
            mount: mount.to_owned(),
            met: HashSet::new(),
            files: Vec::new(),
        })
    }

    /// Waits for opens, `timeout` at most, and takes note of them; says whether there were any.
    ///
    /// # Errors
    /// The system's error.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::from_borrowed_fd(self.group.as_fd(), PollFlags::IN)];
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut fds, Some(&left)) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(0) => return Ok(false),
                Ok(_) if self.take()? => return Ok(true),
                Ok(_) => {}
            }
        }
    }

    /// Takes what has come; says whether others than this process opened something.
    fn take(&mut self) -> io::Result<bool> {
        let own = std::process::id();
        let mut is_any = false;
        loop {
            let events = match self.group.read_events() {
                Ok(events) if !events.is_empty() => events,
                Ok(_) | Err(Errno::EAGAIN) => return Ok(is_any),
                Err(errno) => return Err(errno.into()),
            };
            for event in events {
                if u32::try_from(event.pid()).is_ok_and(|pid| pid == own) {
                    continue;
                }
                is_any = true;
                // Without one the queue has overflowed: some opens are not known.
                if let Some(file) = event.fd() {
                    self.note(file);
                }
            }
        }
    }

    fn note(&mut self, file: BorrowedFd<'_>) {
        let Ok(stat) = rustix::fs::fstat(file) else {
            return;
        };
        if !is_regular(&stat) || self.met.len() >= MAX_RUNS || !self.met.insert(stat.st_ino) {
            return;
        }
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        if let Ok(path) = std::fs::read_link(link)
            && let Some(path) = self.path_in_image(&path, stat.st_ino)
        {
            self.files.push(path);
        }
    }

    /// The path of a file as the image has it. What was opened through an overlay has it from the root
    /// of the overlay's own mount; what was opened on the mount itself, behind the mount point.
    fn path_in_image(&self, path: &Path, inode: u64) -> Option<String> {
        let root = Root::open(&self.mount).ok()?;
        let candidates = [
            path.strip_prefix(&self.mount).ok(),
            path.strip_prefix("/").ok(),
        ];
        candidates
            .into_iter()
            .flatten()
            .filter_map(Path::to_str)
            .find(|path| root.stat(path).is_ok_and(|stat| stat.st_ino == inode))
            .map(str::to_owned)
    }

    /// The files that were opened after the first `known`, by first open. Not all of those that
    /// [`Self::len`] counts have a path.
    #[must_use]
    pub fn files_after(&self, known: usize) -> &[String] {
        self.files.get(known..).unwrap_or_default()
    }

    /// How many files were opened.
    #[must_use]
    pub fn len(&self) -> usize {
        self.met.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.met.is_empty()
    }

    /// The pages of the files that were opened and are in the page cache, by first open.
    ///
    /// # Errors
    /// There is no mount any more. A file that cannot be looked at is left out.
    pub fn pages(&self) -> io::Result<Vec<FileReads>> {
        let root = Root::open(&self.mount)?;
        let mut files = Vec::new();
        for path in &self.files {
            let found = root
                .file(path)
                .and_then(|file| uimgacc_sys::resident(&file));
            let runs: Vec<Run> = match found {
                Ok(ranges) => ranges.into_iter().filter_map(run_of).collect(),
                Err(error) => {
                    tracing::debug!(path, %error, "pages not recorded");
                    continue;
                }
            };
            if !runs.is_empty() {
                files.push(FileReads {
                    path: path.clone(),
                    content: None,
                    starts: 1,
                    runs,
                });
            }
        }
        Ok(files)
    }
}

/// Ranges end at pages, which are multiples of ours.
fn run_of(range: std::ops::Range<u64>) -> Option<Run> {
    Some(Run {
        first: u32::try_from(range.start / PAGE_BYTES).ok()?,
        pages: u32::try_from((range.end - range.start).div_ceil(PAGE_BYTES)).ok()?,
    })
}
