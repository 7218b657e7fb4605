//! The files of filters: `filters/<aa>/<hash>.filter`. Sessions add one each, and gc makes them few.

use std::collections::HashSet;

use uimgacc_types::{ContentHash, PackId};

use crate::error::SessionError;
use crate::filter::{self, PackFilter};
use crate::format::MAX_INDEX_BYTES;
use crate::layout::Layout;
use crate::path::StorePath;
use crate::reader::{ReadError, damaged, list_fanned, sound, there, unreadable};
use crate::workspace::Workspace;

/// gc leaves so many files, but for those that are longer than all shorter ones together.
const MAX_FILES: usize = 8;

/// Every file of filters with what is in it; damaged ones are logged and passed over.
pub(crate) fn read_filters(
    layout: &Layout,
) -> Result<Vec<(StorePath, Vec<PackFilter>)>, ReadError> {
    let mut files = Vec::new();
    for path in list_fanned(&layout.directory("filters"), "filter")? {
        if let Some(filters) = sound(read_filter_file(&path))?.flatten() {
            files.push((path, filters));
        }
    }
    Ok(files)
}

/// One file of filters; `None` where it is gone.
pub(crate) fn read_filter_file(path: &StorePath) -> Result<Option<Vec<PackFilter>>, ReadError> {
    let Some(bytes) = there(path.read(MAX_INDEX_BYTES)).map_err(unreadable(path))? else {
        return Ok(None);
    };
    filter::parse(&bytes).map(Some).map_err(damaged(path))
}

/// Writes a file of filters, if there are any; gives its path.
pub(crate) fn publish_filters<'f>(
    layout: &Layout,
    workspace: &Workspace,
    filters: impl IntoIterator<Item = &'f PackFilter, IntoIter: Clone>,
) -> Result<Option<StorePath>, SessionError> {
    let filters = filters.into_iter();
    if filters.clone().next().is_none() {
        return Ok(None);
    }
    let bytes = filter::encode(filters);
    let name = ContentHash::from_bytes(*blake3::hash(&bytes).as_bytes());
    let path = layout.filters(name);
    workspace.publish(&workspace.stage(&bytes, &path)?, &path)?;
    Ok(Some(path))
}

/// Makes the files few: short ones become one, and filters of packs that are gone go. Damaged files go too.
/// For who has the store alone.
pub(crate) fn merge_filters(
    layout: &Layout,
    workspace: &Workspace,
    packs: &HashSet<PackId>,
) -> Result<(), SessionError> {
    let paths = list_fanned(&layout.directory("filters"), "filter")?;
    let mut files = read_filters(layout)?;
    for path in paths {
        if files.iter().all(|(sound, _)| *sound != path) {
            workspace.remove(&path)?;
        }
    }
    let size = |filters: &[PackFilter]| filters.iter().map(PackFilter::bytes).sum::<usize>();
    files.sort_by_key(|(_, filters)| size(filters));
    let excess = files.len().saturating_sub(MAX_FILES);
    let mut merged_bytes = 0;
    let mut merged = Vec::new();
    let mut rest = Vec::new();
    for (number, (path, filters)) in files.into_iter().enumerate() {
        let bytes = size(&filters);
        let is_short = excess > 0 && (number <= excess || bytes <= merged_bytes);
        let has_gone = filters.iter().any(|filter| !packs.contains(&filter.pack));
        if is_short || has_gone {
            merged_bytes += bytes;
            merged.push((path, filters));
        } else {
            rest.push(filters);
        }
    }
    let mut known: HashSet<PackId> = rest.iter().flatten().map(|filter| filter.pack).collect();
    let kept: Vec<&PackFilter> = merged
        .iter()
        .flat_map(|(_, filters)| filters)
        .filter(|filter| packs.contains(&filter.pack) && known.insert(filter.pack))
        .collect();
    // First the new file: cut short in between, filters are there twice.
    let new = publish_filters(layout, workspace, kept.iter().copied())?;
    for (path, _) in merged.iter().filter(|(path, _)| new.as_ref() != Some(path)) {
        workspace.remove(path)?;
    }
    Ok(())
}
