//! Images that the store has: nothing is downloaded, containers read from the store.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options, heard_to_its_end};
use uimgacc_testkit::image::{self, Compression, Pushed};
use uimgacc_testkit::tar::TarBuilder;
use uimgacc_testkit::{Need, Registry, ready};

use crate::daemon::Snapshotter;
use crate::store_maker::{Layer, StoreMaker};

/// How an image is pulled. `ctr` 1.7 fetches everything before it asks the snapshotter, so there
/// only CRI can leave layers out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ctr,
    Cri,
}

const WAYS: [(ContainerdVersion, Way); 3] = [
    (ContainerdVersion::V1_7, Way::Cri),
    (ContainerdVersion::V2_1, Way::Ctr),
    (ContainerdVersion::V2_1, Way::Cri),
];

/// A containerd on a snapshotter, used in one way.
struct Client {
    containerd: Containerd,
    way: Way,
}

impl Client {
    fn start(version: ContainerdVersion, way: Way, snapshotter: &Snapshotter) -> Self {
        let options = Options::proxy(&snapshotter.socket());
        let containerd = Containerd::start(version, &options);
        Self { containerd, way }
    }

    fn pull(&self, registry: &Registry, reference: &str) {
        if self.way == Way::Cri {
            self.containerd.trust(registry);
            self.containerd.cri().pull(reference).unwrap();
        } else {
            let words = ["images", "pull", "--plain-http", "--snapshotter", "uimgacc"];
            self.ctr_ok(&[&words[..], &[reference]].concat());
        }
    }

    fn ctr(&self, words: &[&str]) -> Output {
        let mut command = self.containerd.ctr_command();
        if self.way == Way::Cri {
            command.args(["--namespace", "k8s.io"]);
        }
        command.args(words).output().unwrap()
    }

    fn ctr_ok(&self, words: &[&str]) -> String {
        let output = self.ctr(words);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {text}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until containerd has found the restarted snapshotter: its client pauses after a
    /// refused connection, and requests in that second fail at once.
    fn reconnected(&self) {
        let words = ["snapshots", "--snapshotter", "uimgacc", "ls"];
        eventually("the connection", || self.ctr(&words).status.success());
    }

    /// Runs a shell script in a new container and returns what it says.
    fn run(&self, reference: &str, name: &str, script: &str) -> String {
        // All containerds of the machine share runc's folder, where CRI has one namespace for all.
        let id = format!("{name}-{}", self.containerd.namespace());
        let words = ["run", "--rm", "--snapshotter", "uimgacc", reference, &id];
        let script = heard_to_its_end(script);
        self.ctr_ok(&[&words[..], &["/bin/busybox", "sh", "-c", &script]].concat())
    }
}

fn busybox_bytes() -> Vec<u8> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let found = places.iter().find(|path| Path::new(path).exists());
    std::fs::read(found.expect("no busybox: run scripts/parts.sh")).unwrap()
}

/// The layers of `pushed` as the store has them: what the registry has, and a mark.
fn layers_of(pushed: &Pushed) -> [Layer; 2] {
    let mut base = Layer::new(&pushed.layers[0].diff_id)
        .file("bin/busybox", 0o755, &busybox_bytes())
        .file("etc/from-store", 0o644, &b"from the store\n".repeat(1000));
    for name in ["proc", "sys", "dev", "tmp"] {
        base = base.empty_folder(name);
    }
    for name in ["sh", "cat", "sleep"] {
        base = base.link(&format!("bin/{name}"), "busybox");
    }
    let top = Layer::new(&pushed.layers[1].diff_id).file("top", 0o644, b"top of the store\n");
    [base, top]
}

fn two_layers(registry: &Registry, name: &str, top: &str) -> Pushed {
    let layer = TarBuilder::new().file("top", 0o644, top).finish();
    image::busybox()
        .layer(layer, Compression::Gzip)
        .push(registry, name)
}

