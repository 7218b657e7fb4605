//! Servers that lie, break off or lead astray.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uimgacc_registry::{Advice, Client, ClientOptions, Descriptor, Error, Timeouts};
use uimgacc_types::{Digest, ImageReference};

use crate::server::{Reply, Request, Server, Then};
use crate::{chain, client, client_as, drain, image, noise, options};

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len().try_into().unwrap(),
        annotations: BTreeMap::new(),
    }
}

fn app(server: &Server) -> ImageReference {
    image(&format!("{}/app:1", server.address()))
}

async fn fetch(server: &Server, layer: &Descriptor) -> Result<Vec<u8>, Error> {
    let stream = client().blob(&app(server), layer, 0).await?;
    drain(stream).await
}

/// The first byte that a `Range` header asks for.
fn first_byte(request: &Request) -> Option<usize> {
    let range = request.header("range")?.strip_prefix("bytes=")?;
    range.split_once('-')?.0.parse().ok()
}

fn partial(bytes: &[u8], first: usize, until: usize) -> Reply {
    let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
    let len = (bytes.len() - first).to_string();
    let headers = [("Content-Range", range.as_str()), ("Content-Length", &len)];
    Reply::raw(206, &headers, &bytes[first..until])
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let bytes = noise(1 << 20);
    let wanted = layer(&bytes);
    let sent = Arc::new(bytes.clone());
    let server = Server::start(move |request, number| {
        let first = first_byte(request).unwrap_or(0);
        let until = (first + 300_000).min(sent.len());
        if number == 0 {
            let len = sent.len().to_string();
            return Reply::raw(200, &[("Content-Length", &len)], &sent[..until]);
        }
        partial(&sent, first, until)
    })
    .await;
    assert_eq!(fetch(&server, &wanted).await.unwrap(), bytes);
    let ranges: Vec<Option<usize>> = server.seen().iter().map(first_byte).collect();
    assert_eq!(
        ranges,
        [None, Some(300_000), Some(600_000), Some(900_000)],
        "no byte twice"
    );
}

