//! What the snapshotter says of itself: `GET /status` on its status socket.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use uimgacc_objects::HeldChain;

use super::host::socket_path;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// Longer answers are not ours: that is room for 100,000 chains.
const MAX_ANSWER: u64 = 16 << 20;

/// What the snapshotter says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DaemonStatus {
    pub(super) version: String,
    pub(super) kernel: String,
    /// `None` where no method works.
    #[serde(default)]
    pub(super) mount_method: Option<String>,
    pub(super) store: StoreStatus,
    #[serde(default)]
    pub(super) chains: Vec<HeldChain>,
}

/// What it says of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoreStatus {
    pub(super) source: String,
    pub(super) reachable: bool,
    #[serde(default)]
    pub(super) error: Option<String>,
}

/// Asks it. The error says in a line why there is no answer.
pub(super) async fn ask(socket: io::Result<OwnedFd>) -> Result<DaemonStatus, String> {
    let socket = socket.map_err(|error| format!("its status socket is missing ({error})"))?;
    let answer = tokio::time::timeout(DEADLINE, get(&socket)).await;
    let bytes = answer
        .map_err(|_| format!("no answer within {} s", DEADLINE.as_secs()))?
        .map_err(|error| error.to_string())?;
    parse(&bytes)
}

async fn get(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket_path(socket)).await?;
    // HTTP/1.0: the answer ends with the connection, so it has no chunks.
    stream
        .write_all(b"GET /status HTTP/1.0\r\nHost: uimgacc\r\n\r\n")
        .await?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn parse(answer: &[u8]) -> Result<DaemonStatus, String> {
    let end = b"\r\n\r\n";
    let head = answer.windows(end.len()).position(|window| window == end);
    let (head, body) = head
        .and_then(|at| Some((answer.get(..at)?, answer.get(at + end.len()..)?)))
        .ok_or("it does not speak HTTP")?;
    let line = String::from_utf8_lossy(head);
    let line = line.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) != Some("200") {
        return Err(format!("it answers {line:?}"));
    }
    let mut status: DaemonStatus =
        serde_json::from_slice(body).map_err(|error| format!("it answers nonsense: {error}"))?;
    // So that the same chains are the same status.
    status.chains.sort_by(|a, b| a.chain_id.cmp(&b.chain_id));
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let body = r#"{"version":"0.1.0","kernel":"6.18.44","mountMethod":null,
            "store":{"source":"nfs://a/b","reachable":false,"error":"no route","storeId":null},
            "chains":[{"chainId":"sha256:b","containers":2},{"chainId":"sha256:a","containers":0}],
            "more":1}"#;
        let good = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{body}");
        let status = parse(good.as_bytes()).unwrap();
        assert_eq!(status.mount_method, None);
        assert_eq!(status.store.error.as_deref(), Some("no route"));
        assert_eq!(status.chains[1].containers, 2);
        for (bad, why) in [
            ("", "HTTP"),
            ("HTTP/1.1 500 No\r\n\r\n{}", "500 No"),
            ("HTTP/1.1 200 OK\r\n\r\n{}", "nonsense"),
        ] {
            let error = parse(bad.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