fn fetched(registry: &Registry, digest: &str) -> bool {
    let path = format!("/blobs/{digest}");
    let log = registry.log();
    log.lines()
        .any(|line| line.contains("GET") && line.contains(&path))
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_image_of_the_store_runs_without_a_download_and_through_kill_and_restart() {
    if !ready(&[Need::Root, Need::Parts, Need::Filesystem("erofs")]) {
        return;
    }
    for (version, way) in WAYS {
        let registry = Registry::start();
        let pushed = two_layers(&registry, "app:1", "of the registry\n");
        let store = StoreMaker::new();
        store.add(&layers_of(&pushed));
        // One of them on loop devices, as on older kernels.
        let loops = (version, way) == (ContainerdVersion::V2_1, Way::Cri);
        let methods = if loops {
            "loop"
        } else {
            "file-directio,file,loop"
        };
        let mut snapshotter = Snapshotter::start(store.path(), &["--methods", methods]);
        let client = Client::start(version, way, &snapshotter);
        let reference = &pushed.reference;

        client.pull(&registry, reference);
        for layer in &pushed.layers {
            assert!(
                !fetched(&registry, &layer.digest),
                "{version:?} {way:?}: {layer:?}"
            );
        }
        assert!(snapshotter.image_mounts().is_empty(), "mounted too early");
        let said = client.run(
            reference,
            "c1",
            "cat /top; md5sum < /etc/from-store; echo x > /new; cat /new",
        );
        assert!(said.starts_with("top of the store\n"), "{said}");
        assert!(said.ends_with("x\n"), "{said}");
        assert_eq!(snapshotter.image_mounts().len(), 1);
        eventually("the lease", || store.leases().len() == 1);

        // A container goes on reading while the daemon is dead and after it is back.
        let words = [
            "run",
            "-d",
            "--snapshotter",
            "uimgacc",
            reference,
            "sleeper",
        ];
        client.ctr_ok(&[&words[..], &["/bin/busybox", "sleep", "1000"]].concat());
        let mut count = 0;
        let mut read = |when: &str| {
            count += 1;
            let id = format!("e{count}");
            let words = ["tasks", "exec", "--exec-id", &id, "sleeper"];
            let script = ["/bin/sh", "-c", &heard_to_its_end("cat /top")];
            let said = client.ctr_ok(&[&words[..], &script].concat());
            assert_eq!(said, "top of the store\n", "{version:?}, {when}");
        };
        read("before");
        snapshotter.kill9();
        read("killed");
        snapshotter.restart();
        read("restarted");
        client.reconnected();
        assert_eq!(
            client.run(reference, "c2", "cat /top"),
            "top of the store\n"
        );
        assert_eq!(
            snapshotter.image_mounts().len(),
            1,
            "the mount is taken over"
        );
        snapshotter.stop();
        assert_eq!(
            snapshotter.image_mounts().len(),
            1,
            "a stop unmounts nothing"
        );
        read("stopped");
        snapshotter.restart();
        client.reconnected();

        // As after a reboot: the mount is gone, the next container makes it again.
        let point = snapshotter.image_mounts().remove(0);
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(
            client.run(reference, "c3", "cat /top"),
            "top of the store\n"
        );
        read("with its mount gone");

        // The whole image is used by its own index; the copy of it lies on the node.
        assert!(point.with_file_name("index.erofs").exists());
        client.ctr_ok(&["tasks", "kill", "--signal", "9", "sleeper"]);
        eventually("the end of the task", || {
            client.ctr(&["tasks", "rm", "sleeper"]).status.success()
        });
        client.ctr_ok(&["containers", "rm", "sleeper"]);
        if way == Way::Cri {
            client.containerd.cri().remove_image(reference).unwrap();
        } else {
            client.ctr_ok(&["images", "rm", "--sync", reference]);
        }
        eventually("the unmount", || snapshotter.image_mounts().is_empty());
        eventually("the index's end", || {
            !point.with_file_name("index.erofs").exists()
        });
        eventually("the lease's end", || store.leases().is_empty());
    }
}

#[test]
fn an_image_that_shares_a_base_starts_from_the_store_for_that_part() {
    if !ready(&[Need::Root, Need::Parts, Need::Filesystem("erofs")]) {
        return;
    }
    for (version, way) in WAYS {
        let registry = Registry::start();
        let known = two_layers(&registry, "known:1", "of the registry\n");
        let other = two_layers(&registry, "other:1", "another top\n");
        assert_eq!(known.layers[0].chain_id, other.layers[0].chain_id);
        let store = StoreMaker::new();
        store.add(&layers_of(&known));
        let snapshotter = Snapshotter::start(store.path(), &[]);
        let client = Client::start(version, way, &snapshotter);
        client.pull(&registry, &other.reference);
        assert!(!fetched(&registry, &other.layers[0].digest));
        assert!(fetched(&registry, &other.layers[1].digest));
        let said = client.run(&other.reference, "c1", "cat /top /etc/from-store");
        assert!(
            said.starts_with("another top\nfrom the store\n"),
            "{version:?}: {said}"
        );
    }
}

#[test]
fn two_namespaces_and_a_parent_that_was_unpacked_here() {
    if !ready(&[Need::Root, Need::Parts, Need::Filesystem("erofs")]) {
        return;
    }
    let version = ContainerdVersion::V2_1;
    let registry = Registry::start();
    let pushed = two_layers(&registry, "app:1", "of the registry\n");
    let store = StoreMaker::new();
    store.add(&layers_of(&pushed));
    let snapshotter = Snapshotter::start(store.path(), &[]);
    let first = Containerd::start(version, &Options::proxy(&snapshotter.socket()));
    let names: Vec<String> = (0..4).map(|n| format!("ns{n}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let (first, reference) = (&first, &pushed.reference);
            scope.spawn(move || {
                let mut command = first.ctr_command();
                command.args(["--namespace", name, "images", "pull", "--plain-http"]);
                command.args(["--snapshotter", "uimgacc", reference]);
                let output = command.output().unwrap();
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{version:?}: {text}");
            });
        }
    });
    for layer in &pushed.layers {
        assert!(!fetched(&registry, &layer.digest), "{version:?}");
    }
    drop(first);

    // The base was pulled while the store was away, the rest comes when it is back.
    let away = store.path().with_extension("away");
    std::fs::rename(store.path(), &away).unwrap();
    let base = image::busybox().push(&registry, "base:1");
    let snapshotter = Snapshotter::start(store.path(), &[]);
    let second = Client::start(version, Way::Ctr, &snapshotter);
    second.pull(&registry, &base.reference);
    assert!(fetched(&registry, &base.layers[0].digest));
    std::fs::rename(&away, store.path()).unwrap();
    second.pull(&registry, &pushed.reference);
    assert!(!fetched(&registry, &pushed.layers[1].digest));
    assert_eq!(
        second.run(&pushed.reference, "c1", "cat /top"),
        "top of the store\n"
    );
    assert!(
        !second
            .run(&base.reference, "c2", "cat /etc/passwd")
            .is_empty()
    );
}

