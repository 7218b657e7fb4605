//! What starts of an image read: `profiles/<aa>/<chain-id>.json.zst`, see [`uimgacc_profile`].
//!
//! A profile is advice: an image starts without, and one that is missing or damaged costs time. It
//! goes with its chain.

use std::collections::HashMap;
use std::time::SystemTime;

use uimgacc_erofs::Tree;
use uimgacc_erofs::tree::{ChunkAddress, Contents, InodeId, Kind};
use uimgacc_profile::{MAX_ENCODED_BYTES, Profile, REWRITTEN_EVERY};
use uimgacc_types::{ChainId, ContentHash, PackId, with_causes};

use crate::device::pack_of;
use crate::error::SessionError;
use crate::format::BLOCK_BYTES;
use crate::index_file::{read_index, toc_of};
use crate::machine::rfc3339;
use crate::reader::{ReadError, StoreReader, there, unreadable};
use crate::session::Session;

/// Whether a profile may be written anew by what a node recorded: not shortly after it was written.
#[must_use]
pub fn is_profile_due(profile: &Profile) -> bool {
    let before = SystemTime::now().checked_sub(REWRITTEN_EVERY);
    before.is_some_and(|before| profile.recorded < rfc3339(before))
}

impl StoreReader {
    /// Whether the chain has a profile, sound or not.
    #[must_use]
    pub fn has_profile(&self, chain_id: ChainId) -> bool {
        matches!(self.layout().profile(chain_id).exists(), Ok(true))
    }

    /// The profile of the chain; `None` where it has none.
    ///
    /// # Errors
    /// The file system's error, or a file that is no profile of this chain.
    pub fn profile(&self, chain_id: ChainId) -> Result<Option<Profile>, ReadError> {
        let path = self.layout().profile(chain_id);
        let Some(bytes) = there(path.read(MAX_ENCODED_BYTES)).map_err(unreadable(&path))? else {
            return Ok(None);
        };
        let damaged = |reason| ReadError::Damaged {
            path: path.on_host(),
            reason,
        };
        let profile = Profile::decode(&bytes).map_err(|error| damaged(with_causes(&error)))?;
        if profile.chain_id == chain_id {
            return Ok(Some(profile));
        }
        Err(damaged(format!(
            "it is the profile of {}",
            profile.chain_id
        )))
    }
}

impl Session {
    /// Writes a profile in place of the one that its chain had.
    ///
    /// # Errors
    /// It is beyond its bounds, or the store cannot be written.
    pub fn publish_profile(&self, profile: &Profile) -> Result<(), SessionError> {
        let bytes = profile.encode().map_err(SessionError::Profile)?;
        let path = self.reader().layout().profile(profile.chain_id);
        let workspace = self.workspace();
        workspace.replace(&workspace.stage(&bytes, &path)?, &path)?;
        Ok(())
    }

    /// Removes the profile of a chain; says whether there was one.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn drop_profile(&self, chain_id: ChainId) -> Result<bool, SessionError> {
        let path = self.reader().layout().profile(chain_id);
        Ok(self.workspace().remove(&path)?)
    }

    /// Adds to the files of the profile what the store knows of their contents. Files that the image
    /// does not have (or not in a pack) go, and so do pages behind their ends: nothing is to be read
    /// ahead of them.
    ///
    /// # Errors
    /// The chain's index or a table of its packs cannot be read.
    pub fn with_contents(&self, mut profile: Profile) -> Result<Profile, SessionError> {
        let contents = self.contents(profile.chain_id)?;
        profile.files.retain_mut(|file| {
            let Some(found) = contents.get(file.path.as_bytes()) else {
                return false;
            };
            file.content = found.hash;
            file.runs.retain_mut(|run| run.cut(found.len_bytes));
            !file.runs.is_empty()
        });
        Ok(profile)
    }

    /// The profile of an older image, for the image of `chain_id`: of files that are the same in both.
    ///
    /// # Errors
    /// As for [`Self::with_contents`].
    pub fn carried_over(
        &self,
        profile: Profile,
        chain_id: ChainId,
    ) -> Result<Option<Profile>, SessionError> {
        let contents = self.contents(chain_id)?;
        let kept = profile.carried_over(|file| {
            let found = contents.get(file.path.as_bytes());
            file.content.is_some() && found.and_then(|found| found.hash) == file.content
        });
        Ok(kept.map(|profile| Profile {
            chain_id,
            ..profile
        }))
    }

    fn contents(&self, chain_id: ChainId) -> Result<ContentsOf, SessionError> {
        let layout = self.reader().layout();
        let path = layout.index(chain_id);
        let Some((tree, _, _)) = read_index(&path)? else {
            return Err(SessionError::Vanished {
                path: path.on_host(),
            });
        };
        let mut packs = HashMap::new();
        for id in tree.devices.iter().filter_map(pack_of) {
            let entries = toc_of(layout, id)?.map_or_else(Vec::new, |toc| toc.entries);
            let by_place = entries
                .into_iter()
                .map(|(hash, extent)| (extent.offset_bytes, hash));
            packs.insert(id, by_place.collect());
        }
        Ok(ContentsOf { tree, packs })
    }
}

/// Finds the content of each file of an image.
struct ContentsOf {
    tree: Tree,
    packs: HashMap<PackId, HashMap<u64, ContentHash>>,
}

/// A file in a pack.
struct Found {
    /// `None` where it has several contents: it is sparse.
    hash: Option<ContentHash>,
    len_bytes: u64,
}

impl ContentsOf {
    /// `None` where the image has no such file in a pack.
    fn get(&self, path: &[u8]) -> Option<Found> {
        let mut inode: InodeId = Tree::ROOT;
        for name in path.split(|byte| *byte == b'/') {
            inode = *self.tree.inode(inode).entries()?.get(name)?;
        }
        let Kind::Regular(Contents::Chunks(contents)) = &self.tree.inode(inode).kind else {
            return None;
        };
        let is_whole = contents.chunks.iter().all(Option::is_some);
        let start = contents.chunks.first().copied().flatten();
        let start = start.filter(|_| is_whole);
        Some(Found {
            hash: start.and_then(|start| self.content_at(start)),
            len_bytes: contents.size_bytes,
        })
    }

    fn content_at(&self, start: ChunkAddress) -> Option<ContentHash> {
        let pack = pack_of(self.tree.devices.get(usize::from(start.device))?)?;
        let offset = u64::from(start.start_block) * BLOCK_BYTES;
        self.packs.get(&pack)?.get(&offset).copied()
    }
}
