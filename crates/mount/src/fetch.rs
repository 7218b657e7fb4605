//! Reads what a profile lists into the page cache of a mounted image, ahead of who needs it.
//!
//! Guarantees: nobody waits for it; it ends with the deadline or when it is told to stop, but for
//! readers that hang in a dead store, which end with their one call. Memory: the page cache that the
//! list takes, and [`PIECE_BYTES`] a reader.
//!
//! A file's read-ahead setting is that of the moment of its opening, and the kernel reads at most that
//! much at once (never less than 128 KiB). So files with long runs are opened by [`Fetch::prepare`],
//! while the mount's setting is large; the others when their turn comes.

mod lead;
mod worth;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::Advice;
use uimgacc_profile::{PAGE_BYTES, Profile};

use crate::beneath::Root;
pub use lead::Lead;
use worth::{PROBE_BYTES, PROBE_READS, is_worth_it};

/// The longest read: many readers of small pieces leave the container's own reads room between.
const PIECE_BYTES: u64 = 256 << 10;
/// What the kernel reads at once whatever the setting is (`bdi->io_pages` of EROFS on files).
const SHORT_BYTES: u64 = 128 << 10;
/// How many files are held open from the start.
const MAX_HELD: usize = 512;

/// How a list is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchSettings {
    /// Reads at the same time.
    pub readers: usize,
    /// Bytes a second, all readers together; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// When it is over, done or not.
    pub deadline: Duration,
    /// Whether the list has much that no start touches: it is left where it is not worth reading over
    /// this link.
    pub is_coarse: bool,
}

/// What was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// Bytes that were read.
    pub bytes: u64,
    /// Reads that failed, files that are not there.
    pub failed: u64,
    /// Whether all that was listed (and not beyond the limit of bytes) was tried.
    pub is_whole: bool,
    /// Whether it was left, because it is not worth reading over this link.
    pub is_left: bool,
    /// From the first read to the last.
    pub took: Duration,
}

/// A list that is ready to be fetched. While it lives the image cannot be unmounted.
#[derive(Debug)]
pub struct Fetch {
    root: Root,
    paths: Vec<String>,
    held: HashMap<usize, File>,
    pieces: Vec<Piece>,
}

/// One read.
#[derive(Debug, Clone, Copy)]
struct Piece {
    file: usize,
    /// Bytes of the list before it.
    start_bytes: u64,
    offset_bytes: u64,
    len_bytes: u64,
}

impl Fetch {
    /// Opens the mount and the files with long runs. What is listed behind the first `max_bytes` is
    /// not fetched.
    ///
    /// # Errors
    /// There is no mount. A file that cannot be opened counts as failed when its turn comes.
    pub fn prepare(mount: &Path, profile: &Profile, max_bytes: u64) -> io::Result<Self> {
        let root = Root::open(mount)?;
        let mut held = HashMap::new();
        for (number, file) in profile.files.iter().enumerate() {
            let is_long = file.runs.iter().any(|run| run.len_bytes() > SHORT_BYTES);
            if is_long
                && held.len() < MAX_HELD
                && let Ok(file) = open(&root, &file.path)
            {
                held.insert(number, file);
            }
        }
        Ok(Self {
            root,
            paths: profile.files.iter().map(|file| file.path.clone()).collect(),
            held,
            pieces: pieces(profile, max_bytes),
        })
    }

    /// Bytes that are to be read.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len_bytes).sum()
    }

    /// The files of the list in its order, with the bytes that are to be read of each.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let mut files: Vec<_> = self.paths.iter().map(|path| (path.clone(), 0)).collect();
        for piece in &self.pieces {
            if let Some((_, bytes)) = files.get_mut(piece.file) {
                *bytes += piece.len_bytes;
            }
        }
        files
    }

    /// Reads it all as far as `lead` lets it, until it is done, late, or `stop` is set.
    #[must_use]
    pub fn run(self, settings: &FetchSettings, lead: &Lead, stop: &AtomicBool) -> Fetched {
        let started = Instant::now();
        let mut work = Shared {
            next: AtomicUsize::new(0),
            tried: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            pace: Pace::new(settings.bytes_per_second),
            end: started + settings.deadline,
            lead,
            stop,
            probe: None,
            is_left: AtomicBool::new(false),
        };
        // A rate that somebody set says nothing of the link.
        if settings.is_coarse && settings.bytes_per_second.is_none() {
            work.probe(&self);
        }
        let work = work;
        let readers = settings.readers.clamp(1, self.pieces.len().max(1));
        std::thread::scope(|scope| {
            let start = || {
                std::thread::Builder::new()
                    .name("fetch".to_owned())
                    .spawn_scoped(scope, || work.read(&self))
            };
            let others = (1..readers).map_while(|_| start().ok()).count();
            tracing::debug!(readers = others + 1, "fetching");
            work.read(&self);
        });
        Fetched {
            bytes: work.bytes.into_inner(),
            failed: work.failed.into_inner(),
            is_whole: work.tried.into_inner() == self.pieces.len(),
            is_left: work.is_left.into_inner(),
            took: started.elapsed(),
        }
    }
}

