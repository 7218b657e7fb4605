//! What containerd is to mount: pure.
//!
//! The same answers as containerd's overlayfs snapshotter gives, where the lowest of the lower
//! folders may be a mounted image of the store.

use std::path::{Path, PathBuf};

use crate::state::Kind;
use uimgacc_containerd_api::types::Mount;

/// The folders of an active snapshot or view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folders {
    /// Its own, to be written.
    pub upper: PathBuf,
    /// overlayfs' own.
    pub work: PathBuf,
    /// Those below it, top first.
    pub lower: Vec<PathBuf>,
}

/// The mounts of an active snapshot or view. `overlay_options` come last.
#[must_use]
pub(crate) fn mounts(kind: Kind, folders: &Folders, overlay_options: &[String]) -> Vec<Mount> {
    let Folders { upper, work, lower } = folders;
    let mut options = Vec::new();
    match (lower.as_slice(), kind) {
        ([], Kind::View) => return bind(upper, "ro"),
        ([], _) => return bind(upper, "rw"),
        ([only], Kind::View) => return bind(only, "ro"),
        (_, Kind::View) => {}
        _ => {
            options.push(format!("workdir={}", work.display()));
            options.push(format!("upperdir={}", upper.display()));
        }
    }
    let lower: Vec<String> = lower
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    options.push(format!("lowerdir={}", lower.join(":")));
    options.extend_from_slice(overlay_options);
    vec![Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options,
    }]
}

fn bind(source: &Path, access: &str) -> Vec<Mount> {
    vec![Mount {
        r#type: "bind".to_owned(),
        source: source.display().to_string(),
        target: String::new(),
        options: vec![access.to_owned(), "rbind".to_owned()],
    }]
}

/// The options that every overlay gets on this kernel.
#[must_use]
pub(crate) fn overlay_options() -> Vec<String> {
    // Without an index several overlays may share lower folders; kernels that lack the parameter
    // do not know the option.
    if Path::new("/sys/module/overlay/parameters/index").exists() {
        vec!["index=off".to_owned()]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: Kind, lower: &[&str]) -> String {
        let folders = Folders {
            upper: "/r/9/fs".into(),
            work: "/r/9/work".into(),
            lower: lower.iter().map(PathBuf::from).collect(),
        };
        let mounts = mounts(kind, &folders, &["index=off".to_owned()]);
        assert_eq!(mounts.len(), 1);
        let Mount {
            r#type,
            source,
            target,
            options,
        } = &mounts[0];
        assert!(target.is_empty());
        format!("{type} {source} {}", options.join(","))
    }

    #[test]
    fn as_overlayfs_answers() {
        for (kind, lower, expected) in [
            (Kind::Active, &[][..], "bind /r/9/fs rw,rbind"),
            (Kind::View, &[], "bind /r/9/fs ro,rbind"),
            (
                Kind::Active,
                &["/r/1/fs"],
                "overlay overlay workdir=/r/9/work,upperdir=/r/9/fs,lowerdir=/r/1/fs,index=off",
            ),
            (Kind::View, &["/r/1/fs"], "bind /r/1/fs ro,rbind"),
            (
                Kind::View,
                &["/r/2/fs", "/c/mnt"],
                "overlay overlay lowerdir=/r/2/fs:/c/mnt,index=off",
            ),
            (
                Kind::Active,
                &["/r/2/fs", "/c/mnt"],
                "overlay overlay workdir=/r/9/work,upperdir=/r/9/fs,lowerdir=/r/2/fs:/c/mnt,index=off",
            ),
        ] {
            assert_eq!(answer(kind, lower), expected);
        }
    }
}
