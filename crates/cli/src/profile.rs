//! `uimgacc profile`.

mod drop;
mod export;
mod import;
pub(crate) mod record;
mod show;

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;
use uimgacc_console::{Printer, bytes};
use uimgacc_control::ImageProfile;
use uimgacc_profile::Profile as Data;
use uimgacc_store::{ImageRecord, Session, StoreReader};

use crate::images::summary;

/// Record, show or drop what starts of an image read, so that nodes read it ahead.
#[derive(Debug, Subcommand)]
pub(crate) enum Profile {
    Record(record::Record),
    Show(show::Show),
    Export(export::Export),
    Import(import::Import),
    Drop(drop::Drop),
}

impl Profile {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self {
            Self::Record(verb) => verb.run(printer),
            Self::Show(verb) => verb.run(printer),
            Self::Export(verb) => verb.run(printer),
            Self::Import(verb) => verb.run(printer),
            Self::Drop(verb) => verb.run(printer),
        }
    }
}

/// A profile as people and machines see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ProfileView {
    target_image: String,
    #[serde(flatten)]
    profile: ImageProfile,
    runs: usize,
}

impl ProfileView {
    pub(crate) fn new(image: &ImageRecord, profile: &Data) -> Self {
        Self {
            target_image: image.target.clone(),
            profile: summary(profile),
            runs: profile.runs(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let profile = &self.profile;
        let starts = if profile.starts == 1 {
            "start"
        } else {
            "starts"
        };
        format!(
            "{}: a start reads {} of {} files ({} {starts}, the last one: {}; recorded {} at a read-ahead of {} KiB)",
            self.target_image,
            bytes(profile.bytes),
            profile.files,
            profile.starts,
            profile.origin,
            profile.recorded,
            profile.read_ahead_kb,
        )
    }
}

/// The image's profile, which must be there.
fn existing(store: &StoreReader, image: &ImageRecord) -> anyhow::Result<Data> {
    store.profile(image.chain_id)?.with_context(|| {
        format!(
            "{} has no profile: `uimgacc profile record` makes one",
            image.target
        )
    })
}

/// Writes what was recorded; adds it to what was recorded before unless `replace` says otherwise.
pub(crate) fn publish(session: &Session, new: Data, replace: bool) -> anyhow::Result<Data> {
    let new = session.with_contents(new)?;
    let known = if replace {
        None
    } else {
        // A damaged one is no reason to have none.
        session.reader().profile(new.chain_id).ok().flatten()
    };
    let profile = match known {
        Some(known) => known.merged_with(new),
        None => new.within_bounds(),
    };
    session.publish_profile(&profile)?;
    Ok(profile)
}

/// Reads a profile that `profile export` wrote, for an image that may be another one: what the two do
/// not have in common is left out.
pub(crate) fn read_file(
    session: &Session,
    image: &ImageRecord,
    file: &std::path::Path,
) -> anyhow::Result<Data> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let profile =
        Data::from_json(&text).with_context(|| format!("cannot use {}", file.display()))?;
    if profile.chain_id == image.chain_id {
        return Ok(profile);
    }
    session
        .carried_over(profile, image.chain_id)?
        .with_context(|| {
            format!(
                "{} is the profile of another image, which shares none of its files with {}",
                file.display(),
                image.target
            )
        })
}
