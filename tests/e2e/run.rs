//! Containers from the store, by `ctr` and through CRI, with the daemon killed under them.

use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::image::{Compression, ImageBuilder, Pushed, busybox, busybox_layer};
use uimgacc_testkit::tar::TarBuilder;

use crate::snapshotter::Snapshotter;
use crate::support::{StoreFixture, ok, ready, uimgacc};

/// An image of three layers with a program, a large file and a folder that two layers share.
fn push(fixture: &StoreFixture, name: &str) -> Pushed {
    let large: Vec<u8> = (0..4_000_000u32)
        .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .layer(
            TarBuilder::new()
                .file("data/large", 0o644, large)
                .file("data/old", 0o644, "old")
                .finish(),
            Compression::Gzip,
        )
        .layer(
            TarBuilder::new()
                .file("data/new", 0o644, "new\n")
                .whiteout("data/old")
                .finish(),
            Compression::Gzip,
        )
        .cmd(&["/bin/busybox", "cat", "/data/new"])
        .push(&fixture.registry, name)
}

/// containerd's client tries again after a pause that grows, and refuses calls meanwhile. Its supervisor was held back here; one that is
/// not starts a daemon before anybody has given up.
fn answers_again(containerd: &Containerd) {
    let began = std::time::Instant::now();
    loop {
        let listed = containerd.ctr(&["snapshots", "--snapshotter", "uimgacc", "list"]);
        if listed.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(began.elapsed().as_secs() < 20, "{said}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

fn content(containerd: &Containerd) -> String {
    containerd.ctr_ok(&["content", "ls", "-q"])
}

#[test]
fn by_ctr() {
    if !ready() {
        return;
    }
    for version in [ContainerdVersion::V1_7, ContainerdVersion::V2_1] {
        let fixture = StoreFixture::new();
        let original = push(&fixture, "app:1");
        ok(&fixture.create("app:1", "app:fast", &[]));
        let mut snapshotter = Snapshotter::start(&fixture);
        let containerd = Containerd::start(version, &Options::proxy(&snapshotter.socket()));
        containerd.trust(&fixture.registry);
        let target = fixture.registry.reference("app:fast");
        let pull = |name: &str| ok(&containerd.pull(name));
        pull(&target);
        // No layer was downloaded, none unpacked. The `ctr` of 1.7 fetches a whole image before it
        // asks any snapshotter, and unpacks it without saying what for; its CRI does not.
        let is_lazy = version == ContainerdVersion::V2_1;
        assert_eq!(snapshotter.unpacked() == 0, is_lazy, "{version:?}");
        let fetched = |layer: usize| content(&containerd).contains(&original.layers[layer].digest);
        for layer in 0..original.layers.len() {
            assert_ne!(fetched(layer), is_lazy, "{version:?}: layer {layer}");
        }
        let run = |image: &str, id: &str, script: &str| {
            containerd.run_script(&["--snapshotter", "uimgacc"], image, id, script)
        };
        assert_eq!(run(&target, "first", "cat /data/new"), "new\n");
        let script = "ls /data; echo x > /data/made; cat /data/made";
        assert_eq!(run(&target, "gone", script), "large\nnew\nx\n");

        // A container goes on reading while the daemon is dead, and after it is back.
        containerd.ctr_ok(&[
            "run",
            "-d",
            "--snapshotter",
            "uimgacc",
            &target,
            "long",
            "/bin/busybox",
            "sleep",
            "600",
        ]);
        assert_eq!(snapshotter.mounts(), usize::from(is_lazy), "{version:?}");
        snapshotter.kill();
        let sum = |id: &str| {
            uimgacc_testkit::page_cache::dropped(3);
            containerd.exec_script("long", id, "/bin/busybox md5sum /data/large")
        };
        let dead = sum("dead");
        assert!(dead.contains("/data/large"), "{dead}");
        snapshotter.resume();
        assert_eq!(sum("alive"), dead);
        answers_again(&containerd);
        assert_eq!(run(&target, "second", "cat /data/new"), "new\n");
        assert_eq!(snapshotter.mounts(), usize::from(is_lazy), "{version:?}");

        // In use: not to be deleted.
        if is_lazy {
            let deleted = uimgacc(&["delete", &target, "--store", &fixture.store()]);
            assert_eq!(
                deleted.status.code(),
                Some(4),
                "{}",
                String::from_utf8_lossy(&deleted.stderr)
            );
        }

        containerd.ctr_ok(&["tasks", "kill", "-s", "KILL", "long"]);
        // By force: the kill need not have come through yet.
        containerd.ctr_ok(&["tasks", "delete", "--force", "long"]);
        containerd.ctr_ok(&["containers", "delete", "long"]);

        // An ordinary image works beside it, and so does one that shares only its first layer.
        busybox().push(&fixture.registry, "plain:1");
        let plain = fixture.registry.reference("plain:1");
        pull(&plain);
        assert_eq!(run(&plain, "plain", "echo hello"), "hello\n");
        ImageBuilder::new()
            .layer(busybox_layer(), Compression::Gzip)
            .layer(
                TarBuilder::new().file("own", 0o644, "own\n").finish(),
                Compression::Gzip,
            )
            .push(&fixture.registry, "based:1");
        let based = fixture.registry.reference("based:1");
        pull(&based);
        assert_ne!(fetched(0), is_lazy, "{version:?}");
        assert_eq!(run(&based, "based", "cat /own"), "own\n");
    }
}

#[test]
fn through_cri() {
    if !ready() {
        return;
    }
    for version in ContainerdVersion::ALL {
        let fixture = StoreFixture::new();
        let original = push(&fixture, "app:1");
        ok(&fixture.create("app:1", "app:fast", &[]));
        let pause = busybox().push(&fixture.registry, "pause:1");
        let snapshotter = Snapshotter::start(&fixture);
        let options = Options::proxy(&snapshotter.socket()).pause(&pause.reference);
        let containerd = Containerd::start(version, &options);
        containerd.trust(&fixture.registry);
        let cri = containerd.cri();
        let target = fixture.registry.reference("app:fast");
        cri.pull(&target)
            .unwrap_or_else(|status| panic!("{version:?}: {status}\n{}", containerd.log_tail()));
        let blobs = containerd.ctr_ok(&["--namespace", "k8s.io", "content", "ls", "-q"]);
        for layer in &original.layers[1..] {
            assert!(
                !blobs.contains(&layer.digest),
                "{version:?}: {} was fetched",
                layer.digest
            );
        }
        let image = cri.image(&target).unwrap().unwrap();
        assert_eq!(image.id, original.config_digest);
        let pod = cri
            .run_pod("pod")
            .unwrap_or_else(|status| panic!("{version:?}: {status}\n{}", containerd.log_tail()));
        let id = cri.create_container(&pod, "main", &target, &[]).unwrap();
        cri.start_container(&id).unwrap();
        assert_eq!(cri.wait(&id).unwrap(), 0);
        assert!(cri.container_log("main").ends_with("stdout F new\n"));
        cri.remove_container(&id).unwrap();
        cri.remove_pod(&pod).unwrap();
    }
}
