//! Pods and containers through CRI, as a kubelet makes them.

use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::{Need, Registry, cri, image, ready};

#[test]
fn a_pod_with_a_container_runs_through_cri_on_every_version() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let pushed = image::busybox().push(&registry, "busybox:1");
    for version in ContainerdVersion::ALL {
        let containerd = Containerd::start(version, &Options::default().pause(&pushed.reference));
        containerd.trust(&registry);
        let cri = containerd.cri();
        cri.pull(&pushed.reference).unwrap();
        let image = cri.image(&pushed.reference).unwrap().unwrap();
        assert_eq!(image.id, pushed.config_digest);
        let pod = cri
            .run_pod("pod")
            .unwrap_or_else(|status| panic!("{version:?}: {status}\n{}", containerd.log_tail()));
        let id = cri
            .create_container(&pod, "main", &pushed.reference, &[])
            .unwrap();
        cri.start_container(&id).unwrap();
        assert_eq!(
            cri.container(&id).unwrap().state(),
            cri::ContainerState::ContainerRunning
        );
        let said = cri
            .exec(
                &id,
                &["/bin/busybox", "sh", "-c", "echo out; echo err >&2; exit 3"],
            )
            .unwrap();
        assert_eq!(
            (
                said.stdout.as_slice(),
                said.stderr.as_slice(),
                said.exit_code
            ),
            (&b"out\n"[..], &b"err\n"[..], 3)
        );

        let once = cri
            .create_container(&pod, "once", &pushed.reference, &["/bin/echo", "hello"])
            .unwrap();
        cri.start_container(&once).unwrap();
        assert_eq!(cri.wait(&once).unwrap(), 0);
        assert!(cri.container_log("once").ends_with("stdout F hello\n"));

        let used = cri.image_filesystems().unwrap();
        let folder = containerd
            .dir()
            .join("root/io.containerd.snapshotter.v1.overlayfs");
        assert!(
            used.iter().any(|one| one
                .fs_id
                .as_ref()
                .is_some_and(|fs| fs.mountpoint == folder.display().to_string())),
            "{used:?}"
        );
        cri.stop_container(&id).unwrap();
        cri.remove_container(&id).unwrap();
        cri.remove_pod(&pod).unwrap();
        cri.remove_image(&pushed.reference).unwrap();
        assert!(cri.image(&pushed.reference).unwrap().is_none());
    }
}
