//! Image records as people name and see them.

use anyhow::Context as _;
use serde::Serialize;
use uimgacc_control::ImageProfile;
use uimgacc_profile::Profile;
use uimgacc_store::{ImageRecord, StoreReader};
use uimgacc_types::{ImageReference, Meant, meant};

/// A profile in short. Lengths in bytes.
pub(crate) fn summary(profile: &Profile) -> ImageProfile {
    ImageProfile {
        recorded: profile.recorded.clone(),
        origin: profile.origin.clone(),
        starts: profile.starts,
        read_ahead_kb: profile.read_ahead_kb,
        files: profile.files.len() as u64,
        bytes: profile.len_bytes(),
    }
}

/// An image as `get -o json` prints it: the API's fields, then ours. Lengths in bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImageView<'a> {
    original_image: &'a str,
    target_image: &'a str,
    size: u64,
    layers: usize,
    compressed_size: u64,
    inodes: u64,
    platform: &'a str,
    created: &'a str,
    pushed: bool,
    original_digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_digest: Option<String>,
    image_id: String,
    chain_id: String,
    index_digest: String,
    index_bytes: u64,
    packs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<ImageProfile>,
}

impl<'a> ImageView<'a> {
    pub(crate) fn new(reader: &StoreReader, record: &'a ImageRecord) -> Self {
        Self {
            original_image: &record.original,
            target_image: &record.target,
            size: record.size,
            layers: record.diff_ids.len(),
            compressed_size: record.compressed_size,
            inodes: record.inodes,
            platform: &record.platform,
            created: &record.created,
            pushed: record.target_digest.is_some(),
            original_digest: record.original_digest.to_string(),
            target_digest: record.target_digest.map(|digest| digest.to_string()),
            image_id: record.config_digest.to_string(),
            chain_id: record.chain_id.to_string(),
            index_digest: record.index.digest.to_string(),
            index_bytes: record.index.size,
            packs: record.index.packs.len(),
            // One that cannot be read is none for the nodes too; `profile show` says why.
            profile: {
                let profile = reader.profile(record.chain_id).ok().flatten();
                profile.as_ref().map(summary)
            },
        }
    }
}

/// The record that `name` means.
pub(crate) fn find(reader: &StoreReader, name: &str) -> anyhow::Result<ImageRecord> {
    let reference: ImageReference = name.parse().context("cannot understand the image's name")?;
    let normalised = reference.to_string();
    let record = reader.image(&normalised);
    let record = record.with_context(|| format!("cannot read what is known of {normalised}"))?;
    if let Some(record) = record {
        return Ok(record);
    }
    let images = reader.all_images()?;
    let meant = meant(&normalised, images.readable, |record| {
        (record.original.as_str(), record.target.as_str())
    });
    match meant {
        Meant::One(record) => Ok(record),
        Meant::Several(records) => anyhow::bail!(
            "{normalised} was accelerated as {} images, {} among them: name the target image",
            records.len(),
            records.last().map_or("", |record| record.target.as_str())
        ),
        Meant::None => match images.broken.into_iter().next() {
            // It may be that one.
            Some(error) => Err(error)
                .with_context(|| format!("cannot look for the image {normalised} in the store")),
            None => anyhow::bail!(
                "there is no image {normalised} in the store (`uimgacc get` lists them)"
            ),
        },
    }
}
