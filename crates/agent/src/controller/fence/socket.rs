//! The fenced client, and the fence at its sockets.
//!
//! What was written to a socket is not sent yet: while the network is cut the kernel keeps it and
//! tries again, for a quarter of an hour, whether the process runs or not. So the kernel is told
//! to give up after a part of the time between our deadline and the earliest moment at which
//! another may lead (`TCP_USER_TIMEOUT`, tcp(7)), and a connection that ends because the lease is
//! lost is reset, which throws away what was not sent (`SO_LINGER` of zero, socket(7)). The
//! kernel's clock for this stands still while the machine sleeps.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, Client, ClientBuilder, ConfigExt as _};
use kube::config::Config;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tower::retry::RetryLayer;
use tower::{BoxError, Service, ServiceBuilder};

use super::{Deposed, Fence};

impl Fence {
    /// A client that is fenced: its requests, its connections and its sockets. What the other end
    /// has not acknowledged within `patience` (at least half a second, see [`self`]) is never sent
    /// again.
    ///
    /// The process must have a default provider of TLS; making any other client sees to it.
    ///
    /// # Errors
    /// The configuration is wrong, or asks for a proxy: what lies in one cannot be called back.
    pub fn client(&self, config: Config, patience: Duration) -> kube::Result<Client> {
        if let Some(proxy_url) = config.proxy_url {
            let proxy_url = Box::new(proxy_url);
            return Err(kube::Error::ProxyProtocolUnsupported { proxy_url });
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let fenced = Connector {
            inner: http,
            fence: self.clone(),
            patience,
        };
        let tls = config.rustls_https_connector_with_connector(fenced)?;
        let mut connector = TimeoutConnector::new(tls);
        connector.set_connect_timeout(config.connect_timeout);
        connector.set_read_timeout(config.read_timeout);
        connector.set_write_timeout(config.write_timeout);
        let client: legacy::Client<_, Body> = legacy::Builder::new(self.clone()).build(connector);
        let retries = config
            .default_retry
            .then(|| RetryLayer::new(RetryPolicy::server_retry()));
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(retries)
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .map_err(BoxError::from)
            .service(client);
        let builder = ClientBuilder::new(service, config.default_namespace);
        Ok(builder.with_layer(self).build())
    }
}

/// Makes sockets that look at the fence.
#[derive(Debug, Clone)]
struct Connector {
    inner: HttpConnector,
    fence: Fence,
    patience: Duration,
}

impl Service<Uri> for Connector {
    type Response = Socket;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Socket, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let fence = self.fence.clone();
        let patience = u32::try_from(self.patience.as_millis()).unwrap_or(u32::MAX);
        Box::pin(async move {
            let stream = connecting.await?;
            sockopt::set_tcp_user_timeout(stream.inner(), patience.max(1))?;
            Ok(Socket { stream, fence })
        })
    }
}

/// A TCP connection to which nothing is written unless the lease is held.
#[derive(Debug)]
struct Socket {
    stream: TokioIo<TcpStream>,
    fence: Fence,
}

impl Socket {
    fn check(&self) -> io::Result<()> {
        if self.fence.holds() {
            return Ok(());
        }
        Err(io::Error::other(Deposed))
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.fence.holds()
            && let Err(error) = self.stream.inner().set_zero_linger()
        {
            tracing::warn!(%error, "a connection could not be reset");
        }
    }
}

#[cfg(test)]
mod tests;
