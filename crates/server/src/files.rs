//! Files that may be replaced while the server runs, such as Secrets and certificates.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

/// How often they are looked at: Secrets reach a Pod within about a minute anyway.
const LOOK: Duration = Duration::from_secs(10);

/// The content of some files at one time.
#[derive(Debug)]
pub struct Watched(Vec<(PathBuf, Option<Vec<u8>>)>);

impl Watched {
    /// These files as they are now; one that cannot be read counts as one that is not there.
    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let read = |path: PathBuf| {
            let content = std::fs::read(&path).ok();
            (path, content)
        };
        Self(paths.into_iter().map(read).collect())
    }

    /// Whether one is not what it was.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.0
            .iter()
            .any(|(path, content)| std::fs::read(path).ok() != *content)
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
    }
}
