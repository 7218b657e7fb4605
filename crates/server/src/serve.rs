//! Connections: how many there are, how long they may be silent, TLS.
//!
//! Memory is bounded by [`Limits::active`]: only so many connections have buffers. All others are a
//! socket and a small task; they wait for a place, and until their first byte has come they do
//! not even do that. Worst case: `active` times (a buffer of headers, a body, the state of TLS).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::config::Limits;
use crate::connection_limit::{ConnectionLimit, ConnectionPermit};
use crate::service::Service;

/// How long a connection may be open, so that idle clients and those that do not read their answers
/// give their place to others.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long a request that runs may take after that.
const GRACE: Duration = Duration::from_secs(15);
/// How long a connection waits for a place.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause where no socket can be accepted, such as when there are too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Descriptors that are no connections: files, clusters, what waits.
const OTHERS: u64 = 512;

/// Raises the limit of open files as far as it may be; how many connections fit then.
#[must_use]
pub fn raise_open_files() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(now.saturating_sub(OTHERS).max(64)).unwrap_or(usize::MAX)
}

/// The next connection. Where none can be accepted that is said, and tried again.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Takes connections until `stop` says so, then waits for those that are open, [`GRACE`] at most.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let active = Arc::new(ConnectionLimit::new(
        limits.active,
        limits.active_of_one_peer,
    ));
    loop {
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok(place) = connections.clone().try_acquire_owned() else {
            service.metrics.turned_away.inc();
            continue;
        };
        let connection = Connection {
            peer,
            service: service.clone(),
            silence: Duration::from_secs(u64::from(limits.seconds)),
            longest: limits.body_bytes,
            stop: stop.clone(),
        };
        let active = active.clone();
        tokio::spawn(async move {
            let _place = place;
            connection.service.metrics.connections.inc();
            connection.clone().run(stream, active).await;
            connection.service.metrics.connections.dec();
        });
    }
    drop(listener);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = timeout(GRACE, connections.acquire_many(all)).await;
}

#[derive(Debug, Clone)]
struct Connection {
    peer: SocketAddr,
    service: Arc<Service>,
    /// How long nothing may come.
    silence: Duration,
    /// Bytes of a query.
    longest: usize,
    stop: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self, stream: TcpStream, active: Arc<ConnectionLimit>) {
        let _ = stream.set_nodelay(true);
        // Who says nothing costs no buffer.
        if !matches!(timeout(self.silence, stream.readable()).await, Ok(Ok(()))) {
            return;
        }
        self.service.metrics.waiting.inc();
        let permit = timeout(PATIENCE, active.acquire(self.peer.ip())).await;
        self.service.metrics.waiting.dec();
        let Ok(Some(permit)) = permit else { return };
        // Boxed: who waits has no room for it.
        Box::pin(self.serve(stream, permit)).await;
    }

    async fn serve(self, stream: TcpStream, permit: ConnectionPermit) {
        let tls: Option<Arc<ServerConfig>> = self.service.live().tls.clone();
        match tls {
            None => self.speak(stream, permit).await,
            Some(config) => {
                let greeting = TlsAcceptor::from(config).accept(stream);
                match timeout(self.silence, greeting).await {
                    Ok(Ok(stream)) => self.speak(stream, permit).await,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, peer = %self.peer, "no TLS");
                    }
                    Err(_) => tracing::debug!(peer = %self.peer, "TLS comes too slowly"),
                }
            }
        }
    }

    async fn speak(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        _permit: ConnectionPermit,
    ) {
        let service = self.service.clone();
        let peer = self.peer.ip();
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, std::convert::Infallible>(service.answer(peer, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.silence)
            .max_headers(64)
            // The query is in the first line.
            .max_buf_size((self.longest + (8 << 10)).max(16 << 10))
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return note(ended),
            () = sleep(LIFETIME) => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = timeout(GRACE, connection).await {
            note(ended);
        }
    }
}

/// Clients that go away, or speak no HTTP, are no matter for the log.
fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
