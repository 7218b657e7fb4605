//! Pull and push with Debian's docker-registry.

use std::process::Command;

use bytes::Bytes;
use serde_json::{Value, json};
use uimgacc_registry::{Advice, CopyOutcome, LayerEncoding, Platform, ResolvedImage};
use uimgacc_testkit::image::{Compression, ImageBuilder, MediaTypes, Pushed};
use uimgacc_testkit::{Need, Registry, parts, process, ready};
use uimgacc_types::Digest;

use crate::{chain, client, client_as, drain, image, noise, options};

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Layers of noise: nothing here looks into the tar.
fn builder() -> ImageBuilder {
    ImageBuilder::new()
        .layer(noise(3_000_000), Compression::Gzip)
        .layer(noise(10_000), Compression::None)
}

fn check_resolved(resolved: &ResolvedImage, pushed: &Pushed) {
    assert_eq!(resolved.manifest_bytes, pushed.manifest);
    assert_eq!(resolved.manifest_digest.to_string(), pushed.manifest_digest);
    assert_eq!(
        resolved.manifest.config.digest.to_string(),
        pushed.config_digest
    );
    assert_eq!(
        Digest::of(&resolved.config_bytes),
        resolved.manifest.config.digest
    );
    let digests: Vec<String> = resolved
        .manifest
        .layers
        .iter()
        .map(|layer| layer.digest.to_string())
        .collect();
    let diff_ids: Vec<String> = resolved
        .config
        .diff_ids
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = |of: fn(&uimgacc_testkit::image::PushedLayer) -> &String| -> Vec<String> {
        pushed
            .layers
            .iter()
            .map(|layer| of(layer).clone())
            .collect()
    };
    assert_eq!(digests, expected(|layer| &layer.digest));
    assert_eq!(diff_ids, expected(|layer| &layer.diff_id));
}

#[tokio::test]
async fn an_oci_image_comes_back_whole() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let pushed = builder()
        .layer(noise(500_000), Compression::Zstd)
        .push(&registry, "app:1");
    let name = image(&pushed.reference);
    let client = client();
    let resolved = client.resolve(&name, &amd64()).await.unwrap();
    check_resolved(&resolved, &pushed);
    let encodings: Vec<_> = resolved
        .manifest
        .layers
        .iter()
        .map(|layer| layer.layer_encoding().unwrap())
        .collect();
    assert_eq!(
        encodings,
        [
            LayerEncoding::Gzip,
            LayerEncoding::Plain,
            LayerEncoding::Zstd
        ]
    );
    for layer in &resolved.manifest.layers {
        let whole = drain(client.blob(&name, layer, 0).await.unwrap())
            .await
            .unwrap();
        assert_eq!(Digest::of(&whole), layer.digest);
        for offset in [1, layer.size / 2, layer.size - 1, layer.size] {
            let rest = client.blob(&name, layer, offset).await.unwrap();
            let rest = drain(rest).await.unwrap();
            assert_eq!(rest, whole[usize::try_from(offset).unwrap()..], "{offset}");
        }
        assert!(client.blob(&name, layer, layer.size + 1).await.is_err());
    }

    // By digest, with and without a tag; and not by a wrong one.
    let digest = resolved.manifest_digest;
    let by_digest = client.resolve(&name.with_digest(digest), &amd64()).await;
    check_resolved(&by_digest.unwrap(), &pushed);
    let both = image(&format!("{name}@{digest}"));
    assert_eq!(client.pull_manifest(&both).await.unwrap().digest, digest);
    let wrong = name.with_digest(Digest::of(b"wrong"));
    let error = client.pull_manifest(&wrong).await.unwrap_err();
    assert!(error.is_not_found(), "{}", chain(&error));
}

