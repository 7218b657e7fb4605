//! What starts read, until somebody takes it to the store: a node writes none of it there.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};
use uimgacc_mount::Opens;
use uimgacc_profile::{Profile, Record};
use uimgacc_store::is_profile_due;
use uimgacc_types::{ChainId, with_causes};

/// How many are kept. Those that come later are lost: the next first start is recorded as well.
const MAX_KEPT: usize = 32;

/// Records that wait, in memory: at most 8 MiB.
#[derive(Debug, Default)]
pub(super) struct Records(Mutex<HashMap<ChainId, Vec<u8>>>);

/// How a start is recorded.
#[derive(Debug)]
pub(super) struct Recording {
    /// What is known of the image's starts already, and was read ahead.
    pub(super) known: Option<Profile>,
    /// The mount's read-ahead meanwhile.
    pub(super) read_ahead_kb: u32,
}

impl Recording {
    /// Whether a record could be of use.
    pub(super) fn is_due(&self) -> bool {
        self.known.as_ref().is_none_or(is_profile_due)
    }

    /// What the start read, encoded; `None` where that is known.
    ///
    /// With a profile the page cache has what it lists anyway: only what lies outside is new.
    pub(super) fn record(self, chain: ChainId, opens: &Opens) -> Option<Vec<u8>> {
        let files = opens
            .pages()
            .inspect_err(|error| tracing::debug!(%chain, %error, "the start is not recorded"))
            .ok()?;
        if files.is_empty() {
            return None;
        }
        let record = Record::new(self.read_ahead_kb, files);
        if let Some(known) = self.known {
            // Who writes it says where it is from, and when that was.
            let (platform, origin, recorded) = <(String, String, String)>::default();
            let new = record
                .clone()
                .into_profile(chain, platform, origin, recorded);
            known.improved_by(new)?;
        }
        record
            .encode()
            .inspect_err(|error| {
                tracing::warn!(%chain, error = with_causes(error), "the start is not recorded");
            })
            .ok()
    }
}

impl Records {
    /// Keeps one until it is removed; says whether there was room.
    pub(super) fn keep(&self, chain: ChainId, record: Vec<u8>) -> bool {
        let mut kept = self.lock();
        if kept.len() >= MAX_KEPT && !kept.contains_key(&chain) {
            return false;
        }
        kept.insert(chain, record);
        true
    }

    pub(super) fn get(&self, chain: ChainId) -> Option<Vec<u8>> {
        self.lock().get(&chain).cloned()
    }

    pub(super) fn remove(&self, chain: ChainId) -> bool {
        self.lock().remove(&chain).is_some()
    }

    pub(super) fn has(&self, chain: ChainId) -> bool {
        self.lock().contains_key(&chain)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChainId, Vec<u8>>> {
        self.0.lock()
    }
}
