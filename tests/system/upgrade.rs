//! Another version of our parts on a running cluster.

use std::fs;
use std::path::Path;
use std::time::Instant;

use uimgacc_testkit::cluster::Service;
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::image::{Compression, ImageBuilder, Pushed};
use uimgacc_testkit::tar::TarBuilder;

use crate::fixture::{ClusterFixture, LABELS, MINUTE, app, ready};
use crate::parts::{Part, Process};
use crate::steady::Steady;

#[test]
fn an_upgrade_replaces_the_daemon_and_stops_nothing() {
    if !ready() {
        return;
    }
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1]);
    let node = fixture.cluster.node(0);
    fixture.enable(&[]);
    let steady = Steady::start(&fixture);
    let pid = |part| Process::find(node, part).map(|process| process.pid());
    let before = (node.pid(Service::Containerd), pid(Part::Daemon));
    assert!(before.0.is_some() && before.1.is_some(), "{before:?}");

    let next = next_version(&fixture);
    // What is not mentioned stays as it is.
    let started = Instant::now();
    fixture.ok(&["enable", "--image", &next.reference, "--timeout", "120"]);
    println!("upgraded after {:?}", started.elapsed());
    let daemon = node.path("/usr/local/bin/uimgacc-snapshotter");
    fixture.wait_until("the new daemon", MINUTE, || {
        let now = pid(Part::Daemon);
        fs::read(&daemon).is_ok_and(|bytes| bytes.ends_with(b"next"))
            && now.is_some()
            && now != before.1
    });
    let rollout = ["rollout", "status", "-n", "kube-system", "--timeout=60s"];
    for set in ["deployment/uimgacc-agent", "daemonset/uimgacc-node"] {
        fixture.cluster.kubectl_ok(&[&rollout[..], &[set]].concat());
    }
    fixture.wait_until("labels", MINUTE, || fixture.labels(node.name()) == LABELS);
    assert_eq!(node.pid(Service::Containerd), before.0);
    let agents = fixture.cluster.get(&[
        "pods",
        "-n",
        "kube-system",
        "-l",
        "app.kubernetes.io/part-of=uimgacc",
    ]);
    for pod in agents["items"].as_array().unwrap() {
        let image = &pod["spec"]["containers"][0]["image"];
        // The Job that made the store has ended, and Pods of the version before may still end.
        let is_over = pod["metadata"]["deletionTimestamp"].is_string()
            || pod["status"]["phase"] == "Succeeded";
        assert!(is_over || *image == next.reference.as_str(), "{pod}");
    }
    steady.check(&fixture);
    app(&fixture, "app:1", 1);
    fixture.create("app:1", "app:fast");
    steady.check(&fixture);
}

/// Our image with another snapshotter: what stands behind a program's end changes nothing but its digest.
fn next_version(fixture: &ClusterFixture) -> Pushed {
    let node = fixture.cluster.node(0);
    let agent = Process::find(node, Part::Leader).unwrap();
    let root = agent.root();
    let read = |name: &str| fs::read(root.join(name)).unwrap();
    let certificates = "etc/ssl/certs/ca-certificates.crt";
    let mut tar = TarBuilder::new().file(certificates, 0o644, read(certificates));
    for entry in fs::read_dir(root.join("bin")).unwrap() {
        let name = entry.unwrap().file_name();
        let path = Path::new("bin").join(&name);
        let path = path.to_str().unwrap();
        let mut program = read(path);
        if name == "uimgacc-snapshotter" {
            program.extend(b"next");
        }
        tar = tar.file(path, 0o755, program);
    }
    ImageBuilder::new()
        .layer(tar.finish(), Compression::None)
        .config("User", "65532:65532".into())
        .env(&["PATH=/bin"])
        .entrypoint(&["/bin/uimgacc-agent"])
        .push(fixture.cluster.registry(), "uimgacc:next")
}
