//! The fence: nothing is written unless this process surely holds the lease.
//!
//! **Guarantees.** Every request of a fenced client that changes something is refused before it
//! is sent where the lease may have passed to another, and one that is under way is dropped at
//! that moment. The time is that of `CLOCK_BOOTTIME`, which goes on while the process is stopped
//! and while the machine sleeps, and jumps with no clock of the day.
//!
//! A request passes from the task that makes it to the task of its connection and from there to
//! the socket, and may wait at each step: for a thread, or because the process is stopped. So all
//! three look at the fence: [`Fence`] as a layer for the requests, as the executor of the client
//! for its connections, which end where the lease is lost, and below TLS in front of each `write`
//! ([`socket`]). What the kernel has taken it does not send later either: see there.
//!
//! **What remains.** A thread that is stopped in the few instructions between the last look and
//! the kernel sends that one request when it goes on; a machine that sleeps may send what its kernel
//! still had; and what has arrived waits for the API server, or for a load balancer in front of it.
//! So what must not come late names what it was decided on: statuses, finalizers, the turns of nodes
//! and the deletions of their objects carry the version, as does the installer once it is there: the
//! API server refuses them when another has written since. Deletions of Jobs and of the installer
//! carry the uid. A Job is made by its name and names the image's uid: one that comes late does
//! nothing to another image, and the new leader deletes it. The first installer carries nothing, nor
//! do events; the new leader sets the former right.

mod socket;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request};
use kube::client::Body;
use tokio::sync::Notify;
use tower::{BoxError, Layer, Service};

/// A point in time of `CLOCK_BOOTTIME`, as the time since the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// The moment that is `later`.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }

    /// How long it is from `earlier` until this; zero where it was before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Now.
#[must_use]
pub fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Moment(Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    ))
}

/// A write was refused because the lease is not held any more.
#[derive(Debug, thiserror::Error)]
#[error("this process no longer leads, so it writes nothing")]
pub struct Deposed;

/// Until when this process may write; shared by all that write.
#[derive(Clone, Default)]
pub struct Fence {
    // Nanoseconds since the boot; 0 is never.
    until: Arc<AtomicU64>,
    closed: Arc<Notify>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    writes: AtomicU64,
    refused: AtomicU64,
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence")
            .field("holds", &self.holds())
            .finish()
    }
}

impl Fence {
    /// Lets writes through until that moment.
    pub fn open_until(&self, until: Moment) {
        let nanos = u64::try_from(until.0.as_nanos()).unwrap_or(u64::MAX);
        self.until.store(nanos, Ordering::SeqCst);
    }

    /// Refuses all writes from now on.
    pub fn close(&self) {
        self.until.store(0, Ordering::SeqCst);
        self.closed.notify_waiters();
    }

    /// Waits until no writes go through any more.
    pub async fn lost(&self) {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            closed.as_mut().enable();
            let until = Moment(Duration::from_nanos(self.until.load(Ordering::SeqCst)));
            let left = until.since(now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // Also where it opens again at once: that is another term.
                () = closed => return,
            }
        }
    }

    /// Whether writes go through now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holds_at(now())
    }

    /// Whether writes go through at that moment.
    #[must_use]
    pub fn holds_at(&self, moment: Moment) -> bool {
        moment.0.as_nanos() < u128::from(self.until.load(Ordering::SeqCst))
    }

    /// How many writes were let through, and how many were refused or dropped.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (
            self.counts.writes.load(Ordering::Relaxed),
            self.counts.refused.load(Ordering::Relaxed),
        )
    }

    fn refuse(&self) -> BoxError {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        Box::new(Deposed)
    }
}

/// Whether an error of a fenced client means that the lease is lost.
#[must_use]
pub fn is_deposed(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(cause) if cause.is::<Deposed>())
}

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

