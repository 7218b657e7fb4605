//! A server, a client that signs, and a connection for those that do not speak HTTP well.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use uimgacc_api::Parameters;
use uimgacc_api::signature::{SIGNATURE, sign};
use uimgacc_testkit::ApiServer;

/// Two projects with a cluster each; `nowhere` is one that cannot be reached.
pub(crate) const TWO_PROJECTS: &str = r#"
[limits]
seconds = 5
requests_per_second = 10000
[[keys]]
public_key = "a"
private_key = "private-a"
projects = { org-a = "write" }
[[keys]]
public_key = "reader"
private_key = "private-reader"
projects = { org-a = "read", org-b = "read" }
[[keys]]
public_key = "b"
private_key = "private-b"
projects = { org-b = "write" }
[[clusters]]
id = "uk8s-a"
project = "org-a"
kubeconfig = "{dir}/nowhere"
[[clusters]]
id = "uk8s-b"
project = "org-b"
kubeconfig = "{dir}/nowhere"
"#;

/// A kubeconfig of a server that nobody listens at.
pub(crate) const NOWHERE: &str = r#"
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
"#;

pub(crate) fn start(config: &str, files: &[(&str, &str)]) -> ApiServer {
    let program = Path::new(env!("CARGO_BIN_EXE_uimgacc-api"));
    ApiServer::start(program, config, files)
}

/// With [`TWO_PROJECTS`].
pub(crate) fn two_projects() -> ApiServer {
    start(TWO_PROJECTS, &[("nowhere", NOWHERE)])
}

/// These parameters (`a=b` each) with the signature of a private key.
pub(crate) fn signed(pairs: &[(&str, &str)], private_key: &str) -> Vec<(String, String)> {
    let mut parameters = Parameters::default();
    for (key, value) in pairs {
        parameters
            .add((*key).to_owned(), (*value).to_owned())
            .unwrap();
    }
    let signature = sign(&parameters, private_key);
    let mut all: Vec<(String, String)> = parameters
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    all.push((SIGNATURE.to_owned(), signature));
    all
}

/// A form, or a query.
pub(crate) fn form(pairs: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// A request as bytes.
pub(crate) fn request(method: &str, target: &str, kind: Option<&str>, body: &[u8]) -> Vec<u8> {
    let kind = kind.map_or(String::new(), |kind| format!("Content-Type: {kind}\r\n"));
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\n{kind}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends bytes and reads to the end: status line with headers, and body.
pub(crate) fn send(server: &ApiServer, bytes: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // A server that has heard enough closes before all was sent.
    let _ = stream.write_all(bytes);
    read(stream)
}

/// Reads an answer to its end.
pub(crate) fn read(mut stream: TcpStream) -> (String, String) {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all).into_owned();
    match text.split_once("\r\n\r\n") {
        Some((head, body)) => (head.to_owned(), body.to_owned()),
        None => (text, String::new()),
    }
}

/// Sends bytes that are a request, and reads its answer.
pub(crate) fn ask(server: &ApiServer, bytes: &[u8]) -> Value {
    let (head, body) = send(server, bytes);
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}\n{body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// A form by POST.
pub(crate) fn post(server: &ApiServer, pairs: &[(String, String)]) -> Value {
    let kind = Some("application/x-www-form-urlencoded");
    ask(server, &request("POST", "/", kind, form(pairs).as_bytes()))
}

/// Code and message of an answer.
pub(crate) fn code(answer: &Value) -> (u64, String) {
    let message = answer["Message"].as_str().unwrap_or_default().to_owned();
    (answer["RetCode"].as_u64().unwrap(), message)
}
