//! How much of the disk a folder takes, as containerd counts it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::state::Usage;

/// `st_blocks` counts these, whatever the file system's block is (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// The blocks and inodes of a folder and all that is in it, hard links once. What vanishes while
/// we look is not counted.
///
/// # Errors
/// The file system's error.
pub(crate) fn of_folder(folder: &Path) -> Result<Usage, Error> {
    let mut seen = HashSet::new();
    let mut blocks = 0u64;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let mut count = |metadata: &fs::Metadata| {
        if seen.insert((metadata.dev(), metadata.ino())) {
            blocks = blocks.saturating_add(metadata.blocks());
        }
    };
    count(&fs::symlink_metadata(folder).map_err(Error::io("look at", folder))?);
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(Error::io("list", &folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &folder))?;
            match entry.metadata() {
                Ok(metadata) => {
                    count(&metadata);
                    if metadata.is_dir() {
                        folders.push(entry.path());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("look at", &entry.path())(error)),
            }
        }
    }
    Ok(Usage {
        size_bytes: i64::try_from(blocks.saturating_mul(BLOCK_BYTES)).unwrap_or(i64::MAX),
        inodes: i64::try_from(seen.len()).unwrap_or(i64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_du_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("a")).unwrap();
        fs::write(path.join("a/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(path.join("a/file"), path.join("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere", path.join("symlink")).unwrap();
        fs::File::create(path.join("sparse"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        let usage = of_folder(path).unwrap();
        assert_eq!(usage.inodes, 5);
        let output = std::process::Command::new("du")
            .args(["-s", "--block-size=512"])
            .arg(path)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let blocks: i64 = text.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(usage.size_bytes, blocks * 512);
        assert!(of_folder(&path.join("missing")).is_err());
    }
}
