//! What stands in a store and is not the store's: links, pipes, sockets, devices, unknown names.
//!
//! `verify` reports it. Nothing else of this program uses it, and gc leaves it alone: it goes by the
//! names of the store's own files.

use std::io;

use crate::Layout;
use crate::layout::{INDEX_COPY_SUFFIX, PROFILE_SUFFIX, TOC_COPY_SUFFIX};
use crate::path::StorePath;
use crate::reader::{has_own_name, is_fan, is_left_by_nfs};

/// The directories of files `<aa>/<id>.<suffix>`, with their suffixes.
const FANNED: [(&str, &[&str]); 9] = [
    ("packs", &["pack", "dead", "toc", TOC_COPY_SUFFIX]),
    ("copies", &[INDEX_COPY_SUFFIX]),
    ("filters", &["filter"]),
    ("layers", &["erofs"]),
    ("blobs", &["json"]),
    ("chains", &["json", "retired", "former"]),
    ("indexes", &["erofs"]),
    ("images", &["json"]),
    ("profiles", &[PROFILE_SUFFIX]),
];

/// Directories that file systems make in their roots.
const OF_THE_SYSTEM: [&str; 2] = ["lost+found", ".snapshot"];

/// What tmp/ has, but for files, which gc removes once they are old.
const UNFINISHED: [&str; 4] = ["create-", "gc-", "new-", "over-"];

/// Names everything that is not the store's, with the reason.
pub(crate) fn report(layout: &Layout, found: &mut dyn FnMut(&StorePath, String)) {
    for path in listed(&layout.directory(""), found) {
        let name = path.name().unwrap_or_default().to_owned();
        if ["store.json", "freeing.json"].contains(&name.as_str()) {
            is_file(&path, found);
        } else if let Some((_, suffixes)) = FANNED.iter().find(|(known, _)| *known == name) {
            for fan in listed(&path, found) {
                fanned(&fan, suffixes, found);
            }
        } else if name == "leases" {
            for lease in listed(&path, found) {
                if crate::lease::is_lease(&lease) {
                    is_file(&lease, found);
                } else if !is_left_by_nfs(&lease) {
                    unknown(&lease, found);
                }
            }
        } else if name == "tmp" {
            for path in listed(&path, found) {
                unfinished(&path, found);
            }
        } else if !OF_THE_SYSTEM.contains(&name.as_str()) {
            unknown(&path, found);
        }
    }
}

fn fanned(fan: &StorePath, suffixes: &[&str], found: &mut dyn FnMut(&StorePath, String)) {
    if !is_fan(fan) {
        if !is_left_by_nfs(fan) {
            unknown(fan, found);
        }
        return;
    }
    for path in listed(fan, found) {
        if suffixes.iter().any(|suffix| has_own_name(&path, suffix)) {
            is_file(&path, found);
        } else if !is_left_by_nfs(&path) {
            unknown(&path, found);
        }
    }
}

fn unfinished(path: &StorePath, found: &mut dyn FnMut(&StorePath, String)) {
    let name = path.name().unwrap_or_default();
    let is_known = UNFINISHED.iter().any(|prefix| name.starts_with(prefix));
    match path.facts() {
        // It ended meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(facts) if facts.is_file || (facts.is_directory && is_known) => {}
        _ => unknown(path, found),
    }
}

/// What is in a directory of the store; something else in its place is reported.
fn listed(directory: &StorePath, found: &mut dyn FnMut(&StorePath, String)) -> Vec<StorePath> {
    match directory.list() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let what = match directory.facts() {
                Ok(facts) if !facts.is_directory => in_place_of(facts.what, "directory"),
                _ => format!("cannot be listed: {error}"),
            };
            found(directory, what);
            Vec::new()
        }
    }
}

fn is_file(path: &StorePath, found: &mut dyn FnMut(&StorePath, String)) {
    match path.facts() {
        Ok(facts) if facts.is_file => {}
        Ok(facts) => found(path, in_place_of(facts.what, "file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => found(path, format!("cannot be read: {error}")),
    }
}

fn in_place_of(what: &str, expected: &str) -> String {
    format!("is {what}, where the store has a {expected}: move it away")
}

fn unknown(path: &StorePath, found: &mut dyn FnMut(&StorePath, String)) {
    let what = match path.facts() {
        Ok(facts) => facts.what,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(_) => "something",
    };
    found(
        path,
        format!("is {what} that is not the store's: move it away"),
    );
}
