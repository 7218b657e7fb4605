//! What the snapshotter says of itself: `GET /status` on its status socket.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use uimgacc_objects::HeldChain;
use uimgacc_types::{ChainId, ChainToken};

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
    /// By their tokens: what is known of chains here goes into an object that many may read.
    #[serde(default, deserialize_with = "tokens")]
    pub(super) chains: Vec<HeldChain>,
}

/// A chain as the daemon reports it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chain {
    chain_id: ChainId,
    containers: u32,
}

fn tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HeldChain>, D::Error> {
    let chains = Vec::<Chain>::deserialize(deserializer)?;
    let held = |chain: Chain| HeldChain {
        token: ChainToken::of(chain.chain_id).to_string(),
        containers: chain.containers,
    };
    Ok(chains.into_iter().map(held).collect())
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
    status.chains.sort_by(|a, b| a.token.cmp(&b.token));
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let chain = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let body = format!(
            r#"{{"version":"0.1.0","kernel":"6.18.44","mountMethod":null,
            "store":{{"source":"nfs://a/b","reachable":false,"error":"no route","storeId":null}},
            "chains":[{{"chainId":"{}","containers":2}},{{"chainId":"{}","containers":0}}],
            "more":1}}"#,
            chain("b"),
            chain("a")
        );
        let good = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{body}");
        let status = parse(good.as_bytes()).unwrap();
        assert_eq!(status.mount_method, None);
        assert_eq!(status.store.error.as_deref(), Some("no route"));
        let mut expected = [("a", 0), ("b", 2)].map(|(digit, containers)| HeldChain {
            token: ChainToken::of(chain(digit).parse().unwrap()).to_string(),
            containers,
        });
        expected.sort_by(|a, b| a.token.cmp(&b.token));
        assert_eq!(status.chains, expected);
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
