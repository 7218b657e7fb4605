//! Several starts in one profile.

use std::collections::HashMap;
use std::time::Duration;

use crate::format::{FileReads, Profile, Run};

/// A profile is written anew by what nodes record no sooner: a few times a day.
pub const REWRITTEN_EVERY: Duration = Duration::from_secs(6 * 3600);

/// A profile is worth writing anew where more than one byte in so many is another.
const WORTH_ONE_IN: u64 = 10;

impl Profile {
    /// Adds what other starts of the image read. Files that more of the starts read come first; among
    /// those the order of `self` stands, then that of `other`.
    #[must_use]
    pub fn merged_with(self, other: Self) -> Self {
        let mut files = self.files;
        let mut places: HashMap<String, usize> = files
            .iter()
            .enumerate()
            .map(|(place, file)| (file.path.clone(), place))
            .collect();
        for file in other.files {
            let known = places
                .get(&file.path)
                .and_then(|place| files.get_mut(*place));
            match known {
                Some(known) => {
                    known.starts = known.starts.saturating_add(file.starts);
                    known.runs = union(&known.runs, &file.runs);
                    known.content = known.content.or(file.content);
                }
                None => {
                    places.insert(file.path.clone(), files.len());
                    files.push(file);
                }
            }
        }
        // Stable: within the same weight the order stands.
        files.sort_by_key(|file| std::cmp::Reverse(file.starts));
        Self {
            recorded: other.recorded,
            origin: other.origin,
            read_ahead_kb: self.read_ahead_kb.max(other.read_ahead_kb),
            starts: self.starts.saturating_add(other.starts),
            files,
            ..self
        }
        .within_bounds()
    }

    /// `self` with what another start read, where that is worth writing.
    #[must_use]
    pub fn improved_by(&self, other: Self) -> Option<Self> {
        let merged = self.clone().merged_with(other);
        self.differs_from(&merged).then_some(merged)
    }

    /// Whether more than a tenth of the bytes of `self` and `new` together are in one of them only.
    #[must_use]
    pub fn differs_from(&self, new: &Self) -> bool {
        let ours: HashMap<&str, &FileReads> = self
            .files
            .iter()
            .map(|file| (file.path.as_str(), file))
            .collect();
        let in_both: u64 = new
            .files
            .iter()
            .filter_map(|file| Some((ours.get(file.path.as_str())?, file)))
            .map(|(ours, file)| {
                let together: u64 = union(&ours.runs, &file.runs)
                    .iter()
                    .map(|run| run.len_bytes())
                    .sum();
                ours.len_bytes() + file.len_bytes() - together
            })
            .sum();
        let all = self.len_bytes() + new.len_bytes() - in_both;
        (all - in_both).saturating_mul(WORTH_ONE_IN) > all
    }

    /// The same for another image: what `keep` says of its files, by path and content. `None` where
    /// nothing is left.
    #[must_use]
    pub fn carried_over(mut self, keep: impl Fn(&FileReads) -> bool) -> Option<Self> {
        self.files.retain(keep);
        (!self.files.is_empty()).then_some(self)
    }
}

/// The pages of either, ascending and apart.
fn union(ours: &[Run], others: &[Run]) -> Vec<Run> {
    let mut all: Vec<Run> = ours.iter().chain(others).copied().collect();
    all.sort_unstable();
    let mut merged: Vec<Run> = Vec::with_capacity(all.len());
    for run in all {
        match merged.last_mut() {
            Some(last) if u64::from(run.first) <= last.end() => {
                let end = last.end().max(run.end()) - u64::from(last.first);
                last.pages = u32::try_from(end).unwrap_or(u32::MAX);
            }
            _ => merged.push(run),
        }
    }
    merged
}
