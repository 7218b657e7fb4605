//! Deleting images.
//!
//! Two phases: the record and the chains that only this image has go first, so that no node starts
//! another container from them; then leases are looked at once more, and if a node took one
//! meanwhile, all of it comes back. The space goes with a sweep, which looks at the leases again.

use std::collections::HashSet;

use uimgacc_types::{ChainId, chain_ids};

use crate::commit::{publish_json, remove_file};
use crate::exclusive::{Attempt, Exclusive};
use crate::gc::retire;
use crate::reader::ReadError;
use crate::session::SessionError;
use crate::{ChainRecord, ImageRecord, StoreReader, leases};

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
    // Whoever is refused anyhow makes nobody wait.
    find()?;
    let layout = reader.layout();
    let attempt = Exclusive::acquire(layout)?;
    let (image, own) = find()?;
    remove_file(&layout.image(&image.target)).map_err(SessionError::from)?;
    let mut taken: Vec<ChainRecord> = Vec::new();
    if matches!(attempt, Attempt::Alone(_)) {
        for chain in own.iter().rev() {
            taken.extend(reader.chain(*chain)?);
            if force {
                // Leases count no more: nothing is kept for them.
                remove_file(&layout.chain(*chain)).map_err(SessionError::from)?;
                remove_file(&layout.retired_chain(*chain)).map_err(SessionError::from)?;
            } else {
                retire(reader, *chain)?;
            }
        }
    }
    let holders = holders(reader, &own)?;
    if force || holders.is_empty() {
        return Ok(image);
    }
    for record in taken.iter().rev() {
        publish_json(layout, &layout.chain(record.chain_id), record).map_err(SessionError::from)?;
    }
    publish_json(layout, &layout.image(&image.target), &image).map_err(SessionError::from)?;
    Err(DeleteError::InUse {
        target: image.target,
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

/// Who holds one of these chains.
///
/// # Errors
/// The file system's error, or a damaged lease.
pub fn holders(reader: &StoreReader, chains: &[ChainId]) -> Result<Vec<String>, ReadError> {
    Ok(leases(reader.layout())?
        .into_iter()
        .filter(|lease| lease.holds() && lease.chains.iter().any(|chain| chains.contains(chain)))
        .map(|lease| lease.holder)
        .collect())
}
