//! What the snapshotter says of itself: `GET /status` on its status socket; and what first starts read:
//! `/records`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use uimgacc_objects::{HeldChain, ImageStart};
use uimgacc_types::{ChainId, ChainToken, with_causes};

use super::host::socket_path;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// Longer answers are not ours: that is room for 100,000 chains.
const MAX_ANSWER: usize = 16 << 20;

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
    let answer = request(socket, Method::GET, "/status").await?;
    parse(&answer)
}

/// What the first start of the chain read, encoded; `None` where nothing waits any more.
pub(super) async fn record(
    socket: io::Result<OwnedFd>,
    chain: ChainId,
) -> Result<Option<Vec<u8>>, String> {
    let (status, body) = request(socket, Method::GET, &format!("/records/{chain}")).await?;
    match status {
        StatusCode::OK => Ok(Some(body.to_vec())),
        StatusCode::NOT_FOUND => Ok(None),
        other => Err(format!("it answers {other}")),
    }
}

/// That is not needed any more.
pub(super) async fn drop_record(socket: io::Result<OwnedFd>, chain: ChainId) -> Result<(), String> {
    request(socket, Method::DELETE, &format!("/records/{chain}"))
        .await
        .map(|_| ())
}

async fn request(
    socket: io::Result<OwnedFd>,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Bytes), String> {
    let socket = socket.map_err(|error| format!("its status socket is missing ({error})"))?;
    let answer = async {
        let stream = UnixStream::connect(socket_path(&socket)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let answer = exchange(stream, method, path).await;
        answer.map_err(|error| with_causes(&*error))
    };
    tokio::time::timeout(DEADLINE, answer)
        .await
        .map_err(|_| format!("no answer within {} s", DEADLINE.as_secs()))?
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Bytes), BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "uimgacc")
        .body(Empty::<Bytes>::new())?;
    // It ends with the sender.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await?;
    Ok((status, body.to_bytes()))
}

fn parse((status, body): &(StatusCode, Bytes)) -> Result<DaemonStatus, String> {
    if *status != StatusCode::OK {
        return Err(format!("it answers {status}"));
    }
    let answer: Result<Answer, _> = serde_json::from_slice(body);
    answer
        .map(DaemonStatus::from)
        .map_err(|error| format!("it answers nonsense: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What an answer of these bytes comes to.
    async fn answered(bytes: &str) -> Result<DaemonStatus, String> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes.as_bytes()).await.unwrap();
        theirs.shutdown().await.unwrap();
        let answer = exchange(ours, Method::GET, "/status").await;
        parse(&answer.map_err(|error| with_causes(&*error))?)
    }

    #[tokio::test]
    async fn answers() {
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
        let length = body.len();
        let good = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        let status = answered(&good).await.unwrap();
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
            ("", "connection closed"),
            ("no HTTP\r\n\r\n", "HTTP"),
            ("HTTP/1.1 500 No\r\n\r\n{}", "500 Internal"),
            ("HTTP/1.1 200 OK\r\n\r\n{}", "nonsense"),
        ] {
            let error = answered(bad).await.unwrap_err();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
    }
}
