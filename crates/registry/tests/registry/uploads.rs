//! Uploads that break, stall or are refused.

use std::collections::BTreeMap;
use std::time::Duration;

use uimgacc_registry::{Client, ClientOptions, CopyOutcome, Descriptor, Error, Timeouts};
use uimgacc_types::Digest;

use crate::server::{Reply, Request, Server, Then};
use crate::{chain, client, image, noise, options};

/// Text, because [`Request`] keeps bodies as text.
fn content() -> Vec<u8> {
    noise(100_000).iter().map(|byte| byte % 64 + 32).collect()
}

fn layer() -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        digest: Digest::of(&content()),
        size: 100_000,
        annotations: BTreeMap::new(),
    }
}

/// Source and target: the source serves the blob, the target opens uploads and `put` ends them.
async fn pair(put: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> (Server, Server) {
    let source = Server::start(|_, _| Reply::new(200, &[], &content())).await;
    let target = Server::start(move |request, number| match request.method.as_str() {
        "HEAD" => Reply::raw(404, &[], b""),
        "POST" => Reply::new(202, &[("Location", "/upload/1")], b""),
        _ => put(request, number),
    })
    .await;
    (source, target)
}

async fn copy(client: &Client, source: &Server, target: &Server) -> Result<CopyOutcome, Error> {
    let source = image(&format!("{}/a:1", source.address()));
    let target = image(&format!("{}/b:1", target.address()));
    client.copy_blob(&source, &target, &layer()).await
}

fn methods(server: &Server) -> Vec<String> {
    server.seen().iter().map(|r| r.method.clone()).collect()
}

#[tokio::test]
async fn a_failed_upload_starts_again_with_all_bytes() {
    let (source, target) = pair(|_, number| match number {
        0..6 => Reply::new(503, &[], b""),
        _ => Reply::new(201, &[], b""),
    })
    .await;
    let outcome = copy(&client(), &source, &target).await;
    assert_eq!(outcome.map_err(|e| chain(&e)), Ok(CopyOutcome::Uploaded));
    assert_eq!(
        methods(&target),
        [
            "HEAD", "POST", "PUT", "HEAD", "POST", "PUT", "HEAD", "POST", "PUT"
        ]
    );
    let last = target.seen().pop().unwrap();
    assert_eq!(Digest::of(last.body.as_bytes()), layer().digest);
    assert_eq!(last.header("content-length"), Some("100000"));
    assert_eq!(source.seen().len(), 3);
}

#[tokio::test]
async fn a_refused_upload_is_not_tried_again() {
    let body =
        br#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}"#;
    let (source, target) = pair(|_, _| Reply::new(400, &[], body)).await;
    let text = chain(&copy(&client(), &source, &target).await.unwrap_err());
    assert!(text.contains("400, DIGEST_INVALID"), "{text}");
    assert_eq!(methods(&target), ["HEAD", "POST", "PUT"]);
}

#[tokio::test]
async fn a_source_that_breaks_is_the_reason() {
    let source =
        Server::start(|_, _| Reply::raw(200, &[("Content-Length", "100000")], &content()[..1000]))
            .await;
    let (_, target) = pair(|_, _| Reply::new(201, &[], b"")).await;
    let error = copy(&client(), &source, &target).await.unwrap_err();
    let text = chain(&error);
    assert!(text.starts_with("cannot pull blob"), "{text}");
    assert!(text.contains(&source.address()), "{text}");
}

#[tokio::test]
async fn an_upload_that_stalls_is_given_up() {
    let (source, target) = pair(|_, _| Reply {
        bytes: Vec::new(),
        then: Then::Hang,
    })
    .await;
    let client = Client::new(ClientOptions {
        timeouts: Timeouts {
            idle: Duration::from_millis(300),
            ..Timeouts::default()
        },
        ..options()
    })
    .unwrap();
    let error = copy(&client, &source, &target).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{}", chain(&error));
}

#[tokio::test]
async fn a_mount_that_is_refused_becomes_an_upload() {
    let server = Server::start(|request, _| {
        let is_mount = request.target.contains("mount=");
        match request.method.as_str() {
            "HEAD" => Reply::raw(404, &[], b""),
            "GET" => Reply::new(200, &[], &content()),
            "POST" if is_mount => Reply::new(403, &[], b""),
            "POST" => Reply::new(202, &[("Location", "/upload/1")], b""),
            _ => Reply::new(201, &[], b""),
        }
    })
    .await;
    let outcome = copy(&client(), &server, &server).await;
    assert_eq!(outcome.map_err(|e| chain(&e)), Ok(CopyOutcome::Uploaded));
    let seen = server.seen();
    let mount = &seen[1].target;
    assert_eq!(
        mount,
        &format!(
            "/v2/b/blobs/uploads/?mount=sha256%3A{}&from=a",
            layer().digest.hex()
        )
    );
}

#[tokio::test]
async fn the_upload_that_a_mount_opened_is_logged_in() {
    let server = Server::start(|request, _| {
        if request.target.starts_with("/token") {
            return Reply::new(200, &[], br#"{"token": "t"}"#);
        }
        if request.header("authorization").is_none() {
            let host = request.header("host").unwrap();
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            return Reply::new(401, &[("WWW-Authenticate", &challenge)], b"");
        }
        match request.method.as_str() {
            "HEAD" => Reply::raw(404, &[], b""),
            "GET" => Reply::new(200, &[], &content()),
            "POST" => Reply::new(202, &[("Location", "/upload/1")], b""),
            _ => Reply::new(201, &[], b""),
        }
    })
    .await;
    let outcome = copy(&client(), &server, &server).await;
    assert_eq!(outcome.map_err(|e| chain(&e)), Ok(CopyOutcome::Uploaded));
    let seen = server.seen();
    let puts: Vec<_> = seen.iter().filter(|r| r.method == "PUT").collect();
    assert_eq!(puts.len(), 1, "the layer goes over the wire once");
    assert_eq!(puts[0].header("authorization"), Some("Bearer t"));
}
