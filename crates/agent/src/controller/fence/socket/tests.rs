#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream as Peer};
use std::time::Instant;

use http::{Method, Request};

use super::*;
use crate::controller::fence::{is_deposed, now};

const MINUTE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_millis(1500);

/// An open fence, a fenced client, and the server that it knows.
fn stage() -> (Fence, Client, TcpListener) {
    let fence = Fence::default();
    fence.open_until(now().plus(MINUTE));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", server.local_addr().unwrap());
    let config = Config::new(uri.parse().unwrap());
    // As the program does: it makes TLS known.
    drop(Client::try_from(config.clone()).unwrap());
    let client = fence.client(config, PATIENCE).unwrap();
    (fence, client, server)
}

fn request(body: Vec<u8>) -> Request<Vec<u8>> {
    let request = Request::builder().method(Method::PUT).uri("/x");
    request.body(body).unwrap()
}

/// How many bytes come until the connection ends, and how it ends.
fn heard(mut peer: Peer) -> (usize, io::Result<()>) {
    let mut all = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match peer.read(&mut buffer) {
            Ok(0) => return (all, Ok(())),
            Ok(count) => all += count,
            Err(error) => return (all, Err(error)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_resets_a_connection_that_is_idle() {
    let (fence, client, server) = stage();
    let server = tokio::task::spawn_blocking(move || {
        let (mut peer, _) = server.accept().unwrap();
        let mut buffer = [0; 4096];
        assert!(peer.read(&mut buffer).unwrap() > 0);
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            .unwrap();
        heard(peer)
    });
    let answer = client.request_text(request(Vec::new())).await.unwrap();
    assert_eq!(answer, "{}");
    let begun = Instant::now();
    fence.close();
    let (bytes, end) = server.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(bytes, 0);
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_network_has_not_taken_is_thrown_away() {
    let (fence, client, server) = stage();
    let size = 64 << 20;
    let write = tokio::spawn(async move { client.request_text(request(vec![0; size])).await });
    let (peer, _) = server.accept().unwrap();
    // The server reads nothing, so the buffers of both kernels fill.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!write.is_finished());
    fence.close();
    let error = write.await.unwrap().unwrap_err();
    assert!(is_deposed(&error), "{error:?}");
    let (bytes, end) = heard(peer);
    assert!(bytes < size, "{bytes}");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_socket_writes_only_while_the_lease_is_held() {
    let fence = Fence::default();
    fence.open_until(now().plus(MINUTE));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connector = Connector {
        inner: HttpConnector::new(),
        fence: fence.clone(),
        patience: PATIENCE,
    };
    let uri = format!("http://{}", server.local_addr().unwrap());
    let mut socket = connector.call(uri.parse().unwrap()).await.unwrap();
    let (peer, _) = server.accept().unwrap();
    let patience = sockopt::tcp_user_timeout(socket.stream.inner()).unwrap();
    assert_eq!(u128::from(patience), PATIENCE.as_millis());

    let mut write = async |bytes: &'static [u8]| {
        std::future::poll_fn(|context| Pin::new(&mut socket).poll_write(context, bytes)).await
    };
    assert_eq!(write(b"early").await.unwrap(), 5);
    fence.close();
    let error = write(b"late").await.unwrap_err();
    assert!(error.get_ref().unwrap().is::<Deposed>());
    drop(socket);
    assert_eq!(heard(peer).0, 5);
}

#[test]
fn no_proxy_stands_between() {
    let mut config = Config::new("http://127.0.0.1:1".parse().unwrap());
    config.proxy_url = Some("http://127.0.0.1:2".parse().unwrap());
    assert!(Fence::default().client(config, PATIENCE).is_err());
}