/// An index over images, with an attestation before them as BuildKit writes it.
fn index(media_type: &str, images: &[(&Pushed, &str)]) -> Bytes {
    let entry = |image: &Pushed, os: &str, architecture: &str| {
        let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
        json!({
            "mediaType": manifest["mediaType"],
            "digest": image.manifest_digest,
            "size": image.manifest.len(),
            "platform": {"os": os, "architecture": architecture},
        })
    };
    let mut manifests = vec![entry(images[0].0, "unknown", "unknown")];
    for (image, architecture) in images {
        manifests.push(entry(image, "linux", architecture));
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    serde_json::to_vec(&index).unwrap().into()
}

#[tokio::test]
async fn docker_images_and_lists_are_taken() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let docker = "application/vnd.docker.distribution.manifest.list.v2+json";
    let oci = "application/vnd.oci.image.index.v1+json";
    for (media, list) in [(MediaTypes::Docker, docker), (MediaTypes::Oci, oci)] {
        let intel = builder().media_types(media).push(&registry, "multi:amd64");
        let arm = builder()
            .media_types(media)
            .architecture("arm64")
            .layer(noise(77), Compression::Gzip)
            .push(&registry, "multi:arm64");
        let client = client();
        let name = image(&registry.reference("multi:all"));
        let bytes = index(list, &[(&intel, "amd64"), (&arm, "arm64")]);
        let pushed = client.push_manifest(&name, list, bytes.clone()).await;
        let fetched = client.pull_manifest(&name).await.unwrap();
        assert_eq!(fetched.digest, pushed.unwrap());
        assert_eq!(fetched.media_type, list);
        assert_eq!(fetched.bytes, bytes);
        check_resolved(&client.resolve(&name, &amd64()).await.unwrap(), &intel);
        let arm64 = "linux/arm64/v8".parse().unwrap();
        check_resolved(&client.resolve(&name, &arm64).await.unwrap(), &arm);

        let riscv = "linux/riscv64".parse().unwrap();
        let error = client.resolve(&name, &riscv).await.unwrap_err();
        assert_eq!(error.advice(), Some(Advice::ChoosePlatform));
        let text = error.to_string();
        let expected = "nothing for linux/riscv64, only linux/amd64, linux/arm64";
        assert!(text.contains(expected), "{text}");
        // An image without an index is checked by its config.
        let single = image(&intel.reference);
        let error = client
            .resolve(&single, &arm64)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("only linux/amd64"), "{error}");
    }
}

#[tokio::test]
async fn a_config_with_other_layers_is_refused() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let pushed = builder()
        .diff_ids(&[&Digest::of(b"one").to_string()])
        .push(&registry, "odd:1");
    let error = client()
        .resolve(&image(&pushed.reference), &amd64())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("2 layers, the config 1 diff IDs"), "{error}");
}

/// What skopeo reads of a reference, the manifest as raw bytes.
fn skopeo(args: &[&str]) -> Vec<u8> {
    let mut command = Command::new(parts::program("skopeo"));
    command.arg("--insecure-policy").args(args);
    process::run(&mut command).stdout
}

/// Pushes the image as `target` with one annotation more, and lets skopeo read it back.
async fn push_annotated(
    client: &uimgacc_registry::Client,
    resolved: &ResolvedImage,
    source: &str,
    target: &str,
) -> Vec<CopyOutcome> {
    let (source, target) = (image(source), image(target));
    let mut outcomes = Vec::new();
    for layer in &resolved.manifest.layers {
        let outcome = client.copy_blob(&source, &target, layer).await;
        outcomes.push(outcome.map_err(|e| chain(&e)).unwrap());
    }
    let config = resolved.manifest.config.digest;
    let bytes = resolved.config_bytes.clone();
    client
        .push_blob_bytes(&target, config, bytes)
        .await
        .unwrap();
    let mut manifest: Value = serde_json::from_slice(&resolved.manifest_bytes).unwrap();
    manifest["annotations"] = json!({"test": "1"});
    let bytes = Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let digest = client
        .push_manifest(&target, &resolved.manifest_media_type, bytes.clone())
        .await
        .unwrap();
    assert_eq!(digest, Digest::of(&bytes));

    let name = format!("docker://{target}");
    assert_eq!(
        skopeo(&["inspect", "--raw", "--tls-verify=false", &name]),
        bytes
    );
    // Reads every blob and checks its digest.
    let dir = tempfile::tempdir().unwrap();
    let copy = format!("dir:{}", dir.path().display());
    skopeo(&["copy", "--src-tls-verify=false", &name, &copy]);
    outcomes
}

