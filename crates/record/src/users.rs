//! The user of an image, by its own lists.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::RecordError;

const MAX_LIST_BYTES: u64 = 1 << 20;

/// User and group IDs of what an image's configuration names: `user[:group]`, each a number or a name
/// of the image's `/etc/passwd` and `/etc/group`.
pub(crate) fn resolve(root: &Path, text: &str) -> Result<(u32, u32), RecordError> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let (uid, primary) = match user.parse() {
        Ok(uid) => (uid, group_of_user(root, uid)),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => find(root, "etc/passwd", user, |fields| {
            Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
        })
        .ok_or_else(|| RecordError::NoUser {
            user: user.to_owned(),
            file: "/etc/passwd",
        })?,
    };
    let gid = match group.parse() {
        Ok(gid) => gid,
        Err(_) if group.is_empty() => primary,
        Err(_) => find(root, "etc/group", group, |fields| {
            fields.get(2)?.parse().ok()
        })
        .ok_or_else(|| RecordError::NoUser {
            user: group.to_owned(),
            file: "/etc/group",
        })?,
    };
    Ok((uid, gid))
}

/// A number that the list does not have belongs to the group 0, as elsewhere.
fn group_of_user(root: &Path, uid: u32) -> u32 {
    let list = read(root, "etc/passwd");
    let of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields.get(3)?.parse().ok())?
    };
    list.lines().find_map(of).unwrap_or(0)
}

fn find<T>(root: &Path, file: &str, name: &str, take: impl Fn(&[&str]) -> Option<T>) -> Option<T> {
    let list = read(root, file);
    let mut lines = list.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.first() == Some(&name))?;
    take(&fields)
}

/// A file of the image; empty where there is none. Links are followed, but never out of the image.
fn read(root: &Path, file: &str) -> String {
    use std::io::Read as _;
    let open = || -> std::io::Result<String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file: std::fs::File =
            rustix::fs::openat2(&root, file, flags, Mode::empty(), resolve)?.into();
        let mut text = Vec::new();
        file.take(MAX_LIST_BYTES).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    open().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        let list = "root:x:0:0::/root:/bin/sh\nme:x:1000:1001::/:/bin/sh\n";
        std::fs::write(folder.path().join("real"), list).unwrap();
        std::os::unix::fs::symlink("/real", folder.path().join("etc/passwd")).unwrap();
        std::fs::write(folder.path().join("etc/group"), "us:x:7:\n").unwrap();
        let resolve = |text| resolve(folder.path(), text).unwrap();
        assert_eq!(resolve(""), (0, 0));
        assert_eq!(resolve("me"), (1000, 1001));
        assert_eq!(resolve("1000"), (1000, 1001));
        assert_eq!(resolve("5"), (5, 0));
        assert_eq!(resolve("5:6"), (5, 6));
        assert_eq!(resolve("me:us"), (1000, 7));
        let error = super::resolve(folder.path(), "you").unwrap_err();
        assert!(error.to_string().contains("/etc/passwd"), "{error}");
        assert!(super::resolve(folder.path(), "me:them").is_err());
    }
}