#[test]
fn a_damaged_or_silent_store_costs_a_download_and_no_more() {
    if !ready(&[Need::Root, Need::Parts, Need::Filesystem("erofs")]) {
        return;
    }
    let registry = Registry::start();
    let pushed = two_layers(&registry, "app:1", "of the registry\n");
    let store = StoreMaker::new();
    store.add(&layers_of(&pushed));

    // An index that is not there any more: found out before containerd is told to skip the layer.
    let index = store.index_file(pushed.chain_id());
    let bytes = std::fs::read(&index).unwrap();
    std::fs::remove_file(&index).unwrap();
    let snapshotter = Snapshotter::start(store.path(), &[]);
    let client = Client::start(ContainerdVersion::V2_1, Way::Ctr, &snapshotter);
    client.pull(&registry, &pushed.reference);
    assert!(fetched(&registry, &pushed.layers[1].digest));
    let said = client.run(&pushed.reference, "c1", "cat /top");
    assert_eq!(said, "of the registry\n");
    drop(client);

    // An index with other bytes: the kernel never sees it, and the error names the file.
    let mut wrong = bytes;
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    std::fs::write(&index, &wrong).unwrap();
    let snapshotter = Snapshotter::start(store.path(), &[]);
    let client = Client::start(ContainerdVersion::V2_1, Way::Ctr, &snapshotter);
    client.pull(&registry, &pushed.reference);
    let words = [
        "run",
        "--rm",
        "--snapshotter",
        "uimgacc",
        &pushed.reference,
        "c2",
    ];
    let output = client.ctr(&[&words[..], &["/bin/cat", "/top"]].concat());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("has digest sha256:"), "{text}");
    assert!(snapshotter.image_mounts().is_empty());
    drop(client);

    // A store that never answers: a pipe that nobody writes stands in for a dead server.
    let silent = tempfile::tempdir().unwrap();
    let pipe = silent.path().join("store.json");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut snapshotter = Snapshotter::start(silent.path(), &["--store-timeout", "1"]);
    let client = Client::start(ContainerdVersion::V2_1, Way::Ctr, &snapshotter);
    let started = Instant::now();
    client.pull(&registry, &pushed.reference);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "waited once a layer"
    );
    let said = client.run(&pushed.reference, "c3", "cat /top");
    assert_eq!(said, "of the registry\n");
    // Neither does a thread that hangs in the store keep the process.
    let started = Instant::now();
    snapshotter.stop();
    assert!(started.elapsed() < Duration::from_secs(15));
}
