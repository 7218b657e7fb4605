//! The registry guard against a plain HTTP client: the standard library's sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use uimgacc_testkit::{Need, Registry, ready};

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn get(registry: &Registry, headers: &str) -> String {
    let mut stream = TcpStream::connect(registry.address()).unwrap();
    write!(
        stream,
        "GET /v2/ HTTP/1.0\r\nHost: {}\r\n{headers}\r\n",
        registry.address()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_open_registry_answers_and_ends_on_drop() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    assert!(get(&registry, "").starts_with("HTTP/1.0 200"));
    assert!(
        registry.log().contains("/v2/"),
        "requests are logged: {}",
        registry.log()
    );
    let (address, storage) = (registry.address(), registry.storage());
    drop(registry);
    assert!(
        TcpStream::connect(address).is_err(),
        "the registry still listens"
    );
    assert!(!storage.exists());
}

#[test]
fn a_registry_with_a_password_wants_it() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start_with_htpasswd("anna", "s3cret");
    assert!(get(&registry, "").starts_with("HTTP/1.0 401"));
    // anna:s3cret and anna:wrong
    assert!(
        get(&registry, "Authorization: Basic YW5uYTpzM2NyZXQ=\r\n").starts_with("HTTP/1.0 200")
    );
    assert!(
        get(&registry, "Authorization: Basic YW5uYTp3cm9uZw==\r\n").starts_with("HTTP/1.0 401")
    );
}