fn open(root: &Root, path: &str) -> io::Result<File> {
    let file = root.file(path)?;
    // Exactly what is asked for, and no more.
    rustix::fs::fadvise(&file, 0, None, Advice::Random)?;
    Ok(file)
}

fn pieces(profile: &Profile, max_bytes: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut left, mut start_bytes) = (max_bytes, 0);
    for (number, file) in profile.files.iter().enumerate() {
        for run in &file.runs {
            let end = run.offset_bytes() + run.len_bytes();
            let mut at = run.offset_bytes();
            while at < end && left >= PAGE_BYTES {
                let len_bytes = PIECE_BYTES.min(end - at).min(left);
                pieces.push(Piece {
                    file: number,
                    start_bytes,
                    offset_bytes: at,
                    len_bytes,
                });
                start_bytes += len_bytes;
                at += len_bytes;
                left -= len_bytes;
            }
        }
    }
    pieces
}

/// What the readers share.
struct Shared<'a> {
    next: AtomicUsize,
    tried: AtomicUsize,
    bytes: AtomicU64,
    failed: AtomicU64,
    pace: Pace,
    end: Instant,
    lead: &'a Lead,
    stop: &'a AtomicBool,
    /// What is known of the link, until it is judged.
    probe: Option<Probe>,
    is_left: AtomicBool,
}

/// What the first reads took, one by one.
struct Probe {
    single: Vec<(u64, Duration)>,
    /// When they were done.
    at: Instant,
    is_judged: AtomicBool,
}

impl Shared<'_> {
    /// Makes the first reads one by one.
    fn probe(&mut self, fetch: &Fetch) {
        let mut single = Vec::new();
        let mut buffer = Vec::new();
        for _ in 0..PROBE_READS {
            let from = Instant::now();
            match self.next(fetch, &mut buffer) {
                Some(Ok(bytes)) => single.push((bytes, from.elapsed())),
                Some(Err(_)) => {}
                None => return,
            }
        }
        self.probe = Some(Probe {
            single,
            at: Instant::now(),
            is_judged: AtomicBool::new(false),
        });
    }

    fn read(&self, fetch: &Fetch) {
        let mut buffer = Vec::new();
        while self.next(fetch, &mut buffer).is_some() {
            self.judge();
        }
    }

    /// Makes the next read; `None` where there is none, or is to be none any more.
    fn next(&self, fetch: &Fetch, buffer: &mut Vec<u8>) -> Option<io::Result<u64>> {
        let is_over = self.stop.load(Ordering::Relaxed) || self.is_left.load(Ordering::Relaxed);
        if is_over || Instant::now() >= self.end {
            return None;
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let piece = fetch.pieces.get(next)?;
        let may = self.lead.wait(piece.start_bytes, self.end, self.stop)
            && self.pace.wait(piece.len_bytes, self.end, self.stop);
        if !may {
            return None;
        }
        let result = read(fetch, *piece, buffer);
        match &result {
            Ok(bytes) => self.bytes.fetch_add(*bytes, Ordering::Relaxed),
            Err(_) => self.failed.fetch_add(1, Ordering::Relaxed),
        };
        self.tried.fetch_add(1, Ordering::Relaxed);
        Some(result)
    }

    fn judge(&self) {
        let Some(probe) = &self.probe else { return };
        let single: u64 = probe.single.iter().map(|(bytes, _)| bytes).sum();
        let bytes = self.bytes.load(Ordering::Relaxed).saturating_sub(single);
        if bytes < PROBE_BYTES || probe.is_judged.swap(true, Ordering::Relaxed) {
            return;
        }
        let many = (bytes, probe.at.elapsed());
        let is_worth_it = is_worth_it(&probe.single, many);
        tracing::debug!(single = ?probe.single, ?many, is_worth_it, "the link of a coarse list");
        self.is_left.store(!is_worth_it, Ordering::Relaxed);
    }
}

fn read(fetch: &Fetch, piece: Piece, buffer: &mut Vec<u8>) -> io::Result<u64> {
    let opened;
    let file = match fetch.held.get(&piece.file) {
        Some(file) => file,
        None => {
            let path = fetch.paths.get(piece.file).map_or("", String::as_str);
            opened = open(&fetch.root, path)?;
            &opened
        }
    };
    buffer.resize(
        usize::try_from(piece.len_bytes).map_err(io::Error::other)?,
        0,
    );
    // Short where the file is: its last page counts as a whole one.
    let read = file.read_at(buffer, piece.offset_bytes)?;
    Ok(read as u64)
}

/// Spreads reads over time.
struct Pace {
    bytes_per_second: Option<u64>,
    /// When the next read may begin.
    free: Mutex<Instant>,
}

impl Pace {
    fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second,
            free: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many bytes may be read; `false` where that is not to be any more.
    fn wait(&self, bytes: u64, end: Instant, stop: &AtomicBool) -> bool {
        const STEP: Duration = Duration::from_millis(100);
        let Some(rate) = self.bytes_per_second else {
            return true;
        };
        let turn = {
            let mut free = self.free.lock();
            let turn = (*free).max(Instant::now());
            let takes = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1));
            *free = turn + takes;
            turn
        };
        loop {
            let left = turn.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if turn >= end || stop.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(left.min(STEP));
        }
    }
}
