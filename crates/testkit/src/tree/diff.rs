//! What two trees differ in, in words.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use super::Entry;

/// One line for each difference between two trees; empty where they are the same.
#[must_use]
pub fn diff(left: &[Entry], right: &[Entry]) -> Vec<String> {
    diff_except(left, right, |_| false)
}

/// As [`diff`], but times are not compared where `any_mtime` says so of a path.
#[must_use]
pub fn diff_except(
    left: &[Entry],
    right: &[Entry],
    any_mtime: impl Fn(&Path) -> bool,
) -> Vec<String> {
    let mut by_path: BTreeMap<&Path, (Option<&Entry>, Option<&Entry>)> = BTreeMap::new();
    for entry in left {
        by_path.entry(&entry.path).or_default().0 = Some(entry);
    }
    for entry in right {
        by_path.entry(&entry.path).or_default().1 = Some(entry);
    }
    let mut lines = Vec::new();
    for (path, pair) in by_path {
        match pair {
            (Some(left), Some(right)) => compare(left, right, any_mtime(path), &mut lines),
            (Some(left), None) => {
                lines.push(format!("{}: only left ({:?})", path.display(), left.kind))
            }
            (None, Some(right)) => {
                lines.push(format!("{}: only right ({:?})", path.display(), right.kind))
            }
            (None, None) => {}
        }
    }
    lines
}

fn compare(left: &Entry, right: &Entry, any_mtime: bool, lines: &mut Vec<String>) {
    // Taken apart, so that a new field cannot be forgotten here.
    let Entry {
        path,
        kind,
        mode,
        uid,
        gid,
        size,
        mtime_ns,
        link_group,
        device,
        xattrs,
        target,
        content,
    } = left;
    let mut check = |what: &str, same: bool, left: &dyn Debug, right: &dyn Debug| {
        if !same {
            lines.push(format!("{}: {what} {left:?} and {right:?}", path.display()));
        }
    };
    check("type", *kind == right.kind, kind, &right.kind);
    check(
        "mode",
        *mode == right.mode,
        &format_args!("{mode:o}"),
        &format_args!("{:o}", right.mode),
    );
    check(
        "owner",
        (*uid, *gid) == (right.uid, right.gid),
        &(uid, gid),
        &(right.uid, right.gid),
    );
    check("size", *size == right.size, size, &right.size);
    check(
        "mtime in ns",
        any_mtime || *mtime_ns == right.mtime_ns,
        mtime_ns,
        &right.mtime_ns,
    );
    check(
        "links of",
        *link_group == right.link_group,
        link_group,
        &right.link_group,
    );
    check("device", *device == right.device, device, &right.device);
    check("target", *target == right.target, target, &right.target);
    check(
        "content",
        *content == right.content,
        content,
        &right.content,
    );
    let names: std::collections::BTreeSet<&String> =
        xattrs.keys().chain(right.xattrs.keys()).collect();
    for name in names {
        let (left, right) = (xattrs.get(name), right.xattrs.get(name));
        check(&format!("xattr {name}"), left == right, &left, &right);
    }
}
