//! Files that may be replaced while the server runs, such as Secrets and certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

/// How often they are looked at: Secrets reach a Pod within about a minute anyway.
const LOOK: Duration = Duration::from_secs(10);

/// The content of some files at one time.
#[derive(Debug)]
pub struct Watched(Vec<(PathBuf, Content)>);

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Bytes(Vec<u8>),
    Absent,
    /// It cannot be read just now, for want of descriptors perhaps: that is no change.
    Unknown,
}

impl Content {
    fn of(path: &Path) -> Self {
        match std::fs::read(path) {
            Ok(bytes) => Self::Bytes(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::Absent,
            Err(_) => Self::Unknown,
        }
    }
}

impl Watched {
    /// These files as they are now.
    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let read = |path: PathBuf| {
            let content = Content::of(&path);
            (path, content)
        };
        Self(paths.into_iter().map(read).collect())
    }

    /// Whether one is not what it was.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.0.iter().any(|(path, content)| {
            let now = Content::of(path);
            now != Content::Unknown && now != *content
        })
    }

    /// The same files as they are now.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::of(self.0.iter().map(|(path, _)| path.clone()))
    }

    /// Waits until one is not what it was.
    pub async fn changed(&self) {
        loop {
            sleep(LOOK).await;
            if self.is_changed() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (there, missing) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&there, "1").unwrap();
        let watched = || Watched::of([there.clone(), missing.clone()]);
        let before = watched();
        assert!(!before.is_changed());
        std::fs::write(&missing, "").unwrap();
        assert!(before.is_changed());
        let before = watched();
        std::fs::write(&there, "2").unwrap();
        assert!(before.is_changed());
        assert!(!before.again().is_changed());
        // A folder cannot be read as a file, which says nothing of what was there.
        std::fs::remove_file(&there).unwrap();
        std::fs::create_dir(&there).unwrap();
        assert!(!before.again().is_changed());
    }
}