#[tokio::test]
async fn layers_are_mounted_within_a_registry() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let pushed = builder().push(&registry, "base/app:1");
    let client = client();
    let source = image(&pushed.reference);
    let resolved = client.resolve(&source, &amd64()).await.unwrap();
    let before = registry.log();
    let target = registry.reference("other/fast:1");
    let outcomes = push_annotated(&client, &resolved, &pushed.reference, &target).await;
    assert_eq!(outcomes, [CopyOutcome::Mounted; 2]);
    // Only the config went up.
    let log = registry.log();
    let puts = log[before.len()..]
        .lines()
        .filter(|line| line.contains("\"PUT /v2/other/fast/blobs/uploads/"))
        .count();
    assert_eq!(puts, 1, "{}", &log[before.len()..]);

    let again = push_annotated(&client, &resolved, &pushed.reference, &target).await;
    assert_eq!(again, [CopyOutcome::Present; 2]);
    let same = registry.reference("base/app:fast");
    let beside = push_annotated(&client, &resolved, &pushed.reference, &same).await;
    assert_eq!(beside, [CopyOutcome::Present; 2]);
}

#[tokio::test]
async fn layers_stream_from_registry_to_registry() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let (from, to) = (
        Registry::start(),
        Registry::start_with_htpasswd("user", "hunter2"),
    );
    let pushed = ImageBuilder::new()
        .layer(noise(24 << 20), Compression::None)
        .layer(noise(5), Compression::Gzip)
        .push(&from, "app:1");
    let client = client_as(&to.address(), "user", "hunter2");
    let (source, target) = (image(&pushed.reference), image(&to.reference("app:1")));
    let resolved = client.resolve(&source, &amd64()).await.unwrap();
    for layer in &resolved.manifest.layers {
        let outcome = client.copy_blob(&source, &target, layer).await;
        assert_eq!(outcome.map_err(|e| chain(&e)), Ok(CopyOutcome::Uploaded));
        assert!(client.blob_exists(&target, layer.digest).await.unwrap());
        let back = drain(client.blob(&target, layer, 0).await.unwrap()).await;
        assert_eq!(Digest::of(&back.unwrap()), layer.digest);
    }
    // A started stream is read again from its start.
    let layer = &resolved.manifest.layers[0];
    let mut started = client.blob(&source, layer, 0).await.unwrap();
    started.next_chunk().await.unwrap();
    let elsewhere = image(&to.reference("elsewhere:1"));
    client
        .push_blob_stream(&elsewhere, layer, started, None)
        .await
        .unwrap();
    assert!(client.blob_exists(&elsewhere, layer.digest).await.unwrap());

    // What the registry has differs from what the manifest says: nothing is stored.
    let victim = from.blob_file(&layer.digest.hex());
    std::fs::write(
        &victim,
        noise(24 << 20).iter().map(|b| !b).collect::<Vec<u8>>(),
    )
    .unwrap();
    let third = image(&to.reference("third:1"));
    let error = client.copy_blob(&source, &third, layer).await.unwrap_err();
    assert!(
        chain(&error).contains("DIGEST_INVALID"),
        "{}",
        chain(&error)
    );
    assert!(!client.blob_exists(&third, layer.digest).await.unwrap());
}

