//! A file whose server is dead: whoever asks for it waits.
//!
//! A FUSE file system is mounted on the file, and nobody ever answers for it, as with a network file
//! system whose server is gone. Dropping the guard ends the file system, and with it the wait: those
//! who hung get an error.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A file that hangs until this is dropped.
#[derive(Debug)]
pub struct HangingFile {
    path: PathBuf,
    /// The server's end.
    device: Option<File>,
}

impl HangingFile {
    /// Makes the file at `path`, which is there, hang.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("/dev/fuse");
        let options = format!(
            "fd={},rootmode=100644,user_id=0,group_id=0\0",
            device.as_raw_fd()
        );
        let options = std::ffi::CString::from_vec_with_nul(options.into_bytes()).expect("one NUL");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("nobody", path, "fuse", flags, &*options).expect("a mount of FUSE");
        Self {
            path: path.to_owned(),
            device: Some(device),
        }
    }
}

impl Drop for HangingFile {
    fn drop(&mut self) {
        // First: the unmount would ask the server, too.
        drop(self.device.take());
        unmount(&self.path, UnmountFlags::DETACH).expect("the end of the mount");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_asks_waits_until_the_end() {
        if !crate::ready(&[crate::Need::Root, crate::Need::Filesystem("fuse")]) {
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let hanging = HangingFile::at(file.path());
        let path = file.path().to_owned();
        let reader = std::thread::spawn(move || std::fs::read(path));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!reader.is_finished());
        drop(hanging);
        assert!(reader.join().unwrap().is_err());
        assert!(std::fs::read(file.path()).is_ok());
    }
}