#[tokio::test]
async fn a_server_without_ranges_is_read_again() {
    let bytes = noise(400_000);
    let wanted = layer(&bytes);
    let sent = bytes.clone();
    let server = Server::start(move |_, number| {
        let len = sent.len().to_string();
        let until = if number == 0 { 123_456 } else { sent.len() };
        Reply::raw(200, &[("Content-Length", &len)], &sent[..until])
    })
    .await;
    assert_eq!(fetch(&server, &wanted).await.unwrap(), bytes);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_download_that_always_breaks_is_given_up() {
    let bytes = noise(1000);
    let wanted = layer(&bytes);
    let server = Server::start(move |request, _| match first_byte(request) {
        None => Reply::raw(200, &[("Content-Length", "1000")], &bytes[..500]),
        Some(first) => partial(&bytes, first, first),
    })
    .await;
    let error = fetch(&server, &wanted).await.unwrap_err();
    assert!(
        matches!(error, Error::Interrupted { .. }),
        "{}",
        chain(&error)
    );
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn lengths_that_differ_are_errors() {
    let bytes = noise(1000);
    let wanted = layer(&bytes);
    let longer = noise(1001);
    // With a length: seen before anything is read. Without: when it ends or does not.
    let cases: Vec<(&str, Reply, u64)> = vec![
        ("short", Reply::new(200, &[], &bytes[..999]), 999),
        ("long", Reply::new(200, &[], &longer), 1001),
        ("short, open end", Reply::raw(200, &[], &bytes[..999]), 999),
        ("long, open end", Reply::raw(200, &[], &longer), 1001),
    ];
    for (case, reply, expected) in cases {
        let server = Server::start(move |request, _| match first_byte(request) {
            None => reply.clone(),
            Some(_) => Reply::raw(206, &[("Content-Range", "bytes 999-999/1000")], b""),
        })
        .await;
        match fetch(&server, &wanted).await {
            Err(Error::Size {
                found,
                expected: 1000,
                ..
            }) => assert_eq!(found, expected, "{case}"),
            other => panic!("{case}: {other:?}"),
        }
    }
    let server = Server::start(move |_, _| Reply::raw(200, &[], &[]).then(Then::Endless)).await;
    let error = fetch(&server, &wanted).await.unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{}", chain(&error));
}

#[tokio::test]
async fn wrong_ranges_are_errors() {
    let bytes = noise(1000);
    let wanted = layer(&bytes);
    for range in [
        "bytes 0-999/1000",
        "bytes 500-999/2000",
        "bytes 500-",
        "",
        "items 500-999/1000",
    ] {
        let server = Server::start(move |_, number| {
            if number == 0 {
                return Reply::raw(200, &[("Content-Length", "1000")], &noise(500));
            }
            Reply::raw(206, &[("Content-Range", range)], &noise(500))
        })
        .await;
        let error = fetch(&server, &wanted).await.unwrap_err();
        assert!(
            matches!(error, Error::BadAnswer { .. }),
            "{range}: {}",
            chain(&error)
        );
    }
    // A part where the whole was asked for.
    let server = Server::start(|_, _| Reply::new(206, &[], &noise(1000))).await;
    let error = fetch(&server, &wanted).await.unwrap_err();
    assert!(chain(&error).contains("206"), "{}", chain(&error));
}

#[tokio::test]
async fn busy_servers_are_waited_for() {
    let bytes = noise(10);
    let wanted = layer(&bytes);
    let sent = bytes.clone();
    let server = Server::start(move |_, number| match number {
        0 => Reply::new(429, &[("Retry-After", "1")], b""),
        1 => Reply::new(503, &[], b""),
        2 => Reply::raw(200, &[], b"").then(Then::Close),
        _ => Reply::new(200, &[], &sent),
    })
    .await;
    let start = Instant::now();
    // The third answer is an empty body of unknown length: the stream asks again.
    assert_eq!(fetch(&server, &wanted).await.unwrap(), bytes);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.seen().len(), 4);

    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#;
    let server = Server::start(|_, _| Reply::new(429, &[("Retry-After", "3600")], body)).await;
    let error = fetch(&server, &wanted).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("pull rate limit"), "{text}");
    assert_eq!(error.advice(), Some(Advice::Wait));
    assert_eq!(server.seen().len(), 1, "an hour is not waited for");

    let server = Server::start(|_, _| Reply::new(500, &[], b"boom")).await;
    let text = chain(&fetch(&server, &wanted).await.unwrap_err());
    assert!(text.contains("500, boom"), "{text}");
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_server_that_stands_still_is_left() {
    let bytes = noise(10);
    let wanted = layer(&bytes);
    let options = ClientOptions {
        timeouts: Timeouts {
            idle: Duration::from_millis(700),
            ..Timeouts::default()
        },
        ..options()
    };
    let client = Client::new(options).unwrap();
    let silent = Server::start(|_, _| Reply {
        bytes: Vec::new(),
        then: Then::Hang,
    })
    .await;
    let error = client.pull_manifest(&app(&silent)).await.unwrap_err();
    assert!(
        matches!(error, Error::Interrupted { .. }),
        "{}",
        chain(&error)
    );

    let halfway = Server::start(|_, _| {
        Reply::raw(200, &[("Content-Length", "10")], b"12345").then(Then::Hang)
    })
    .await;
    let stream = client.blob(&app(&halfway), &wanted, 0).await.unwrap();
    let error = drain(stream).await.unwrap_err();
    // Its second answer to a request for a range is a 200 of the whole, so it hangs there again.
    assert!(
        matches!(error, Error::Interrupted { .. }),
        "{}",
        chain(&error)
    );
    assert_eq!(halfway.seen().len(), 5);
}

#[tokio::test]
async fn passwords_do_not_follow_redirects() {
    let bytes = noise(5000);
    let wanted = layer(&bytes);
    let sent = bytes.clone();
    // The storage asks for a login too, to tempt the client.
    let storage = Server::start(move |request, _| {
        if request.target.contains("tempt") {
            return Reply::new(401, &[("WWW-Authenticate", "Basic realm=x")], b"");
        }
        Reply::new(200, &[], &sent)
    })
    .await;
    let elsewhere = storage.address();
    let registry = Server::start(move |request, _| {
        if request.header("authorization").is_none() {
            return Reply::new(401, &[("WWW-Authenticate", "Basic realm=x")], b"");
        }
        let name = if request.target.contains("/app/") {
            "data"
        } else {
            "tempt"
        };
        let location = format!("http://{elsewhere}/{name}?signature=s3cr3t");
        Reply::new(307, &[("Location", &location)], b"")
    })
    .await;
    let client = client_as(&registry.address(), "user", "hunter2");
    let stream = client.blob(&app(&registry), &wanted, 0).await.unwrap();
    assert_eq!(drain(stream).await.unwrap(), bytes);

    let tempting = image(&format!("{}/other:1", registry.address()));
    let error = client.blob(&tempting, &wanted, 0).await.unwrap_err();
    assert!(error.is_unauthorized());
    let text = format!("{error:?} {}", chain(&error));
    assert!(
        !text.contains("s3cr3t") && !text.contains("hunter2"),
        "{text}"
    );

    let at_registry = registry.seen();
    assert_eq!(
        at_registry[1].header("authorization"),
        Some("Basic dXNlcjpodW50ZXIy")
    );
    let at_storage = storage.seen();
    assert_eq!(at_storage.len(), 2);
    for request in at_storage {
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("referer"), None);
    }
}

#[tokio::test]
async fn passwords_are_for_their_own_registry() {
    let server =
        Server::start(|_, _| Reply::new(401, &[("WWW-Authenticate", "Basic realm=x")], b"")).await;
    let client = client_as("registry.example", "user", "hunter2");
    let error = client.pull_manifest(&app(&server)).await.unwrap_err();
    assert!(error.is_unauthorized());
    for request in server.seen() {
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn uploads_that_lead_elsewhere_get_no_password() {
    let storage = Server::start(|_, _| Reply::new(201, &[], b"")).await;
    let elsewhere = storage.address();
    let registry = Server::start(move |request, _| {
        if request.header("authorization").is_none() {
            return Reply::new(401, &[("WWW-Authenticate", "Basic realm=x")], b"");
        }
        if request.method == "HEAD" {
            return Reply::raw(404, &[], b"");
        }
        let location = format!("http://{elsewhere}/upload?state=1");
        Reply::new(202, &[("Location", &location)], b"")
    })
    .await;
    let client = client_as(&registry.address(), "user", "hunter2");
    let bytes = noise(100);
    let digest = Digest::of(&bytes);
    client
        .push_blob_bytes(&app(&registry), digest, bytes.into())
        .await
        .unwrap();
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].method, "PUT");
    assert_eq!(
        seen[0].target,
        format!("/upload?state=1&digest=sha256%3A{}", digest.hex())
    );
    assert_eq!(seen[0].header("authorization"), None);
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|_, _| Reply::new(302, &[("Location", "/v2/again")], b"")).await;
    let error = client().pull_manifest(&app(&server)).await.unwrap_err();
    assert!(
        chain(&error).contains("more than 5 redirects"),
        "{}",
        chain(&error)
    );
    assert_eq!(server.seen().len(), 6);
}