#[tokio::test]
async fn passwords_are_asked_for_and_taken() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start_with_htpasswd("user", "hunter2");
    let pushed = builder().push(&registry, "app:1");
    let name = image(&pushed.reference);

    let error = client().resolve(&name, &amd64()).await.unwrap_err();
    assert!(error.is_unauthorized());
    let text = chain(&error);
    assert!(text.contains("401"), "{text}");
    assert_eq!(error.advice(), Some(Advice::LogIn));

    let wrong = client_as(&registry.address(), "user", "hunter3");
    let error = wrong.resolve(&name, &amd64()).await.unwrap_err();
    assert!(error.is_unauthorized());
    assert!(!format!("{error:?} {wrong:?} {}", chain(&error)).contains("hunter3"));

    let right = client_as(&registry.address(), "user", "hunter2");
    let resolved = right.resolve(&name, &amd64()).await.unwrap();
    check_resolved(&resolved, &pushed);
    let target = image(&registry.reference("copy:1"));
    let layer = &resolved.manifest.layers[0];
    let outcome = right.copy_blob(&name, &target, layer).await.unwrap();
    assert_eq!(outcome, CopyOutcome::Mounted);

    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let auths = json!({"auths": {registry.address(): {"auth": "dXNlcjpodW50ZXIy"}}});
    std::fs::write(&config, auths.to_string()).unwrap();
    let docker = uimgacc_registry::Client::new(uimgacc_registry::ClientOptions {
        credentials: uimgacc_registry::CredentialSource::DockerConfigFile(config),
        ..options()
    })
    .unwrap();
    docker.resolve(&name, &amd64()).await.unwrap();
}

/// The credentials are there, and used for what else lies in that registry.
#[tokio::test]
async fn a_repository_can_be_read_as_anybody() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start_with_htpasswd("user", "hunter2");
    let private = image(&builder().push(&registry, "private:1").reference);
    let other = image(&builder().push(&registry, "other:1").reference);
    let as_user = |anonymous| {
        uimgacc_registry::Client::new(uimgacc_registry::ClientOptions {
            credentials: uimgacc_registry::CredentialSource::Explicit {
                registry: registry.address(),
                username: "user".to_owned(),
                password: "hunter2".to_owned(),
            },
            anonymous,
            ..options()
        })
        .unwrap()
    };
    let anonymous = as_user(Some(private.clone()));
    let resolved = anonymous.resolve(&other, &amd64()).await.unwrap();
    let error = anonymous.resolve(&private, &amd64()).await.unwrap_err();
    assert!(error.is_unauthorized(), "{}", chain(&error));
    let layer = &resolved.manifest.layers[0];
    let target = image(&registry.reference("copy:1"));
    // Neither by a mount nor by a transfer.
    let error = anonymous.copy_blob(&private, &target, layer).await;
    assert!(error.unwrap_err().is_unauthorized());
    assert!(!anonymous.blob_exists(&target, layer.digest).await.unwrap());
    let outcome = anonymous.copy_blob(&other, &target, layer).await.unwrap();
    assert_eq!(outcome, CopyOutcome::Mounted);
    as_user(None).resolve(&private, &amd64()).await.unwrap();
}

#[tokio::test]
async fn errors_say_what_to_do() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    builder().push(&registry, "app:1");
    let told = async |name: &str| {
        let error = client().pull_manifest(&image(name)).await.unwrap_err();
        (chain(&error), error.advice())
    };
    let name = registry.reference("app:2");
    let (text, advice) = told(&name).await;
    assert_eq!(
        text,
        format!(
            "cannot pull the manifest of {name}: {} answered 404, MANIFEST_UNKNOWN: manifest unknown",
            registry.address()
        )
    );
    assert_eq!(advice, Some(Advice::CheckImage));
    let (text, advice) = told(&registry.reference("nothing/here:1")).await;
    assert!(
        matches!(advice, Some(Advice::CheckImage | Advice::CheckRepository)),
        "{text}"
    );

    let https = uimgacc_registry::Client::new(uimgacc_registry::ClientOptions {
        plain_http: uimgacc_registry::PlainHttp::default(),
        ..options()
    })
    .unwrap();
    let error = https
        .pull_manifest(&image(&registry.reference("app:1")))
        .await
        .unwrap_err();
    assert_eq!(error.advice(), Some(Advice::AllowPlainHttp));
    assert!(!error.is_transient());

    let address = registry.address();
    drop(registry);
    let (text, advice) = told(&format!("{address}/app:1")).await;
    assert_eq!(advice, Some(Advice::CheckAddress), "{text}");
}
