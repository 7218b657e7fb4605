//! The kernel's NFS server with rpcbind and mountd, on loopback, for versions 3 to 4.2.
//!
//! It belongs to a whole kernel, so it is only started inside of one that is ours, see [`crate::uml`]: nothing is taken away on drop.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::run;
use crate::{net, parts, uml};

/// The port of NFS.
pub const PORT: u16 = 2049;
const RPCBIND_PORT: u16 = 111;
/// The export on the server's own disk.
pub const EXPORT: &str = "/srv/export";

const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub struct NfsServer(());

impl NfsServer {
    /// Starts it with an empty ext4 as its export.
    ///
    /// # Panics
    /// Outside of a kernel of ours, and where a part does not start.
    #[must_use]
    pub fn start() -> Self {
        assert!(
            uml::is_inside(),
            "an NFS server is only started in a kernel of its own"
        );
        for module in ["nfsd", "nfs", "nfsv3", "nfsv4", "loop", "erofs"] {
            run(Command::new("modprobe").arg(module));
        }
        // What the packages' own scripts would do.
        for folder in [
            EXPORT,
            "/var/lib/nfs/v4recovery",
            "/run/rpcbind",
            "/var/lib/nfs/sm",
        ] {
            fs::create_dir_all(folder).expect("a folder");
        }
        for file in ["etab", "rmtab", "xtab", "state"] {
            fs::write(Path::new("/var/lib/nfs").join(file), "").expect("a file");
        }
        if !Path::new("/etc/netconfig").exists() {
            fs::copy(files().join("etc/netconfig"), "/etc/netconfig").expect("netconfig");
        }
        uml::make_disk(Path::new(EXPORT), 1 << 30);
        run(Command::new("mount").args(["-t", "nfsd", "nfsd", "/proc/fs/nfsd"]));
        // It gives up root for a user that its package makes.
        let mut users = fs::read_to_string("/etc/passwd").expect("the users");
        if !users.contains("_rpc:") {
            users.push_str("_rpc:x:64999:65534::/run/rpcbind:/usr/sbin/nologin\n");
            fs::write("/etc/passwd", users).expect("the users");
        }
        run(program("rpcbind").arg("-w"));
        wait_until("rpcbind answers", || {
            net::answers(Ipv4Addr::LOCALHOST, RPCBIND_PORT)
        });
        let options = "rw,no_root_squash,insecure,no_subtree_check,fsid=0";
        fs::write("/etc/exports", format!("{EXPORT} *({options})\n")).expect("the exports");
        run(program("exportfs").arg("-a"));
        run(&mut program("rpc.mountd"));
        // There are no clients of before that could reclaim anything.
        for file in ["nfsv4leasetime", "nfsv4gracetime"] {
            fs::write(Path::new("/proc/fs/nfsd").join(file), "10").expect("a time");
        }
        let server = Self(());
        server.resume();
        server
    }

    /// Stops serving; connections are refused then.
    ///
    /// # Panics
    /// Where that does not work.
    pub fn stop(&self) {
        run(program("rpc.nfsd").arg("0"));
        wait_until("the server is down", || {
            !net::answers(Ipv4Addr::LOCALHOST, PORT)
        });
    }

    /// Serves again. Version 4 lets files be opened only after 10 s, when former clients had their time.
    ///
    /// # Panics
    /// Where that does not work.
    pub fn resume(&self) {
        run(program("rpc.nfsd").args(["--grace-time", "10", "--lease-time", "10", "4"]));
        wait_until("the server answers", || {
            net::answers(Ipv4Addr::LOCALHOST, PORT)
        });
    }

    /// Mounts the export for writing, as a person would.
    ///
    /// # Panics
    /// Where that does not work.
    pub fn mount(&self, version: &str, target: &Path) {
        fs::create_dir_all(target).expect("a folder");
        let kind = if version == "3" { "nfs" } else { "nfs4" };
        // Two mounts are as apart as on two machines.
        let mut options = format!("vers={version},addr=127.0.0.1,proto=tcp,nosharecache");
        options.push_str(if version == "3" {
            ",nolock,mountproto=tcp"
        } else {
            ",clientaddr=127.0.0.1"
        });
        // Without its helper, which is not installed.
        run(Command::new("mount")
            .args(["-i", "-t", kind, "-o", &options])
            .arg(format!("127.0.0.1:{}", path(version)))
            .arg(target));
    }
}

/// The export's path for clients of that version: version 4 has a tree of exports, and this one is its root.
#[must_use]
pub fn path(version: &str) -> &'static str {
    if version == "3" { EXPORT } else { "/" }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited {PATIENCE:?} until {what}");
        sleep(Duration::from_millis(20));
    }
}

fn files() -> PathBuf {
    parts::uml_dir().join("nfs")
}

/// A program of the unpacked packages.
fn program(name: &str) -> Command {
    let files = files();
    let path = ["usr/sbin", "sbin"]
        .iter()
        .map(|folder| files.join(folder).join(name))
        .find(|path| path.exists());
    let mut command = Command::new(path.expect("a program of scripts/parts-uml.sh"));
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
    let libraries = libraries.map(|folder| files.join(folder));
    command.env(
        "LD_LIBRARY_PATH",
        std::env::join_paths(libraries).expect("no colon in a path"),
    );
    command
}
