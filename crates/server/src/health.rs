//! `/healthz`, `/readyz` and `/metrics`, on an address of their own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::service::Service;

/// Serves; never ends by itself.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, service: Arc<Service>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(service);
    axum::serve(listener, router).await
}

/// Ready: requests are taken. A cluster that does not answer does not make it unready, for the
/// others would suffer; the metric `cluster_reachable` tells of it.
async fn ready(State(service): State<Arc<Service>>) -> (StatusCode, &'static str) {
    if service.is_ending() {
        (StatusCode::SERVICE_UNAVAILABLE, "ending\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics(State(service): State<Arc<Service>>) -> String {
    service.metrics_text()
}
