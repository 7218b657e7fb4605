//! `/healthz`, `/readyz` and `/metrics`, on an address of their own.
//!
//! Who may reach it is few, so connections are few: one too many is closed at once, and one that is
//! silent or old is ended.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::connection_limit::ConnectionLimit;
use crate::serve::accept;
use crate::service::Service;

/// Connections at once, and of one peer. A silent one costs some 10 KiB.
const CONNECTIONS: (usize, usize) = (1024, 64);
/// How long the head of a request may take, and how long a connection may be idle.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a connection may be open.
const LIFETIME: Duration = Duration::from_secs(60);

/// Serves; never ends.
pub async fn serve(listener: TcpListener, service: Arc<Service>) {
    let limit = ConnectionLimit::new(CONNECTIONS.0, CONNECTIONS.1);
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(service);
    loop {
        let (stream, peer) = accept(&listener).await;
        let Some(permit) = limit.try_acquire(peer.ip()) else {
            tracing::debug!(%peer, "too many connections of health and metrics");
            continue;
        };
        let router = router.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            router.clone().oneshot(request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SILENCE)
            .max_headers(64)
            .max_buf_size(16 << 10)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            let _permit = permit;
            let _ = timeout(LIFETIME, connection).await;
        });
    }
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
