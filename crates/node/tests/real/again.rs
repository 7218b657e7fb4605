//! Nodes whose snapshots are gone while containerd still knows them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use uimgacc_node::{install, uninstall};
use uimgacc_testkit::cri::Cri;
use uimgacc_testkit::image::{Compression, ImageBuilder, busybox_layer};
use uimgacc_testkit::tar::TarBuilder;
use uimgacc_testkit::{Need, Registry, ready};

use crate::host::{Host, versions};
use crate::versions::default_config;

/// Makes a container of the image in CRI's namespace, with what it needs of snapshots.
fn create(host: &Host, reference: &str, name: &str) {
    let words = [
        "--namespace",
        "k8s.io",
        "containers",
        "create",
        "--snapshotter",
        "uimgacc",
        reference,
        name,
    ];
    host.ctr_ok(&words);
}

fn committed(host: &Host) -> usize {
    host.snapshots().matches("Committed").count()
}

#[test]
fn containers_start_on_a_node_that_was_set_up_before_and_on_one_that_lost_its_data() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let base = || {
        let second = TarBuilder::new().file("second", 0o644, "2");
        ImageBuilder::new()
            .layer(busybox_layer(), Compression::Gzip)
            .layer(second.finish(), Compression::Gzip)
    };
    let third = TarBuilder::new().file("third", 0o644, "3");
    let small = base().push(&registry, "small:1").reference;
    let derived = base().layer(third.finish(), Compression::Gzip);
    let large = derived.push(&registry, "large:1").reference;
    for version in versions() {
        let host = Host::start(version, Some(&default_config(version)));
        let settings = &host.settings;
        install(settings, &mut |_| {}).unwrap();
        let cri = Cri::connect(&settings.containerd_socket, &host.path("logs"));
        cri.pull(&small).unwrap();
        cri.pull(&large).unwrap();
        drop(cri);
        create(&host, &large, "before");
        assert_eq!(committed(&host), 3, "{version}");
        // One whose snapshot only containerd's collector of garbage removes.
        create(&host, &small, "collected");
        let words = ["containers", "rm", "--keep-snapshot", "collected"];
        host.ctr_ok(&[&["--namespace", "k8s.io"], &words[..]].concat());

        uninstall(settings, false, &mut |_| {}).unwrap();
        uninstall(settings, true, &mut |_| {}).unwrap();
        assert!(!settings.root.exists(), "{version}");
        install(settings, &mut |_| {}).unwrap();
        assert_eq!(committed(&host), 0, "{version}");
        create(&host, &small, "small");
        create(&host, &large, "large");
        assert_eq!(committed(&host), 3, "{version}");

        // All is lost under a node that is set up. Its next look at itself mends it.
        for entry in fs::read_dir(&settings.root).unwrap() {
            let path = entry.unwrap().path();
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.unwrap();
        }
        for (pid, words) in host.processes() {
            if words.contains("uimgacc-snapshotter ") && !words.contains(" supervise ") {
                kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            }
        }
        host.wait(|| settings.root.join("snapshots.redb").exists());
        let again = install(settings, &mut |_| {}).unwrap();
        assert!(!again.restarted, "{version}");
        create(&host, &small, "small-again");
        create(&host, &large, "large-again");
        assert_eq!(committed(&host), 3, "{version}");
    }
}
