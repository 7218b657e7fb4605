//! Reading a store again and checking every hash.
//!
//! Checked: each record parses and leads to files that are there; each index has the digest that
//! its records carry, parses, and every chunk of it lies inside a content of a pack's table that is not given up;
//! each table hashes to its pack's name; each content of each pack hashes to what the table says; tables
//! and indexes have sound second copies; each lease can be read; and nothing stands in the store that is not the
//! store's. Of one image that is checked which it needs.

mod indexes;
mod packs;
mod records;

use std::collections::HashSet;
use std::path::PathBuf;

use uimgacc_types::{PackId, chain_ids, with_causes};

use crate::index_file::packs_of;
use crate::lease::lease_files;
use crate::marks::Marks;
use crate::path::StorePath;
use crate::reader::{ReadError, scan_fanned};
use crate::{ImageRecord, StoreReader, strays};

pub(crate) use packs::{DamagedPack, Packs, check as check_packs};

/// What to check.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VerifyOptions {
    /// Contents are not read again.
    pub metadata_only: bool,
    /// Only so many of a hundred parts of the contents are read, chosen by chance.
    pub sample_percent: Option<f64>,
    /// Only what this image needs.
    pub image: Option<ImageRecord>,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// What was read and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Packs read.
    pub packs: u64,
    /// Contents hashed.
    pub contents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Layer and flattened indexes read.
    pub indexes: u64,
    /// Image records read.
    pub images: u64,
    /// Empty for a clean store.
    pub problems: Vec<Problem>,
}

impl Report {
    fn add(&mut self, path: &StorePath, what: impl Into<String>) {
        self.problems.push(Problem {
            path: path.on_host(),
            what: what.into(),
        });
    }

    fn add_error(&mut self, error: ReadError) {
        let what = with_causes(&error);
        let (ReadError::NoStore { root: path }
        | ReadError::TooNew { root: path, .. }
        | ReadError::TooOld { root: path, .. }
        | ReadError::UnknownFeatures { root: path, .. }
        | ReadError::Io { path, .. }
        | ReadError::Damaged { path, .. }
        | ReadError::BrokenImage { path, .. }
        | ReadError::BrokenLease { path, .. }) = error;
        self.problems.push(Problem { path, what });
    }
}

/// What is checked: all, or what one image needs.
#[derive(Debug, Default)]
pub(crate) struct Scope(Option<Marks>);

impl Scope {
    fn of(reader: &StoreReader, image: Option<&ImageRecord>) -> Self {
        Self(image.map(|image| {
            let mut marks = Marks {
                chains: chain_ids(&image.diff_ids).into_iter().collect(),
                layers: image.diff_ids.iter().copied().collect(),
                indexes: [image.chain_id].into(),
                packs: image.index.packs.iter().copied().collect(),
                ..Marks::default()
            };
            for diff_id in &image.diff_ids {
                // One that cannot be read is found when it is checked.
                let packs = packs_of(&reader.layout().layer(*diff_id));
                marks.packs.extend(packs.unwrap_or_default());
            }
            marks
        }))
    }

    pub(crate) fn has_pack(&self, id: PackId) -> bool {
        self.has(|marks| marks.packs.contains(&id))
    }

    fn has(&self, is_marked: impl FnOnce(&Marks) -> bool) -> bool {
        self.0.as_ref().is_none_or(is_marked)
    }
}

/// Checks a store. `progress` is called with the bytes hashed so far.
///
/// # Errors
/// None at present: what fails is a problem in the report.
pub fn verify(
    reader: &StoreReader,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, ReadError> {
    let layout = reader.layout();
    let mut report = Report::default();
    let scope = Scope::of(reader, options.image.as_ref());
    let is_whole = options.image.is_none();
    if is_whole {
        strays::report(layout, &mut |path, what| report.add(path, what));
    }
    let strays: HashSet<PathBuf> = paths(&report.problems);
    if is_whole {
        for file in scanned(lease_files(layout), &mut report) {
            if let Err(error) = file.lease {
                report.add(&file.path, with_causes(&error));
            }
        }
    }
    let packs = check_packs(reader, &scope, options, progress, &mut report)?;
    let indexes = indexes::check(reader, &scope, &packs, &mut report)?;
    if is_whole {
        records::check_filters(reader, &packs, &mut report)?;
        records::check_blobs(reader, &mut report)?;
        records::check_profiles(reader, &mut report)?;
    }
    let chains = records::check_chains(reader, &scope, &indexes, &mut report)?;
    indexes::check_copies(layout, chains.values(), &mut report);
    records::check_images(reader, options.image.as_ref(), &chains, &mut report)?;
    // What is not the store's is reported once, as that.
    let mut seen = HashSet::new();
    report
        .problems
        .retain(|problem| !strays.contains(&problem.path) || seen.insert(problem.path.clone()));
    Ok(report)
}

fn paths(problems: &[Problem]) -> HashSet<PathBuf> {
    problems
        .iter()
        .map(|problem| problem.path.clone())
        .collect()
}

/// What could not be read is a problem.
fn scanned<T: Default>(result: Result<T, ReadError>, report: &mut Report) -> T {
    result.unwrap_or_else(|error| {
        report.add_error(error);
        T::default()
    })
}

/// The store's own files of a directory; what cannot be listed is a problem.
fn files(
    directory: &StorePath,
    suffix: &str,
    report: &mut Report,
) -> Result<Vec<StorePath>, ReadError> {
    scan_fanned(directory, suffix, &mut |error| {
        report.add_error(error);
        Ok(())
    })
}
