//! Reads one request, has it done, and writes its answer and its line of the audit log.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use parking_lot::{Mutex, RwLock};
use tokio::time::timeout;
use uimgacc_api::action::Verb;
use uimgacc_api::exact::{HEADER, Sent, Stamp};
use uimgacc_api::{Action, Parameters, Refusal};

use crate::access::{Exact, Granted};
use crate::audit::{Entry, Log};
use crate::connection_limit::network;
use crate::live::Live;
use crate::metrics::{Answer, Asked, Metrics};
use crate::nonces::Nonces;
use crate::perform::{json, perform};
use crate::token_bucket::{Rates, Strangers};

/// The header that tells clients the ID of their request.
const REQUEST_ID: &str = "x-ucloud-request-uuid";
/// Most characters of an error that are logged.
const LONGEST: usize = 300;

/// The service; one for the whole process.
#[derive(Debug)]
pub struct Service {
    live: RwLock<Arc<Live>>,
    rates: Mutex<Rates>,
    strangers: Mutex<Strangers>,
    nonces: Mutex<Nonces>,
    audit: Log,
    /// What is measured.
    pub metrics: Metrics,
    is_ending: AtomicBool,
}

/// A request as far as it was understood.
struct Heard {
    parameters: Result<Parameters, Refusal>,
    as_sent: AsSent,
    /// Nothing more can be read from this connection.
    is_last: bool,
}

/// What the second signature is over.
#[derive(Debug, Default)]
struct AsSent {
    method: Method,
    query: String,
    content_type: String,
    body: Bytes,
    /// Where there is a header: what it says, if it can be read.
    stamp: Option<Option<Stamp>>,
}

impl AsSent {
    fn exact(&self) -> Option<Exact<'_>> {
        Some(Exact {
            stamp: self.stamp?,
            sent: Sent {
                method: self.method.as_str(),
                query: &self.query,
                content_type: &self.content_type,
                body: &self.body,
            },
        })
    }
}

impl Service {
    /// With that configuration.
    #[must_use]
    pub fn new(live: Live, audit: Log) -> Self {
        Self {
            rates: Mutex::new(Rates::new(live.config.limits.requests_per_second)),
            strangers: Mutex::new(Strangers::new(
                live.config.limits.wrong_signatures_per_second,
            )),
            nonces: Mutex::default(),
            live: RwLock::new(Arc::new(live)),
            audit,
            metrics: Metrics::default(),
            is_ending: AtomicBool::new(false),
        }
    }

