//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::context::Shared;

/// Serves until `stop` says so.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "health and metrics");
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}

/// Ready: all caches are there and no watch has been broken for long, and where this process
/// leads its workers run.
async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let problems = shared.problems();
    if problems.is_empty() {
        let role = if shared.leads() { "leader" } else { "follower" };
        return (StatusCode::OK, format!("ok: {role}\n"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}

async fn metrics(State(shared): State<Arc<Shared>>) -> String {
    shared.metrics_text()
}
