//! The host's files, reached through its root folder as the host itself would: symlinks are followed
//! within it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, renameat, unlinkat,
};

/// The host.
#[derive(Debug, Clone)]
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let root = openat(
            rustix::fs::CWD,
            &self.root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let flags = flags | OFlags::CLOEXEC;
        Ok(openat2(
            root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        )?)
    }

    /// Whether something is there.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.open(path, OFlags::PATH).is_ok()
    }

    /// A socket's place, for `connect`; see [`socket_path`].
    pub(super) fn socket(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// Copies a program to a folder of the host, where it differs. Whoever starts it gets either the
    /// former or the new one.
    pub(super) fn copy_program(&self, from: &Path, folder: &Path) -> io::Result<bool> {
        let Some(name) = from.file_name() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let new = std::fs::read(from)?;
        if let Ok(old) = self.open(&folder.join(name), OFlags::RDONLY)
            && same(File::from(old), &new)?
        {
            return Ok(false);
        }
        let folder = self.folder(folder)?;
        let mut waiting = std::ffi::OsString::from(".");
        waiting.push(name);
        waiting.push(".uimgacc-new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mut file = File::from(openat(
            &folder,
            &waiting,
            flags,
            Mode::from_raw_mode(0o755),
        )?);
        file.write_all(&new)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
        file.sync_all()?;
        drop(file);
        renameat(&folder, &waiting, &folder, name)?;
        rustix::fs::fsync(&folder)?;
        Ok(true)
    }

    /// Opens a folder, and makes it where it is missing.
    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match (self.open(path, flags), path.parent(), path.file_name()) {
            (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
                let parent = self.folder(parent)?;
                mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                self.open(path, flags)
            }
            (result, _, _) => result,
        }
    }

    /// Removes a file, or a folder where it is empty. Nothing there is no error.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let gone = |error: rustix::io::Errno| match error {
            rustix::io::Errno::NOENT => Ok(()),
            other => Err(other),
        };
        let parent = match self.open(parent, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match unlinkat(&parent, name, AtFlags::empty()).or_else(gone) {
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {
                let removed = unlinkat(&parent, name, AtFlags::REMOVEDIR).or_else(gone);
                match removed {
                    // Somebody else's files lie in it.
                    Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) | Ok(()) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            other => Ok(other?),
        }
    }
}

/// The path by which a descriptor of [`Host::socket`] can be connected to.
pub(super) fn socket_path(socket: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}", socket.as_raw_fd()))
}

fn same(mut old: File, new: &[u8]) -> io::Result<bool> {
    if old.metadata()?.len() != u64::try_from(new.len()).unwrap_or(u64::MAX) {
        return Ok(false);
    }
    let mut bytes = Vec::with_capacity(new.len());
    old.read_to_end(&mut bytes)?;
    Ok(bytes == new)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn programs_are_copied_once_and_symlinks_stay_within_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("host");
        fs::create_dir_all(root.join("real")).unwrap();
        // On the host, /bin is /real; from outside that name would lead elsewhere.
        symlink("/real", root.join("bin")).unwrap();
        let program = dir.path().join("tool");
        fs::write(&program, "one").unwrap();
        let host = Host::new(&root);
        for folder in ["/bin", "/opt/deep/bin"] {
            assert!(host.copy_program(&program, Path::new(folder)).unwrap());
            assert!(!host.copy_program(&program, Path::new(folder)).unwrap());
        }
        fs::write(&program, "two").unwrap();
        assert!(host.copy_program(&program, Path::new("/bin")).unwrap());
        let copy = root.join("real/tool");
        assert_eq!(fs::read(&copy).unwrap(), b"two");
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(root.join("real")).unwrap().count(), 1);

        host.remove(Path::new("/bin/tool")).unwrap();
        host.remove(Path::new("/bin/tool")).unwrap();
        host.remove(Path::new("/missing/tool")).unwrap();
        assert!(!copy.exists());
        host.remove(Path::new("/opt/deep")).unwrap();
        assert!(
            root.join("opt/deep/bin/tool").exists(),
            "not empty, so it stays"
        );
        host.remove(Path::new("/real")).unwrap();
        assert!(!root.join("real").exists());
    }
}