    /// What it works with just now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live.read().clone()
    }

    /// Works with that from the next request on.
    pub fn replace(&self, live: Live) {
        let rates = Rates::new(live.config.limits.requests_per_second);
        let strangers = Strangers::new(live.config.limits.wrong_signatures_per_second);
        *self.rates.lock() = rates;
        *self.strangers.lock() = strangers;
        *self.live.write() = Arc::new(live);
    }

    /// No more requests should be sent here.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Whether it ends.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Prometheus' text.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        self.metrics.text(&self.live().clusters)
    }

    /// Answers a request.
    pub async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let began = Instant::now();
        let id = uuid::Uuid::new_v4().to_string();
        if let Some(response) = elsewhere(&request) {
            return response;
        }
        let live = self.live();
        let within = Duration::from_secs(u64::from(live.config.limits.seconds));
        let asked = read(request, live.config.limits.body_bytes, within).await;
        let mut entry = Entry {
            request: id.clone(),
            peer: Some(peer),
            ..Entry::default()
        };
        let parameters = asked.parameters;
        let named = parameters.as_ref().ok().and_then(|all| all.get("Action"));
        let named: String = named.unwrap_or_default().chars().take(64).collect();
        let as_sent = asked.as_sent;
        let granted =
            parameters.and_then(|parameters| self.grant(&live, &parameters, &as_sent, &mut entry));
        drop(as_sent);
        // The parameters are gone by now: a cluster may take its time.
        let done = match granted {
            Ok(granted) => {
                let rest = within.saturating_sub(began.elapsed());
                act(&live, granted, rest).await
            }
            Err(refusal) => Err(refusal),
        };
        // Strangers, and everybody while others wait, give their place to the next.
        let is_last = asked.is_last || !entry.is_verified || self.metrics.waiting.get() > 0;
        let body = match done {
            Ok(body) => body,
            Err(refusal) => {
                entry.code = refusal.code();
                entry.message = Some(refusal.to_string().chars().take(LONGEST).collect());
                json(&refusal.answer(&named))
            }
        };
        self.account(entry, began);
        let mut response = Response::new(Full::new(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        if is_last || self.is_ending() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn grant(
        &self,
        live: &Live,
        parameters: &Parameters,
        as_sent: &AsSent,
        entry: &mut Entry,
    ) -> Result<Granted, Refusal> {
        if let Ok(verb) = Verb::of(parameters) {
            entry.action = verb.name();
        }
        let public_key = parameters.get("PublicKey").unwrap_or_default();
        if live.access.keys.contains_key(public_key) {
            entry.public_key = Some(public_key.to_owned());
        }
        let signer = match live.access.authenticate(parameters, as_sent.exact()) {
            Ok(signer) => signer,
            Err(refusal) => return Err(self.refuse_stranger(refusal, entry)),
        };
        entry.is_verified = true;
        let cut = |key: &str| {
            parameters
                .get(key)
                .map(|text| text.chars().take(64).collect())
        };
        (entry.project, entry.cluster) = (cut("ProjectId"), cut("ClusterId"));
        let is_taken = self.rates.lock().take(signer.public_key, Instant::now());
        if !is_taken {
            return Err(Refusal::Throttled);
        }
        if let Some(stamp) = &signer.stamp {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.map_or(0, |now| now.as_secs());
            self.nonces.lock().take(signer.public_key, stamp, now)?;
        }
        let granted = live.access.grant(signer, parameters)?;
        entry.images = images(&granted.action);
        Ok(granted)
    }

    /// What a peer without a valid signature is answered. A valid one is never refused for what others send from the
    /// same address, which may be that of a proxy.
    fn refuse_stranger(&self, refusal: Refusal, entry: &Entry) -> Refusal {
        let is_answered = entry
            .peer
            .is_none_or(|peer| self.strangers.lock().take(network(peer), Instant::now()));
        match is_answered {
            true => refusal,
            false => Refusal::Throttled,
        }
    }

    fn account(&self, mut entry: Entry, began: Instant) {
        let took = began.elapsed();
        let (action, code) = (entry.action, u32::from(entry.code));
        self.metrics
            .requests
            .get_or_create(&Answer { action, code })
            .inc();
        self.metrics
            .seconds
            .get_or_create(&Asked { action })
            .observe(took.as_secs_f64());
        // Whoever has no key cannot fill the log.
        if !entry.is_verified && entry.code == Refusal::Throttled.code() {
            self.metrics.strangers_throttled.inc();
            return;
        }
        entry.micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let now = time::OffsetDateTime::now_utc();
        entry.time = now
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap_or_default();
        if !self.audit.write(&entry) {
            self.metrics.audit_dropped.inc();
        }
    }
}

async fn act(live: &Live, granted: Granted, within: Duration) -> Result<Bytes, Refusal> {
    let cluster = live.clusters.get(&granted.cluster);
    let cluster = cluster.ok_or_else(|| Refusal::NotAvailable("ClusterId".to_owned()))?;
    perform(cluster, granted.action, within).await
}

/// What is no request of the API at all.
fn elsewhere(request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let (status, text) = if request.uri().path() != "/" {
        (StatusCode::NOT_FOUND, "the API is at /\n")
    } else if !matches!(*request.method(), Method::GET | Method::POST) {
        (StatusCode::METHOD_NOT_ALLOWED, "send GET or POST\n")
    } else {
        return None;
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    Some(response)
}

/// Reads a request whole; its query and its body are no longer than `limit` each.
async fn read(request: Request<Incoming>, limit: usize, within: Duration) -> Heard {
    let refused = |what: &str| Heard {
        parameters: Err(Refusal::NotAvailable(what.to_owned())),
        as_sent: AsSent::default(),
        is_last: true,
    };
    let (parts, body) = request.into_parts();
    let query = parts.uri.query();
    if query.is_some_and(|query| query.len() > limit) {
        return refused("the query is too long");
    }
    let body = match timeout(within, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return refused("the body is too long");
        }
        Ok(Err(_)) => return refused("the body does not come"),
        Err(_) => return refused("the body comes too slowly"),
    };
    let kind = parts.headers.get(CONTENT_TYPE);
    let kind = kind.map(|kind| kind.to_str().unwrap_or("not text"));
    let parameters = Parameters::of_request(query, kind, &body).map_err(Refusal::from);
    let mut headers = parts.headers.get_all(HEADER).iter();
    let stamp = headers.next().map(|header| {
        let text = header.to_str().ok()?;
        // Two of them could mean two things.
        headers.next().is_none().then(|| Stamp::parse(text))?
    });
    Heard {
        as_sent: AsSent {
            query: query.unwrap_or_default().to_owned(),
            content_type: kind.unwrap_or_default().to_owned(),
            method: parts.method,
            stamp,
            body,
        },
        parameters,
        is_last: false,
    }
}

fn images(action: &Action) -> Vec<String> {
    match action {
        Action::Create { original, target } => vec![original.to_string(), target.to_string()],
        Action::Delete { image } => vec![image.to_string()],
        Action::Enable { .. } | Action::Get | Action::Disable => Vec::new(),
    }
}
