//! Starts of images: from the mount until nothing more is read for the first time.
//!
//! A mount has a state. While it is *starting* what the image's profile lists is read ahead, by large
//! parallel reads, and the kernel's own read-ahead is small, so that next to nothing but what is
//! touched comes on top; without a profile it is the kernel's own. Then it is *serving*: read-ahead is
//! large, for weights and data that are opened from then on. The start is over when something was
//! opened, then nothing for a while, and the list is done; at the latest after a minute. It is that of
//! the first container; others find the mount as it is.
//!
//! Nothing here is needed to read: whatever fails, or is cut short by the end of this process, the
//! mount serves as the kernel does by itself. A process that comes after another one sets what it
//! finds mounted to serving.
//!
//! Where starts are recorded ([`records`]), what the first start of a mount read is looked up when it is
//! over.
//!
//! Owns `chains/<chain>/read-ahead.json`: where the setting of the mount is, and since which boot.

mod reach;
mod records;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use uimgacc_mount::{Fetch, FetchSettings, Fetched, Lead, Opens, ReadAhead};
use uimgacc_profile::{FileReads, Profile};
use uimgacc_types::{ChainId, with_causes};

use crate::error::Error;
use crate::metrics::Metrics;
use reach::Reach;
use records::{Recording, Records};

/// The name of the file in a chain's folder.
const FILE: &str = "read-ahead.json";
/// A start is over when nothing was opened or read from one look at the page cache to the next. There is
/// one when nothing was opened for so long.
const LOOK_EVERY: Duration = Duration::from_millis(2500);
/// It is over then in any case.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a start looks at its end.
const STEP: Duration = Duration::from_millis(200);
/// How long whoever unmounts waits for a start to let go of the mount.
const LETTING_GO: Duration = Duration::from_secs(1);
/// Of the memory that is free, this part may be filled with what is read ahead.
const MEMORY_SHARE: u64 = 4;
/// What the kernel reads ahead by itself (`VM_READAHEAD_PAGES`). A profile that was recorded at that is
/// coarse: about half of it is not touched.
const KERNEL_READ_AHEAD_KB: u32 = 128;
/// How many starts are remembered.
const MAX_REMEMBERED: usize = 1024;

/// How starts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartSettings {
    /// Read-ahead in KiB while an image with a profile starts.
    pub starting_kb: u32,
    /// Read-ahead in KiB afterwards.
    pub serving_kb: u32,
    /// Reads at the same time.
    pub readers: usize,
    /// Bytes a second that are read ahead, all of a start together; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// Whether what a first start reads is kept, to be taken by somebody who may write to the store.
    pub record: bool,
}

/// How an image was started, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StartReport {
    /// Milliseconds from the first request to the mount.
    pub mounted_ms: u64,
    /// Whether the image has a profile.
    pub profile: bool,
    /// Bytes that the profile lists.
    pub listed_bytes: u64,
    /// Bytes that were read ahead.
    pub fetched_bytes: u64,
    /// How many milliseconds that took; `None` while it is under way.
    pub fetched_ms: Option<u64>,
    /// Milliseconds from the mount to the first file that was opened.
    pub first_open_ms: Option<u64>,
    /// Milliseconds from the mount until it was serving.
    pub serving_ms: Option<u64>,
    /// Files that were opened meanwhile.
    pub files_opened: usize,
    /// Whether what it read waits to be taken: `GET /records/<chain>`.
    pub recorded: bool,
}

/// The starts of a node.
#[derive(Debug)]
pub(crate) struct Starts {
    settings: StartSettings,
    boot_id: String,
    metrics: Arc<Metrics>,
    running: Mutex<HashMap<ChainId, Arc<Start>>>,
    reports: Mutex<HashMap<ChainId, StartReport>>,
    records: Records,
}

/// A mount that was just made.
#[derive(Debug)]
pub(crate) struct NewMount<'a> {
    /// Of which image.
    pub chain: ChainId,
    /// The chain's own folder.
    pub folder: &'a Path,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Where its read-ahead is set, where that was found.
    pub read_ahead: Option<ReadAhead>,
    /// What its starts read.
    pub profile: Option<Profile>,
    /// When it was asked for.
    pub asked: Instant,
}

