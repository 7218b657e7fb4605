//! Paths inside one layer, symlinks followed but never out of its root: pure.
//!
//! The rules are those of containerd's `continuity/fs.RootPath`: the target of a symlink is
//! cleaned by its text before it is followed, an absolute one starts at the root, and what does
//! not exist is taken by its name.

use uimgacc_erofs::tree::{Bytes, InodeId, Kind, Tree};

/// As many symlinks as containerd follows in one path.
const MAX_LINKS: usize = 255;

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A component on the way is a file.
    #[error("a part of the path is no folder")]
    BelowFile,
    /// Symlinks lead in a circle.
    #[error("too many symlinks on the way")]
    TooManyLinks,
}

/// A path without symlinks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RootedPath {
    /// Its components.
    pub names: Vec<Bytes>,
    /// The inodes of the first components, as far as they exist.
    pub inodes: Vec<InodeId>,
}

impl RootedPath {
    /// The inode at its end, where all of it exists.
    #[must_use]
    pub fn inode(&self) -> Option<InodeId> {
        if self.names.len() != self.inodes.len() {
            return None;
        }
        Some(self.inodes.last().copied().unwrap_or(Tree::ROOT))
    }

    /// `/` and the components, for people.
    #[must_use]
    pub fn show(&self) -> String {
        show(&self.names)
    }

    fn pop(&mut self) {
        self.names.pop();
        self.inodes.truncate(self.names.len());
    }
}

/// `/` and the components, for people.
#[must_use]
pub fn show(names: &[Bytes]) -> String {
    names.iter().fold(String::new(), |path, name| {
        path + "/" + &String::from_utf8_lossy(name)
    })
}

/// The components of a path cleaned by its text: no empty ones, no `.`, and `..` only in front.
#[must_use]
pub fn clean(path: &[u8]) -> Vec<Bytes> {
    let is_absolute = path.starts_with(b"/");
    let mut names: Vec<Bytes> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match names.last() {
                Some(last) if **last != *b".." => {
                    names.pop();
                }
                _ if is_absolute => {}
                _ => names.push(part.into()),
            },
            _ => names.push(part.into()),
        }
    }
    names
}

/// Follows `names` from the root, the last one too where it is a symlink.
///
/// # Errors
/// A file on the way, or more than 255 symlinks.
pub fn resolve<'a>(
    tree: &Tree,
    names: impl IntoIterator<Item = &'a Bytes, IntoIter: DoubleEndedIterator>,
) -> Result<RootedPath, ResolveError> {
    resolve_in(tree, names, false)
}

/// Like [`resolve`], in a layer with nothing below: whiteouts stand for nothing there.
///
/// # Errors
/// A file on the way, or more than 255 symlinks.
pub fn resolve_in_base<'a>(
    tree: &Tree,
    names: impl IntoIterator<Item = &'a Bytes, IntoIter: DoubleEndedIterator>,
) -> Result<RootedPath, ResolveError> {
    resolve_in(tree, names, true)
}

fn resolve_in<'a>(
    tree: &Tree,
    names: impl IntoIterator<Item = &'a Bytes, IntoIter: DoubleEndedIterator>,
    is_base: bool,
) -> Result<RootedPath, ResolveError> {
    let mut rest: Vec<Bytes> = names.into_iter().rev().cloned().collect();
    let mut path = RootedPath::default();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if *name == *b".." {
            path.pop();
            continue;
        }
        let Some(here) = path.inode() else {
            path.names.push(name);
            continue;
        };
        let Some(entries) = tree.inode(here).entries() else {
            return Err(ResolveError::BelowFile);
        };
        let is_there = |id: &InodeId| !(is_base && tree.inode(*id).is_whiteout());
        let Some(next) = entries.get(&name).copied().filter(is_there) else {
            path.names.push(name);
            continue;
        };
        if let Kind::Symlink(target) = &tree.inode(next).kind {
            links += 1;
            if links > MAX_LINKS {
                return Err(ResolveError::TooManyLinks);
            }
            if target.starts_with(b"/") {
                path = RootedPath::default();
            }
            rest.extend(clean(target).into_iter().rev());
        } else {
            path.names.push(name);
            path.inodes.push(next);
        }
    }
    Ok(path)
}
