//! Records and filters.

use std::collections::HashMap;

use uimgacc_types::{ChainId, Digest, with_causes};

use super::indexes::Indexes;
use super::{Packs, Report, Scope, files};
use crate::filters::read_filter_file;
use crate::layout::PROFILE_SUFFIX;
use crate::reader::{ReadError, id_of, read_json};
use crate::{ChainRecord, ImageRecord, StoreReader};

/// Files of filters are advice, but one that denies what its pack has makes contents be written twice.
pub(super) fn check_filters(
    reader: &StoreReader,
    packs: &Packs,
    report: &mut Report,
) -> Result<(), ReadError> {
    for path in files(&reader.layout().directory("filters"), "filter", report)? {
        let filters = match read_filter_file(&path) {
            Ok(filters) => filters.unwrap_or_default(),
            Err(error) => {
                report.add(&path, with_causes(&error));
                continue;
            }
        };
        for filter in filters {
            let contents = packs.live.get(&filter.pack);
            let keys = contents.into_iter().flat_map(|contents| contents.keys());
            let denied = keys.filter(|key| !filter.may_have(*key)).count();
            if denied > 0 {
                let pack = filter.pack;
                report.add(&path, format!("denies {denied} contents of pack {pack}"));
            }
        }
    }
    Ok(())
}

pub(super) fn check_blobs(reader: &StoreReader, report: &mut Report) -> Result<(), ReadError> {
    for path in files(&reader.layout().directory("blobs"), "json", report)? {
        let id = id_of(&path, |id| Digest::from_hex(id).ok())?;
        if let Err(error) = reader.verified_diff_id(id) {
            report.add(&path, with_causes(&error));
        }
    }
    Ok(())
}

pub(super) fn check_profiles(reader: &StoreReader, report: &mut Report) -> Result<(), ReadError> {
    for path in files(
        &reader.layout().directory("profiles"),
        PROFILE_SUFFIX,
        report,
    )? {
        let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        if let Err(error) = reader.profile(id) {
            report.add(&path, with_causes(&error));
        }
    }
    Ok(())
}

pub(super) fn check_chains(
    reader: &StoreReader,
    scope: &Scope,
    indexes: &Indexes,
    report: &mut Report,
) -> Result<HashMap<ChainId, ChainRecord>, ReadError> {
    let mut chains = HashMap::new();
    for path in files(&reader.layout().directory("chains"), "json", report)? {
        let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        if !scope.has(|marks| marks.chains.contains(&id)) {
            continue;
        }
        let record = match reader.chain(id) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                report.add(&path, with_causes(&error));
                continue;
            }
        };
        for layer in &record.layers {
            match indexes.layers.get(&layer.diff_id) {
                Some(digest) if *digest == layer.index_digest => {}
                Some(digest) => report.add(
                    &reader.layout().layer(layer.diff_id),
                    format!("has the digest {digest} instead of {}", layer.index_digest),
                ),
                None => report.add(
                    &path,
                    format!("its layer {} is not in the store", layer.diff_id),
                ),
            }
        }
        if let Some(index) = &record.index
            && indexes.flattened.get(&id) != Some(&index.digest)
        {
            report.add(
                &reader.layout().index(id),
                format!("is missing or has not the digest {}", index.digest),
            );
        }
        chains.insert(id, record);
    }
    Ok(chains)
}

pub(super) fn check_images(
    reader: &StoreReader,
    only: Option<&ImageRecord>,
    chains: &HashMap<ChainId, ChainRecord>,
    report: &mut Report,
) -> Result<(), ReadError> {
    for path in files(&reader.layout().directory("images"), "json", report)? {
        if only.is_some_and(|image| reader.layout().image(&image.target) != path) {
            continue;
        }
        let record = match read_json::<ImageRecord>(&path) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                report.add(&path, with_causes(&error));
                continue;
            }
        };
        report.images += 1;
        if reader.layout().image(&record.target) != path {
            report.add(
                &path,
                format!("it is the record of {}, under a wrong name", record.target),
            );
        }
        for chain_id in uimgacc_types::chain_ids(&record.diff_ids) {
            if !chains.contains_key(&chain_id) {
                report.add(&path, format!("its chain {chain_id} is not in the store"));
            }
        }
        let index = chains
            .get(&record.chain_id)
            .and_then(|chain| chain.index.as_ref());
        if index != Some(&record.index) {
            report.add(&path, "its flattened index is not the one of its chain");
        }
    }
    Ok(())
}