/// A start under way.
#[derive(Debug, Default)]
struct Start {
    stop: AtomicBool,
    /// How many threads have the mount open.
    holding: Mutex<usize>,
    let_go: Condvar,
    /// How far the list may be ahead.
    lead: Lead,
}

/// What stands in [`FILE`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    boot_id: String,
    read_ahead: ReadAhead,
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Starts {
    /// None yet.
    #[must_use]
    pub(crate) fn new(settings: StartSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            boot_id: uimgacc_store::boot_id(),
            metrics,
            running: Mutex::default(),
            reports: Mutex::default(),
            records: Records::default(),
        }
    }

    /// How the chain was started, where this process did it.
    #[must_use]
    pub(crate) fn report(&self, chain: ChainId) -> Option<StartReport> {
        let report = self.reports.lock().get(&chain).cloned()?;
        let recorded = self.records.has(chain);
        Some(StartReport { recorded, ..report })
    }

    /// What the chain's first start read, encoded, where that waits to be taken.
    #[must_use]
    pub(crate) fn recorded(&self, chain: ChainId) -> Option<Vec<u8>> {
        self.records.get(chain)
    }

    /// That was taken, or is not wanted; says whether there was any.
    pub(crate) fn drop_record(&self, chain: ChainId) -> bool {
        self.records.remove(chain)
    }

    /// Starts what a new mount needs, in threads of its own. Only opens some files itself.
    pub(crate) fn begin(self: &Arc<Self>, mount: NewMount<'_>) {
        let mounted = Instant::now();
        let has_profile = mount.profile.is_some();
        let mut report = StartReport {
            mounted_ms: milliseconds(mount.asked.elapsed()),
            profile: has_profile,
            ..StartReport::default()
        };
        match &mount.read_ahead {
            Some(read_ahead) => {
                self.keep(mount.folder, read_ahead);
                if has_profile {
                    // What is opened now reads in large steps.
                    self.set(mount.chain, read_ahead, self.settings.serving_kb);
                }
            }
            None => {
                self.metrics.read_ahead_not_found();
                tracing::debug!(chain = %mount.chain, "where its read-ahead is set was not found");
            }
        }
        let fetch = mount.profile.as_ref().and_then(|profile| {
            Fetch::prepare(&mount.target, profile, may_take())
                .inspect_err(
                    |error| tracing::warn!(chain = %mount.chain, %error, "cannot read ahead"),
                )
                .ok()
        });
        report.listed_bytes = mount.profile.as_ref().map_or(0, Profile::len_bytes);
        let is_coarse = (mount.profile.as_ref())
            .is_some_and(|profile| profile.read_ahead_kb >= KERNEL_READ_AHEAD_KB);
        if let Some(read_ahead) = &mount.read_ahead
            && has_profile
        {
            self.set(mount.chain, read_ahead, self.settings.starting_kb);
        }
        let recording = Recording {
            read_ahead_kb: mount
                .read_ahead
                .as_ref()
                .and_then(|read_ahead| read_ahead.get().ok())
                .unwrap_or(KERNEL_READ_AHEAD_KB),
            known: mount.profile,
        };
        let opens = Opens::listen(&mount.target)
            .inspect_err(
                |error| tracing::debug!(chain = %mount.chain, %error, "cannot see what is opened"),
            )
            .ok();
        self.metrics.started(has_profile);
        self.remember(mount.chain, report);
        let start = Arc::new(Start::default());
        self.running.lock().insert(mount.chain, start.clone());
        let (this, chain) = (self.clone(), mount.chain);
        let read_ahead = mount.read_ahead;
        let reach = Reach::new(fetch.as_ref().map(Fetch::files).unwrap_or_default());
        if let Some(fetch) = fetch {
            let (this, start) = (this.clone(), start.clone());
            let read_ahead = read_ahead.clone();
            self.spawn("fetch", &start.clone(), move || {
                let is_left = this.fetch(chain, &start, fetch, is_coarse, mounted);
                // The start goes on as one without a profile.
                if let Some(read_ahead) = read_ahead.filter(|_| is_left) {
                    this.set(chain, &read_ahead, KERNEL_READ_AHEAD_KB);
                }
            });
        }
        self.spawn("start", &start.clone(), move || {
            let opens = this.follow(chain, &start, opens, reach, mounted);
            start.lead.end();
            this.record(chain, &start, opens, recording);
            if let Some(read_ahead) = &read_ahead {
                this.set(chain, read_ahead, this.settings.serving_kb);
            }
            this.serving(chain, &start, mounted);
        });
    }

    fn spawn(&self, name: &str, start: &Arc<Start>, work: impl FnOnce() + Send + 'static) {
        *start.holding.lock() += 1;
        let guard = Holding(start.clone());
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _guard = guard;
            work();
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot start a thread; the image serves without");
        }
    }

    /// Says whether the list was left.
    fn fetch(
        &self,
        chain: ChainId,
        start: &Start,
        fetch: Fetch,
        is_coarse: bool,
        mounted: Instant,
    ) -> bool {
        let settings = FetchSettings {
            readers: self.settings.readers,
            bytes_per_second: self.settings.bytes_per_second,
            deadline: LIMIT,
            is_coarse,
        };
        let fetched = fetch.run(&settings, &start.lead, &start.stop);
        self.metrics.fetched(&fetched);
        self.change(chain, |report| {
            report.fetched_bytes = fetched.bytes;
            report.fetched_ms = Some(milliseconds(mounted.elapsed()));
        });
        let Fetched {
            bytes,
            failed,
            is_whole,
            is_left,
            took,
        } = fetched;
        tracing::debug!(%chain, bytes, failed, is_whole, is_left, ?took, "read ahead");
        is_left
    }

    /// Waits until the start is over; gives back what was opened.
    fn follow(
        &self,
        chain: ChainId,
        start: &Start,
        mut opens: Option<Opens>,
        mut reach: Reach,
        mounted: Instant,
    ) -> Option<Opens> {
        let (mut known, mut cached) = (0, None);
        let mut last = None;
        while mounted.elapsed() < LIMIT && !start.stop.load(Ordering::Relaxed) {
            let heard = match &mut opens {
                Some(opens) => opens.wait(STEP),
                None => {
                    thread::sleep(STEP);
                    Ok(false)
                }
            };
            match heard {
                Ok(true) => {
                    (last, cached) = (Some(Instant::now()), None);
                    let files = opens.as_ref().map_or(0, Opens::len);
                    let new = opens.as_ref();
                    let new = new.map_or(&[][..], |opens| opens.files_after(known));
                    known += new.len();
                    new.iter().for_each(|path| reach.open(path));
                    start.lead.set(reach.limit());
                    self.change(chain, |report| {
                        report.files_opened = files;
                        report
                            .first_open_ms
                            .get_or_insert_with(|| milliseconds(mounted.elapsed()));
                    });
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%chain, %error, "cannot see what is opened");
                    opens = None;
                    start.lead.set(None);
                }
            }
            // Without listening only the limit ends it; the other thread is that of the list.
            let quiet = last.filter(|_| opens.is_some());
            let quiet = quiet.map_or(Duration::ZERO, |last| last.elapsed());
            let is_list_done = *start.holding.lock() <= 1 || start.lead.is_waited_for();
            if quiet < LOOK_EVERY || !is_list_done {
                continue;
            }
            // What is mapped is read without being opened: over a slow link for seconds on end.
            let files = opens.as_ref().and_then(|opens| opens.pages().ok());
            let bytes: u64 = files.iter().flatten().map(FileReads::len_bytes).sum();
            if cached.replace(bytes) == Some(bytes) {
                break;
            }
            last = Some(Instant::now());
        }
        opens
    }

    /// Keeps what the start read, where that is news.
    fn record(&self, chain: ChainId, start: &Start, opens: Option<Opens>, recording: Recording) {
        let is_wanted =
            self.settings.record && !start.stop.load(Ordering::Relaxed) && recording.is_due();
        let Some(opens) = opens.filter(|_| is_wanted) else {
            return;
        };
        if let Some(record) = recording.record(chain, &opens) {
            let bytes = record.len();
            let kept = self.records.keep(chain, record);
            tracing::debug!(%chain, bytes, kept, "the start was recorded");
        }
    }

    fn serving(&self, chain: ChainId, start: &Arc<Start>, mounted: Instant) {
        self.change(chain, |report| {
            report.serving_ms = Some(milliseconds(mounted.elapsed()));
        });
        if let Some(report) = self.report(chain) {
            tracing::info!(
                %chain,
                profile = report.profile,
                mounted_ms = report.mounted_ms,
                first_open_ms = report.first_open_ms,
                fetched_ms = report.fetched_ms,
                serving_ms = report.serving_ms,
                listed_bytes = report.listed_bytes,
                fetched_bytes = report.fetched_bytes,
                files_opened = report.files_opened,
                "started"
            );
        }
        let mut running = self.running.lock();
        if running
            .get(&chain)
            .is_some_and(|known| Arc::ptr_eq(known, start))
        {
            running.remove(&chain);
        }
    }

    /// Ends the start of a chain that is to be unmounted, and waits a moment until it has let go of
    /// the mount. A reader that hangs in a dead store keeps it: then the unmount says that it is busy.
    pub(crate) fn stop(&self, chain: ChainId) {
        self.reports.lock().remove(&chain);
        self.records.remove(chain);
        let Some(start) = self.running.lock().remove(&chain) else {
            return;
        };
        start.stop.store(true, Ordering::Relaxed);
        let mut holding = start.holding.lock();
        start
            .let_go
            .wait_while_for(&mut holding, |holding| *holding > 0, LETTING_GO);
    }

    /// Takes over a mount of an earlier process: whatever that was about, it serves from now on.
    pub(crate) fn take_over(&self, folder: &Path) {
        let Ok(text) = fs::read(folder.join(FILE)) else {
            return;
        };
        match serde_json::from_slice::<Kept>(&text) {
            Ok(kept) if kept.boot_id == self.boot_id && !self.boot_id.is_empty() => {
                // Not found where it is unmounted: no matter.
                let _ = kept.read_ahead.set(self.settings.serving_kb);
            }
            _ => {}
        }
    }

    /// Removes what is kept in the chain's folder.
    ///
    /// # Errors
    /// The file system's error.
    pub(crate) fn forget(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Best effort, and so not synced: after a crash of the machine it is another boot.
    fn keep(&self, folder: &Path, read_ahead: &ReadAhead) {
        let kept = Kept {
            boot_id: self.boot_id.clone(),
            read_ahead: read_ahead.clone(),
        };
        let path = folder.join(FILE);
        let written = serde_json::to_vec(&kept)
            .map_err(std::io::Error::other)
            .and_then(|text| fs::write(&path, text));
        if let Err(error) = written.map_err(Error::io("write", &path)) {
            tracing::debug!(error = with_causes(&error), "not kept");
        }
    }

    fn set(&self, chain: ChainId, read_ahead: &ReadAhead, kb: u32) {
        if let Err(error) = read_ahead.set(kb) {
            tracing::debug!(%chain, %error, kb, "read-ahead not set");
        }
    }

    fn remember(&self, chain: ChainId, report: StartReport) {
        let mut reports = self.reports.lock();
        if reports.len() < MAX_REMEMBERED || reports.contains_key(&chain) {
            reports.insert(chain, report);
        }
    }

    fn change(&self, chain: ChainId, change: impl FnOnce(&mut StartReport)) {
        if let Some(report) = self.reports.lock().get_mut(&chain) {
            change(report);
        }
    }
}

/// Says when a thread has let go of the mount, also by a panic.
struct Holding(Arc<Start>);

impl Drop for Holding {
    fn drop(&mut self) {
        *self.0.holding.lock() -= 1;
        self.0.let_go.notify_all();
    }
}

/// How many bytes may be read ahead: a part of the memory that is free.
fn may_take() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?
            .trim()
            .strip_suffix(" kB")
    });
    let kb: Option<u64> = available.and_then(|kb| kb.trim().parse().ok());
    kb.map_or(u64::MAX, |kb| (kb << 10) / MEMORY_SHARE)
}
