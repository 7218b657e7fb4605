//! Who gets what is in the store: those who can read the image's manifest, and nobody else.

use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::image::{Compression, ImageBuilder, Pushed, busybox, busybox_layer};
use uimgacc_testkit::tar::TarBuilder;

use crate::snapshotter::Snapshotter;
use crate::support::{StoreFixture, failed, ok, ready};

fn secret_layer() -> Vec<u8> {
    let content: Vec<u8> = b"the secret of another team\n".repeat(1000);
    TarBuilder::new().file("secret", 0o644, content).finish()
}

fn secret(compression: Compression) -> ImageBuilder {
    ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .layer(secret_layer(), compression)
}

/// An image whose configuration claims the layers of `of`, made of whatever was at hand.
fn forged(of: &Pushed) -> ImageBuilder {
    let junk = |name: &str| TarBuilder::new().file(name, 0o644, "junk").finish();
    let claimed: Vec<&str> = of.layers.iter().map(|l| l.diff_id.as_str()).collect();
    ImageBuilder::new()
        .layer(junk("one"), Compression::Gzip)
        .layer(junk("two"), Compression::Gzip)
        .diff_ids(&claimed)
}

/// A node: the daemon with these arguments, and a containerd.
fn node(
    version: ContainerdVersion,
    fixture: &StoreFixture,
    more: &[&str],
) -> (Snapshotter, Containerd) {
    let pause = busybox().push(&fixture.registry, "pause:1");
    let snapshotter = Snapshotter::start_with(fixture, more);
    let options = Options::proxy(&snapshotter.socket()).pause(&pause.reference);
    let containerd = Containerd::start(version, &options);
    containerd.trust(&fixture.registry);
    (snapshotter, containerd)
}

/// Layers of the image that this containerd fetched, in all namespaces.
fn fetched(containerd: &Containerd, image: &Pushed) -> usize {
    let blobs: String = ["default", "k8s.io", containerd.namespace()]
        .iter()
        .map(|namespace| containerd.ctr_ok(&["--namespace", namespace, "content", "ls", "-q"]))
        .collect();
    let layers = image.layers.iter();
    layers.filter(|layer| blobs.contains(&layer.digest)).count()
}

#[test]
fn a_forged_configuration_opens_nothing() {
    if !ready() {
        return;
    }
    for version in ContainerdVersion::ALL {
        let fixture = StoreFixture::new();
        let pushed = secret(Compression::Gzip).push(&fixture.registry, "secret:1");
        ok(&fixture.create("secret:1", "secret:fast", &[]));
        let forged = forged(&pushed)
            .push(&fixture.registry, "forged:1")
            .reference;
        let (snapshotter, containerd) = node(version, &fixture, &[]);
        let refused = containerd.cri().pull(&forged);
        assert!(refused.is_err(), "{version:?}: {refused:?}");
        let refused = containerd.pull(&forged);
        assert!(!refused.status.success(), "{version:?}: {refused:?}");
        assert_eq!(snapshotter.mounts(), 0, "{version:?}");
        drop(containerd);
        drop(snapshotter);
        // What the setting gives up: nothing but the proof stands in the way.
        let trusting = ["--original-images", "accelerate-without-proof"];
        let (_snapshotter, containerd) = node(version, &fixture, &trusting);
        containerd.cri().pull(&forged).unwrap();
    }
}

#[test]
fn an_honest_original_is_taken_by_the_blobs_of_its_manifest() {
    if !ready() {
        return;
    }
    for version in ContainerdVersion::ALL {
        let fixture = StoreFixture::new();
        let pushed = secret(Compression::Gzip).push(&fixture.registry, "secret:1");
        ok(&fixture.create("secret:1", "secret:fast", &[]));
        // The same layers in other blobs: nobody has verified those.
        let other = secret(Compression::Zstd).push(&fixture.registry, "other:1");
        let (snapshotter, containerd) = node(version, &fixture, &[]);
        let cri = containerd.cri();
        cri.pull(&pushed.reference).unwrap();
        // The base layer may be here by the pause image.
        assert!(fetched(&containerd, &pushed) <= 1, "{version:?}");
        assert!(
            !containerd
                .ctr_ok(&["--namespace", "k8s.io", "content", "ls", "-q"])
                .contains(&pushed.layers[1].digest),
            "{version:?}: the layer was fetched"
        );
        let pod = cri.run_pod("pod").unwrap();
        let command = ["/bin/busybox", "head", "-c", "10", "/secret"];
        let id = cri
            .create_container(&pod, "main", &pushed.reference, &command)
            .unwrap();
        cri.start_container(&id).unwrap();
        assert_eq!(cri.wait(&id).unwrap(), 0);
        // The image, and its base alone for the sandbox: the pause image is made of the same blob.
        assert_eq!(snapshotter.mounts(), 2, "{version:?}");
        // By `ctr` in a namespace of its own, where its transfer service names the blobs.
        let is_shown = matches!(version, ContainerdVersion::V2_1 | ContainerdVersion::V2_4);
        ok(&containerd.pull(&pushed.reference));
        let blobs = containerd.ctr_ok(&["content", "ls", "-q"]);
        let is_fetched = blobs.contains(&pushed.layers[1].digest);
        assert_eq!(is_fetched, !is_shown, "{version:?}");
        containerd.ctr_ok(&["images", "rm", "--sync", &pushed.reference]);
        if is_shown {
            ok(&containerd.pull(&other.reference));
            let blobs = containerd.ctr_ok(&["content", "ls", "-q"]);
            assert!(blobs.contains(&other.layers[1].digest), "{version:?}");
        }
        cri.remove_container(&id).unwrap();
        cri.remove_pod(&pod).unwrap();
    }
}

#[test]
fn create_takes_no_layer_of_the_store_on_the_word_of_a_configuration() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let pushed = secret(Compression::Gzip).push(&fixture.registry, "secret:1");
    ok(&fixture.create("secret:1", "secret:fast", &[]));
    forged(&pushed).push(&fixture.registry, "forged:1");
    let message = failed(&fixture.create("forged:1", "forged:fast", &[]), 1);
    assert!(message.contains("diff ID"), "{message}");
    let images = fixture.json(&["get"]);
    assert_eq!(images["Images"].as_array().unwrap().len(), 1);
    // Half true: the layer that the blob does hold is no reason to believe the rest.
    ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .layer(
            TarBuilder::new().file("x", 0o644, "x").finish(),
            Compression::Gzip,
        )
        .diff_ids(&[&pushed.layers[0].diff_id, &pushed.layers[1].diff_id])
        .push(&fixture.registry, "half:1");
    failed(&fixture.create("half:1", "half:fast", &[]), 1);

    // The same layers in other blobs are fetched and hashed once, and not converted again.
    secret(Compression::Zstd).push(&fixture.registry, "other:1");
    let create = |name: &str, target: &str| {
        let output = fixture.create(name, target, &["-o", "json"]);
        ok(&output);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let first = create("other:1", "other:fast");
    assert!(first.contains("verifying layers"), "{first}");
    let again = create("other:1", "other:fast");
    assert!(!again.contains("verifying layers"), "{again}");
    fixture.assert_clean();
}
