//! What the snapshotter says of itself: `GET /status` on its status socket; and what first starts read:
//! `/records`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use uimgacc_objects::{HeldChain, ImageStart};
use uimgacc_types::{ChainId, ChainToken};

use super::host::socket_path;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// Longer answers are not ours: that is room for 100,000 chains.
const MAX_ANSWER: u64 = 16 << 20;

/// What the snapshotter says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DaemonStatus {
    pub(super) version: String,
    pub(super) kernel: String,
    /// `None` where no method works.
    pub(super) mount_method: Option<String>,
    pub(super) store: StoreStatus,
    /// By their tokens: what is known of chains here goes into an object that many may read.
    pub(super) chains: Vec<HeldChain>,
    /// Those of which a record of their first start waits.
    pub(super) recorded: Vec<ChainId>,
}

/// The answer as it comes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    version: String,
    kernel: String,
    #[serde(default)]
    mount_method: Option<String>,
    store: StoreStatus,
    #[serde(default)]
    chains: Vec<Chain>,
}

/// A chain as the daemon reports it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chain {
    chain_id: ChainId,
    containers: u32,
    #[serde(default)]
    start: Option<Start>,
}

/// How it was started.
#[derive(Deserialize)]
struct Start {
    #[serde(flatten)]
    times: ImageStart,
    #[serde(default)]
    recorded: bool,
}

impl From<Answer> for DaemonStatus {
    fn from(answer: Answer) -> Self {
        let (mut chains, mut recorded) = (Vec::new(), Vec::new());
        for chain in answer.chains {
            if chain.start.as_ref().is_some_and(|start| start.recorded) {
                recorded.push(chain.chain_id);
            }
            // Until it is over it changes all the time: that is not for an object that many watch.
            let start = chain.start.map(|start| start.times);
            chains.push(HeldChain {
                token: ChainToken::of(chain.chain_id).to_string(),
                containers: chain.containers,
                start: start.filter(|start| start.serving_ms.is_some()),
            });
        }
        // So that the same chains are the same status.
        chains.sort_by(|a, b| a.token.cmp(&b.token));
        Self {
            version: answer.version,
            kernel: answer.kernel,
            mount_method: answer.mount_method,
            store: answer.store,
            chains,
            recorded,
        }
    }
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
    parse(&request(socket, "GET", "/status").await?)
}

/// What the first start of the chain read, encoded; `None` where nothing waits any more.
pub(super) async fn record(
    socket: io::Result<OwnedFd>,
    chain: ChainId,
) -> Result<Option<Vec<u8>>, String> {
    let answer = request(socket, "GET", &format!("/records/{chain}")).await?;
    match split(&answer)? {
        ("200", _, body) => Ok(Some(body.to_vec())),
        ("404", ..) => Ok(None),
        (_, line, _) => Err(format!("it answers {line:?}")),
    }
}

/// That is not needed any more.
pub(super) async fn drop_record(socket: io::Result<OwnedFd>, chain: ChainId) -> Result<(), String> {
    request(socket, "DELETE", &format!("/records/{chain}"))
        .await
        .map(|_| ())
}

async fn request(socket: io::Result<OwnedFd>, method: &str, path: &str) -> Result<Vec<u8>, String> {
    let socket = socket.map_err(|error| format!("its status socket is missing ({error})"))?;
    let answer = tokio::time::timeout(DEADLINE, exchange(&socket, method, path)).await;
    answer
        .map_err(|_| format!("no answer within {} s", DEADLINE.as_secs()))?
        .map_err(|error| error.to_string())
}

async fn exchange(socket: &OwnedFd, method: &str, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket_path(socket)).await?;
    // HTTP/1.0: the answer ends with the connection, so it has no chunks.
    let head = format!("{method} {path} HTTP/1.0\r\nHost: uimgacc\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Code, first line and body of an answer.
fn split(answer: &[u8]) -> Result<(&str, &str, &[u8]), String> {
    let end = b"\r\n\r\n";
    let head = answer.windows(end.len()).position(|window| window == end);
    let (head, body) = head
        .and_then(|at| Some((answer.get(..at)?, answer.get(at + end.len()..)?)))
        .ok_or("it does not speak HTTP")?;
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| "it does not speak HTTP")?;
    Ok((line.split(' ').nth(1).unwrap_or_default(), line, body))
}

fn parse(answer: &[u8]) -> Result<DaemonStatus, String> {
    let (code, line, body) = split(answer)?;
    if code != "200" {
        return Err(format!("it answers {line:?}"));
    }
    let answer: Result<Answer, _> = serde_json::from_slice(body);
    answer
        .map(DaemonStatus::from)
        .map_err(|error| format!("it answers nonsense: {error}"))
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
            "chains":[{{"chainId":"{}","containers":2,"start":{{"profile":true,"mountedMs":7,"fetchedBytes":4096,
            "fetchedMs":9,"firstOpenMs":8,"servingMs":5000,"listedBytes":1,"filesOpened":2,"recorded":true}}}},
            {{"chainId":"{}","containers":0,"start":{{"profile":false,"mountedMs":7,"fetchedBytes":0}}}}],
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
            start: (digit == "b").then_some(ImageStart {
                profile: true,
                mounted_ms: 7,
                first_open_ms: Some(8),
                fetched_bytes: 4096,
                fetched_ms: Some(9),
                serving_ms: Some(5000),
            }),
        });
        expected.sort_by(|a, b| a.token.cmp(&b.token));
        assert_eq!(status.chains, expected);
        assert_eq!(status.recorded, [chain("b").parse().unwrap()]);
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
