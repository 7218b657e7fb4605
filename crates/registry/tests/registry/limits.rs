//! Manifests, configs and tokens that lie about themselves or never end.

use serde_json::{Value, json};
use uimgacc_registry::{Error, Platform, ResolvedImage};
use uimgacc_types::Digest;

use crate::server::{Reply, Server, Then};
use crate::{chain, client, image};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

fn config() -> String {
    json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [Digest::of(b"x")]}})
        .to_string()
}

fn manifest(layer_type: &str, config: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor(layer_type, b"x")],
    })
}

/// Serves `documents` by digest, the first also by tag.
async fn serve(documents: Vec<String>) -> Server {
    Server::start(move |request, _| {
        let by_digest = |document: &&String| {
            request
                .target
                .ends_with(&Digest::of(document.as_bytes()).to_string())
        };
        let found = documents.iter().find(by_digest);
        let found = found.or_else(|| {
            request
                .target
                .ends_with("/manifests/1")
                .then(|| &documents[0])
        });
        match found {
            Some(document) => Reply::new(200, &[], document.as_bytes()),
            None => Reply::new(404, &[], b""),
        }
    })
    .await
}

async fn resolve(documents: Vec<String>) -> Result<ResolvedImage, Error> {
    let server = serve(documents).await;
    let platform: Platform = "linux/amd64".parse().unwrap();
    let name = image(&format!("{}/app:1", server.address()));
    client().resolve(&name, &platform).await
}

async fn refused(documents: Vec<String>) -> String {
    chain(&resolve(documents).await.unwrap_err())
}

#[tokio::test]
async fn the_good_case_is_good() {
    let config = config();
    let resolved = resolve(vec![manifest(LAYER, &config).to_string(), config]).await;
    assert_eq!(resolved.unwrap().manifest.layers.len(), 1);
}

#[tokio::test]
async fn layers_that_cannot_be_used_are_named() {
    let config = config();
    for (media_type, expected) in [
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "is a foreign layer",
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+zstd:chunked",
            "is supported",
        ),
        ("application/x-lz4", "application/x-lz4"),
    ] {
        let document = manifest(media_type, &config).to_string();
        let text = refused(vec![document, config.clone()]).await;
        assert!(text.contains(expected), "{text}");
        assert!(text.contains(&Digest::of(b"x").to_string()), "{text}");
    }
}

#[tokio::test]
async fn documents_that_are_no_image_are_named() {
    let config = config();
    let helm = manifest(LAYER, &config)
        .to_string()
        .replace("oci.image.config", "cncf.helm.config");
    assert!(refused(vec![helm]).await.contains("helm"));
    assert!(
        refused(vec!["<html>".to_owned()])
            .await
            .contains("no valid manifest")
    );
    let bad_config = "[]".to_owned();
    let document = manifest(LAYER, &bad_config).to_string();
    assert!(
        refused(vec![document, bad_config])
            .await
            .contains("cannot use the config")
    );
}

#[tokio::test]
async fn digests_and_sizes_are_checked() {
    let config = config();
    let document = manifest(LAYER, &config).to_string();
    let server = Server::start(move |_, _| Reply::new(200, &[], document.as_bytes())).await;
    let wrong = image(&format!(
        "{}/app@{}",
        server.address(),
        Digest::of(b"other")
    ));
    let error = client().pull_manifest(&wrong).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{}", chain(&error));

    let announced = Digest::of(b"other").to_string();
    let document = manifest(LAYER, &config).to_string();
    let server = Server::start(move |_, _| {
        let headers = [("Docker-Content-Digest", announced.as_str())];
        Reply::new(200, &headers, document.as_bytes())
    })
    .await;
    let by_tag = image(&format!("{}/app:1", server.address()));
    let error = client().pull_manifest(&by_tag).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{}", chain(&error));

    // An index that is wrong about the size of its manifest.
    let child = manifest(LAYER, &config).to_string();
    let mut entry = descriptor(OCI, child.as_bytes());
    entry["size"] = 17.into();
    entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    let text = refused(vec![index.to_string(), child, config.clone()]).await;
    assert!(text.contains("expected 17"), "{text}");

    // A config of the right length with other bytes.
    let other = config.replace("amd64", "arm64");
    let document = manifest(LAYER, &config).to_string();
    let digest = Digest::of(config.as_bytes()).to_string();
    let server = Server::start(move |request, _| {
        let body = if request.target.ends_with(&digest) {
            &other
        } else {
            &document
        };
        Reply::new(200, &[], body.as_bytes())
    })
    .await;
    let by_tag = image(&format!("{}/app:1", server.address()));
    let platform = "linux/amd64".parse().unwrap();
    let error = client().resolve(&by_tag, &platform).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{}", chain(&error));
}

#[tokio::test]
async fn what_never_ends_is_cut_off() {
    let server = Server::start(|_, _| Reply::raw(200, &[], b"{").then(Then::Endless)).await;
    let name = image(&format!("{}/app:1", server.address()));
    let error = client().pull_manifest(&name).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{}", chain(&error));

    let server = Server::start(|_, _| Reply::raw(403, &[], b"no").then(Then::Endless)).await;
    let name = image(&format!("{}/app:1", server.address()));
    let error = client().pull_manifest(&name).await.unwrap_err();
    assert!(error.is_unauthorized(), "{}", chain(&error));

    let server = Server::start(|request, _| {
        if request.target.starts_with("/token") {
            return Reply::raw(200, &[], b"{").then(Then::Endless);
        }
        let realm = format!(
            "Bearer realm=\"http://{}/token\"",
            request.header("host").unwrap()
        );
        Reply::new(401, &[("WWW-Authenticate", &realm)], b"")
    })
    .await;
    let name = image(&format!("{}/app:1", server.address()));
    let error = client().pull_manifest(&name).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{}", chain(&error));

    // Too many indexes within each other; digests rule out a ring.
    let mut document = manifest(LAYER, &config()).to_string();
    let mut documents = vec![document.clone()];
    for _ in 0..8 {
        let mut entry = descriptor(INDEX, document.as_bytes());
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        document = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        documents.insert(0, document.clone());
    }
    assert!(refused(documents).await.contains("too deep"));
}
