//! Deleting images.
//!
//! Two phases: the record and the chains that only this image has go first, so that no node starts
//! another container from them; then leases are looked at once more, and if a node took one
//! meanwhile, all of it comes back. The space goes with a sweep, which looks at the leases again.
//!
//! All of it goes through delete's own directory, also beside a living session: one that was taken
//! for dead after a standstill changes nothing more (see [`crate::workspace`]).

use std::collections::HashSet;

use uimgacc_types::{ChainId, chain_ids};

use crate::error::SessionError;
use crate::exclusive::{Attempt, Exclusive};
use crate::gc::keep_retired;
use crate::path::StorePath;
use crate::publish::note_former;
use crate::reader::ReadError;
use crate::workspace::Workspace;
use crate::{ImageRecord, StoreReader, holders};

/// Why an image was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// There is no record of it.
    #[error("there is no image {0} in the store (`uimgacc get` lists them)")]
    NoImage(String),
    /// Somebody has it mounted.
    #[error("{target} is in use by {}: stop what uses it, or delete with --force", .holders.join(", "))]
    InUse {
        /// The image.
        target: String,
        /// Who.
        holders: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SessionError),
}

impl From<ReadError> for DeleteError {
    fn from(error: ReadError) -> Self {
        Self::Store(error.into())
    }
}

/// Deletes the image with this (normalised) target reference; its space goes with a sweep.
///
/// While a session lives only the image's record goes: the session may count on the chains. The
/// next sweep takes those away.
///
/// # Errors
/// No such image, somebody holds it (and `force` is not set), or the store's error.
pub fn delete(reader: &StoreReader, target: &str, force: bool) -> Result<ImageRecord, DeleteError> {
    let find = || -> Result<(ImageRecord, Vec<ChainId>), DeleteError> {
        let Some(image) = reader.image(target)? else {
            return Err(DeleteError::NoImage(target.to_owned()));
        };
        let own = own_chains(reader, &image)?;
        let holders = if force {
            Vec::new()
        } else {
            holders(reader, &own)?
        };
        if holders.is_empty() {
            return Ok((image, own));
        }
        Err(DeleteError::InUse {
            target: image.target,
            holders,
        })
    };
    reader.check_writable()?;
    // Whoever is refused anyhow makes nobody wait.
    find()?;
    let (intent, chains_go) = match Exclusive::acquire(reader.layout())? {
        Attempt::Alone(Exclusive(intent)) => (intent, true),
        Attempt::Busy { intent, .. } => (intent, false),
    };
    let workspace = intent.workspace();
    let (image, own) = find()?;
    let going = if chains_go { own.as_slice() } else { &[] };
    delete_in(reader, workspace, &image, &own, going, force).map_err(|error| match error {
        DeleteError::Store(error) => DeleteError::Store(workspace.explain(error)),
        refused => refused,
    })?;
    Ok(image)
}

/// Deletes an image, whose own chains are `own`, and the chains `going` through the own directory. The removal of the image's record
/// is the deletion: what is cut short before it changed nothing that anybody sees, and what is cut
/// short after it is completed by gc, which keeps what a lease names.
fn delete_in(
    reader: &StoreReader,
    workspace: &Workspace,
    image: &ImageRecord,
    own: &[ChainId],
    going: &[ChainId],
    force: bool,
) -> Result<(), DeleteError> {
    let layout = reader.layout();
    let stored = SessionError::from;
    let path = layout.image(&image.target);
    // All that may have to come back is written beforehand: then it takes no space and cannot fail
    // halfway. Copies, as the records themselves must be unlinked before leases are read again (see
    // `keep_retired`).
    let copy = workspace.stage_json(&path, image).map_err(stored)?;
    let mut copies: Vec<(StorePath, StorePath)> = vec![(copy, path.clone())];
    if !force {
        for chain in going {
            if let Some(record) = keep_retired(reader, workspace, *chain)? {
                let path = layout.chain(*chain);
                let copy = workspace.stage_json(&path, &record).map_err(stored)?;
                copies.push((copy, path));
            }
        }
    }
    workspace.remove(&path).map_err(stored)?;
    // The longest first: no chain is without its prefixes.
    for chain in going.iter().rev() {
        if force {
            note_former(layout, workspace, *chain)?;
        }
        workspace.remove(&layout.chain(*chain)).map_err(stored)?;
        if force {
            // Leases count no more: nothing is kept for them.
            workspace
                .remove(&layout.retired_chain(*chain))
                .map_err(stored)?;
        }
    }
    if force {
        return Ok(());
    }
    let holders = holders(reader, own)?;
    if holders.is_empty() {
        return Ok(());
    }
    // Chains from the shortest on, the image that needs them last.
    copies.rotate_left(1);
    for (copy, path) in copies {
        workspace.publish(&copy, &path).map_err(stored)?;
    }
    Err(DeleteError::InUse {
        target: image.target.clone(),
        holders,
    })
}

/// The chains that no other image has.
fn own_chains(reader: &StoreReader, image: &ImageRecord) -> Result<Vec<ChainId>, ReadError> {
    let shared: HashSet<ChainId> = reader
        .images()?
        .iter()
        .filter(|other| other.target != image.target)
        .flat_map(|other| chain_ids(&other.diff_ids))
        .collect();
    Ok(chain_ids(&image.diff_ids)
        .into_iter()
        .filter(|chain| !shared.contains(chain))
        .collect())
}
