//! What the node says of itself, by HTTP over a socket beside containerd's: `GET /status` (JSON),
//! `GET /healthz` and `GET /metrics`. What a first start read is taken by `GET /records/<chain>`
//! (a [`uimgacc_profile::Record`], encoded) and then forgotten by `DELETE`.
//!
//! Guarantees: answers come from memory; nothing here waits for the store or for a mount. The form of
//! `/status` is fixed: the agent in the cluster reads it.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, serve as serve_http};
use serde::Serialize;
use tokio::net::UnixListener;

use crate::node::Node;
use crate::starts::StartReport;

/// The socket's name beside containerd's.
pub(crate) const NAME: &str = "status.sock";

/// The answer of `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// Of this program.
    pub version: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// How images are mounted; `None` where they cannot be (or where it is not known yet).
    pub mount_method: Option<&'static str>,
    /// The store.
    pub store: StoreStatus,
    /// The chains of the store that are on this node.
    pub chains: Vec<ChainStatus>,
}

/// The store in [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoreStatus {
    /// Where it is.
    pub source: String,
    /// Whether it answered when it was last looked at.
    pub reachable: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// Its id, once it was seen.
    pub store_id: Option<String>,
}

/// A chain in [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChainStatus {
    /// `sha256:...`.
    pub chain_id: String,
    /// Active snapshots and views that lie on it.
    pub containers: u32,
    /// How it was started, where this process did it.
    pub start: Option<StartReport>,
}

/// Where the status is where nobody says so: beside containerd's socket.
#[must_use]
pub(crate) fn default_address(address: &std::path::Path) -> PathBuf {
    address.with_file_name(NAME)
}

impl Status {
    /// The node as it is now.
    #[must_use]
    pub(crate) fn of(node: &Node) -> Self {
        let health = node.store().health();
        let chains = node.chains_in_use().into_iter();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            mount_method: node.mount_method().map(uimgacc_mount::Method::name),
            store: StoreStatus {
                source: node.store().source().to_string(),
                reachable: health.reachable,
                error: health.error,
                store_id: health.store_id,
            },
            chains: chains
                .map(|(chain, containers)| ChainStatus {
                    chain_id: chain.to_string(),
                    containers,
                    start: node.starts().report(chain),
                })
                .collect(),
        }
    }
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match node.metrics_text() {
        Ok(text) => ([(header::CONTENT_TYPE, TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn record(State(node): State<Arc<Node>>, Path(chain): Path<String>) -> Response {
    let record = chain
        .parse()
        .ok()
        .and_then(|chain| node.starts().recorded(chain));
    record.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        IntoResponse::into_response,
    )
}

async fn drop_record(State(node): State<Arc<Node>>, Path(chain): Path<String>) -> StatusCode {
    match chain.parse() {
        Ok(chain) if node.starts().drop_record(chain) => StatusCode::NO_CONTENT,
        _ => StatusCode::NOT_FOUND,
    }
}

/// Answers on `listener`, for ever.
///
/// # Errors
/// The system's error.
pub(crate) async fn serve(listener: UnixListener, node: Arc<Node>) -> std::io::Result<()> {
    let status = async |State(node): State<Arc<Node>>| Json(Status::of(&node));
    let routes = Router::new()
        .route("/status", get(status))
        .route("/healthz", get("ok\n"))
        .route("/metrics", get(metrics))
        .route("/records/{chain}", get(record).delete(drop_record))
        .with_state(node);
    serve_http(listener, routes).await
}
