//! An image mounted read-only by the kernel, with its devices, in no folder: only this process
//! sees it, and it goes away with it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// A mounted image.
pub(crate) struct Mounted {
    mount: Option<OwnedFd>,
    loops: Vec<PathBuf>,
}

impl Mounted {
    /// On the files themselves, or, where the kernel is older than 6.12, on loop devices.
    pub(crate) fn new(image: &Path, devices: &[PathBuf]) -> Self {
        match mount(image, devices) {
            Ok(mount) => Self {
                mount: Some(mount),
                loops: Vec::new(),
            },
            Err(Errno::NOTBLK) => Self::on_loops(image, devices),
            Err(error) => panic!("cannot mount: {error}"),
        }
    }

    pub(crate) fn on_loops(image: &Path, devices: &[PathBuf]) -> Self {
        let mut mounted = Self {
            mount: None,
            loops: Vec::new(),
        };
        for file in [image]
            .into_iter()
            .chain(devices.iter().map(|path| &**path))
        {
            let losetup = Command::new("losetup")
                .args(["--find", "--show", "--read-only"])
                .arg(file)
                .output()
                .unwrap();
            assert!(losetup.status.success(), "{losetup:?}");
            let device = String::from_utf8(losetup.stdout).unwrap();
            mounted.loops.push(device.trim_end().into());
        }
        mounted.mount = Some(mount(&mounted.loops[0], &mounted.loops[1..]).unwrap());
        mounted
    }

    /// The root folder, as a path of this process.
    pub(crate) fn root(&self) -> PathBuf {
        let mount = self.mount.as_ref().unwrap();
        format!("/proc/self/fd/{}", mount.as_raw_fd()).into()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.mount.take());
        for device in &self.loops {
            let detach = Command::new("losetup").arg("--detach").arg(device).status();
            assert!(detach.is_ok_and(|status| status.success()) || std::thread::panicking());
        }
    }
}

fn mount(image: &Path, devices: &[PathBuf]) -> Result<OwnedFd, Errno> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", image)?;
    fsconfig_set_flag(&context, "ro")?;
    for device in devices {
        fsconfig_set_string(&context, "device", device)?;
    }
    let created = fsconfig_create(&context);
    if created.is_err() {
        let mut message = [0; 1 << 10];
        while let Ok(length) = rustix::io::read(&context, &mut message) {
            println!("kernel: {}", String::from_utf8_lossy(&message[..length]));
        }
    }
    created?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}
