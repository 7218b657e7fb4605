//! `uimgacc-agent on-host`: runs a program as the host's own process 1 would.
//!
//! A Pod's process has the mounts and the cgroup of its container, so what it starts sees other
//! mounts than the host and ends with the Pod. This subcommand, a process of its own, enters all
//! namespaces of process 1, leaves the Pod's cgroup where no systemd is that starts services
//! instead, and becomes the program.
//!
//! Assumptions: `hostPID`, and all capabilities. One thread: a process with several cannot change
//! its mount namespace.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Args;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::cgroups;

/// Where hosts have their programs.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin";

/// Options.
#[derive(Debug, Args)]
pub struct Options {
    /// Mount this folder of the Pod at this folder of the host
    #[arg(long, num_args = 2, value_names = ["POD_DIR", "HOST_DIR"])]
    attach: Vec<PathBuf>,
    /// Take the mount at this folder of the host away, and the folder
    #[arg(long, value_name = "HOST_DIR")]
    detach: Option<PathBuf>,
    /// Start the program in a session of its own, and do not wait for it
    #[arg(long)]
    background: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "WORD")]
    command: Vec<OsString>,
}

/// Becomes the program; returns only where that fails.
///
/// # Errors
/// A step that the kernel refused.
pub fn run(options: Options) -> anyhow::Result<()> {
    let attach = match options.attach.as_slice() {
        [from, to] => Some((clone(from)?, to)),
        _ => None,
    };
    enter()?;
    if let Some((tree, to)) = attach {
        put(&tree, to)?;
    }
    if let Some(folder) = &options.detach {
        take_away(folder)?;
    }
    // With systemd, the services that a program starts are systemd's children and not its own.
    if !Path::new("/run/systemd/system").is_dir() {
        cgroups::leave().context("cannot leave the cgroup of the Pod")?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let (program, arguments) = options.command.split_first().context("no program")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("HOME", "/root")
        .current_dir("/");
    let error = if options.background {
        rustix::process::setsid().context("cannot begin a session")?;
        // Returns once the program is there, so its file may go then.
        match command.spawn() {
            Ok(_) => return Ok(()),
            Err(error) => error,
        }
    } else {
        command.exec()
    };
    Err(error).with_context(|| format!("cannot run {} on the host", program.display()))
}

fn enter() -> anyhow::Result<()> {
    let init = pidfd_open(Pid::INIT, PidfdFlags::empty()).context("cannot find process 1")?;
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::PROCESS_ID;
    move_into_thread_name_spaces(std::os::fd::AsFd::as_fd(&init), all)
        .context("cannot enter the host's namespaces; the Pod must be privileged, with hostPID")
}

fn clone(folder: &Path) -> anyhow::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, folder, flags)
        .with_context(|| format!("cannot take the mount at {}", folder.display()))
}

/// Mounts a tree at a folder, where it is not there already.
fn put(tree: &OwnedFd, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    if mount_is_at(folder) {
        let device =
            |stat: rustix::fs::Statx| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        let old = statx(CWD, folder, flags, StatxFlags::INO).map(device);
        let new = statx(tree, "", flags | AtFlags::EMPTY_PATH, StatxFlags::INO).map(device);
        if old.is_ok() && old == new {
            return Ok(());
        }
        // Images that were mounted from the former one hold it.
        unmount(folder, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", folder.display()))?;
    }
    move_mount(
        tree,
        "",
        CWD,
        folder,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .with_context(|| format!("cannot mount the store at {}", folder.display()))
}

fn take_away(folder: &Path) -> anyhow::Result<()> {
    while mount_is_at(folder) {
        unmount(folder, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", folder.display()))?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn mount_is_at(folder: &Path) -> bool {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    statx(CWD, folder, flags, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
