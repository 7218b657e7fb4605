//! The version of containerd, as its binary prints it.

use std::fmt;

/// A version of containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerdVersion {
    /// 1 or 2.
    pub major: u32,
    /// As in 1.7.
    pub minor: u32,
    /// As in 1.7.24.
    pub patch: u32,
}

/// Why a text names no version that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Not what `containerd --version` prints.
    #[error("cannot find a version in {0:?}")]
    NotUnderstood(String),
    /// Too old or too new.
    #[error("containerd {0} is not supported: 1.6, 1.7 and 2.x are")]
    NotSupported(ContainerdVersion),
}

impl ContainerdVersion {
    /// Makes one.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Finds it in the line of `containerd --version`, or in a bare version such as `v2.1.4-k3s1`.
    ///
    /// # Errors
    /// See [`VersionError`].
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let found = text.split_whitespace().find_map(numbers);
        let version = found.ok_or_else(|| VersionError::NotUnderstood(text.trim().to_owned()))?;
        match (version.major, version.minor) {
            (1, 6..) | (2, _) => Ok(version),
            _ => Err(VersionError::NotSupported(version)),
        }
    }

    /// Whether our tests run with it (1.6, 1.7 and 2.0 to 2.4).
    #[must_use]
    pub fn is_tried(self) -> bool {
        matches!((self.major, self.minor), (1, 6 | 7) | (2, 0..=4))
    }

    /// Whether proxy plugins can have `exports` (containerd's pull request 10096).
    pub(crate) fn has_exports(self) -> bool {
        self >= Self::new(1, 7, 16)
    }

    /// Whether its transfer service names the blobs of layers to proxy plugins that ask for it by an
    /// export (since 2.1; CRI names them by `disable_snapshot_annotations = false`).
    pub(crate) fn annotates_by_export(self) -> bool {
        self >= Self::new(2, 1, 0)
    }

    /// Whether it has the transfer service.
    pub(crate) fn has_transfer_service(self) -> bool {
        self >= Self::new(1, 7, 0)
    }

    /// Whether it also unpacks images that are EROFS already, by default.
    pub(crate) fn unpacks_erofs(self) -> bool {
        self >= Self::new(2, 4, 0)
    }

    /// The `version` of a new configuration file: the oldest form that it reads without a change.
    pub(crate) fn file_version(self) -> i64 {
        if self.major == 1 { 2 } else { 3 }
    }

    /// The newest `version` of a configuration file that it reads.
    pub(crate) fn newest_file_version(self) -> i64 {
        match (self.major, self.minor) {
            (1, _) => 2,
            (2, 0..=2) => 3,
            _ => 4,
        }
    }
}

fn numbers(word: &str) -> Option<ContainerdVersion> {
    let word = word.strip_prefix('v').unwrap_or(word);
    let mut parts = word.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    let patch: String = parts
        .next()?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Some(ContainerdVersion::new(major, minor, patch.parse().ok()?))
}

impl fmt::Display for ContainerdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_binaries_print() {
        let lines = [
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
                (1, 6, 20),
            ),
            ("containerd containerd.io 1.7.27 05044ec0a9a7", (1, 7, 27)),
            (
                "containerd github.com/containerd/containerd/v2 2.1.9+unknown ",
                (2, 1, 9),
            ),
            (
                "containerd github.com/k3s-io/containerd v2.1.4-k3s1 ",
                (2, 1, 4),
            ),
            ("v2.4.2", (2, 4, 2)),
        ];
        for (line, (major, minor, patch)) in lines {
            assert_eq!(
                ContainerdVersion::parse(line),
                Ok(ContainerdVersion::new(major, minor, patch)),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(
            ContainerdVersion::parse("containerd containerd.io 1.4.13 abc"),
            Err(VersionError::NotSupported(ContainerdVersion::new(1, 4, 13)))
        );
        assert!(ContainerdVersion::parse("containerd 3.0.0").is_err());
        assert!(ContainerdVersion::parse("").is_err());
    }
}