impl hyper::rt::Executor<Connection> for Fence {
    fn execute(&self, connection: Connection) {
        let fence = self.clone();
        tokio::spawn(async move {
            // Its timer may be late, after a sleep of the machine; the socket looks for itself.
            tokio::select! {
                biased;
                () = fence.lost() => {}
                () = connection => {}
            }
        });
    }
}

impl<S> Layer<S> for Fence {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced {
            inner,
            fence: self.clone(),
        }
    }
}

/// A client's service behind the fence.
#[derive(Debug, Clone)]
pub struct Fenced<S> {
    inner: S,
    fence: Fence,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl<S> Service<Request<Body>> for Fenced<S>
where
    S: Service<Request<Body>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let writes = ![Method::GET, Method::HEAD].contains(request.method());
        if !writes {
            let answer = self.inner.call(request);
            return Box::pin(async move { answer.await.map_err(Into::into) });
        }
        if !self.fence.holds() {
            let refused = self.fence.refuse();
            return Box::pin(async move { Err(refused) });
        }
        let fence = self.fence.clone();
        let mut answer = Box::pin(self.inner.call(request));
        let mut counted = false;
        Box::pin(std::future::poll_fn(move |context| {
            // Each step towards the socket is taken only while the lease is held.
            if !fence.holds() {
                return Poll::Ready(Err(fence.refuse()));
            }
            if !counted {
                counted = true;
                fence.counts.writes.fetch_add(1, Ordering::Relaxed);
            }
            answer.as_mut().poll(context).map_err(Into::into)
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use http::Response;

    use super::*;

    fn request(method: Method) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        request
    }

    #[tokio::test]
    async fn only_the_holder_writes() {
        let fence = Fence::default();
        let service = tower::util::service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let service = tower::util::BoxCloneService::new(service);
        let mut fenced = fence.layer(service);

        assert!(fenced.call(request(Method::GET)).await.is_ok());
        let error = fenced.call(request(Method::PATCH)).await.unwrap_err();
        assert!(error.is::<Deposed>());

        fence.open_until(now().plus(Duration::from_secs(60)));
        assert!(fenced.call(request(Method::PATCH)).await.is_ok());
        fence.close();
        assert!(fenced.call(request(Method::DELETE)).await.is_err());
        assert_eq!(fence.counts(), (1, 2));
    }

    #[tokio::test]
    async fn a_write_under_way_is_dropped_when_the_lease_is_lost() {
        let fence = Fence::default();
        fence.open_until(now().plus(Duration::from_secs(60)));
        let service = tower::util::service_fn(async |_: Request<Body>| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let mut fenced = fence.layer(tower::util::BoxCloneService::new(service));
        let write = tokio::spawn(fenced.call(request(Method::POST)));
        tokio::time::sleep(Duration::from_millis(10)).await;
        fence.close();
        assert!(write.await.unwrap().unwrap_err().is::<Deposed>());
    }

    #[tokio::test]
    async fn a_connection_ends_where_the_lease_is_lost() {
        use hyper::rt::Executor;

        let fence = Fence::default();
        fence.open_until(now().plus(Duration::from_secs(60)));
        let (send, mut queue) = tokio::sync::mpsc::channel::<u32>(2);
        let (written, mut socket) = tokio::sync::mpsc::channel(2);
        fence.execute(Box::pin(async move {
            while let Some(request) = queue.recv().await {
                written.send(request).await.unwrap();
            }
        }));
        send.send(1).await.unwrap();
        assert_eq!(socket.recv().await, Some(1));
        // The test has one thread: the connection's task cannot run before the fence is shut.
        send.try_send(2).unwrap();
        fence.close();
        assert_eq!(socket.recv().await, None);
    }

    #[test]
    fn it_holds_until_the_moment_and_not_at_it() {
        let fence = Fence::default();
        let moment = Moment(Duration::from_secs(10));
        assert!(!fence.holds_at(Moment::default()));
        fence.open_until(moment);
        assert!(fence.holds_at(Moment(Duration::from_nanos(9_999_999_999))));
        assert!(!fence.holds_at(moment));
    }
}
