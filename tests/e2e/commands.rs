//! The verbs as a user meets them.

use uimgacc_testkit::image::{Compression, ImageBuilder, busybox};
use uimgacc_testkit::tar::TarBuilder;

use crate::support::{StoreFixture, failed, ok, ready, text, uimgacc};

#[test]
fn create_get_mount_delete() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let pushed = busybox().push(&fixture.registry, "app:1");
    ok(&fixture.create("app:1", "app:fast", &[]));
    fixture.assert_clean();

    let images = fixture.json(&["get"]);
    let image = &images["Images"][0];
    assert_eq!(image["OriginalImage"], fixture.registry.reference("app:1"));
    assert_eq!(image["TargetImage"], fixture.registry.reference("app:fast"));
    assert_eq!(image["Layers"], pushed.layers.len());
    assert_eq!(image["ImageId"], pushed.config_digest);
    assert_eq!(image["ChainId"], pushed.chain_id());
    assert!(image["Size"].as_u64().unwrap() > 100_000);

    // Once more: nothing is fetched, the record stays one.
    ok(&fixture.create("app:1", "app:fast", &[]));
    assert_eq!(
        fixture.json(&["get"])["Images"].as_array().unwrap().len(),
        1
    );

    {
        let mounted = fixture.mount("app:fast", &["--read-write"]);
        assert!(mounted.path.join("bin/busybox").exists());
        std::fs::write(mounted.path.join("new"), "x").unwrap();
        let refused = uimgacc(&[
            "delete",
            &fixture.registry.reference("app:fast"),
            "--store",
            &fixture.store(),
        ]);
        let message = failed(&refused, 4);
        assert!(message.contains(&text(&mounted.path)), "{message}");
    }
    ok(&uimgacc(&[
        "delete",
        &fixture.registry.reference("app:fast"),
        "--store",
        &fixture.store(),
    ]));
    let stat = fixture.json(&["store", "stat"]);
    assert_eq!(
        (&stat["images"], &stat["packs"], &stat["layers"]),
        (&0.into(), &0.into(), &0.into())
    );
    fixture.assert_clean();
}

#[test]
fn a_registry_of_this_machine_is_never_looked_for_at_a_proxy() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    busybox().push(&fixture.registry, "app:1");
    let mut create = std::process::Command::new(uimgacc_testkit::programs::program("uimgacc"));
    create
        .args(["create", "--plain-http", "--store", &fixture.store()])
        .args(["app:1", "app:fast"].map(|name| fixture.registry.reference(name)));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
        // Nobody listens there.
        create.env(name, "http://127.0.0.1:9");
    }
    create.env_remove("NO_PROXY").env_remove("no_proxy");
    ok(&create.output().unwrap());
}

#[test]
fn the_target_is_a_normal_image_with_annotations() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let pushed = busybox().push(&fixture.registry, "app:1");
    ok(&fixture.create("app:1", "team/fast:2", &[]));
    let manifest = uimgacc_testkit::process::run(
        std::process::Command::new(uimgacc_testkit::parts::program("skopeo")).args([
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{}", fixture.registry.reference("team/fast:2")),
        ]),
    );
    let manifest: serde_json::Value = serde_json::from_slice(&manifest.stdout).unwrap();
    assert_eq!(manifest["config"]["digest"], pushed.config_digest);
    let annotations = &manifest["layers"][0]["annotations"];
    assert_eq!(
        annotations["containerd.io/snapshot/uimgacc.chain-id"],
        pushed.chain_id()
    );
    for (layer, original) in manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(&pushed.layers)
    {
        assert_eq!(layer["digest"], original.digest);
        assert_eq!(layer["size"], original.stored_bytes);
    }
}

#[test]
fn errors_say_what_to_do() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let missing = failed(&fixture.create("nothing:1", "nothing:2", &[]), 1);
    assert!(missing.contains("nothing"), "{missing}");
    let no_store = uimgacc(&["get", "--store", &text(&fixture.path("elsewhere"))]);
    assert!(failed(&no_store, 1).contains("store init"));
    let unknown = uimgacc(&["delete", "nobody/knows:it", "--store", &fixture.store()]);
    assert!(failed(&unknown, 1).contains("uimgacc get"));
    assert!(failed(&uimgacc(&["create", "a"]), 2).contains("--help"));
    let bad_name = uimgacc(&["create", "UPPER", "b", "--store", &fixture.store()]);
    assert!(failed(&bad_name, 1).contains("UPPER"));
}

#[test]
fn damage_is_found() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let content: Vec<u8> = (0..100_000u32).map(|at| at.to_le_bytes()[0]).collect();
    ImageBuilder::new()
        .layer(
            TarBuilder::new().file("f", 0o644, content).finish(),
            Compression::Gzip,
        )
        .push(&fixture.registry, "app:1");
    ok(&fixture.create("app:1", "app:2", &["--no-push"]));
    fixture.assert_clean();
    let pack = std::fs::read_dir(fixture.path("store/packs"))
        .unwrap()
        .flat_map(|fan| std::fs::read_dir(fan.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|suffix| suffix == "pack"))
        .unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[50_000] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let output = uimgacc(&["store", "verify", "--store", &fixture.store()]);
    failed(&output, 3);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&text(&pack)));
}
