//! One HTTP request, with redirects, deadlines and repetitions, but without login.
//!
//! Guarantees: the `Authorization` header goes to the origin (scheme, host, port) of the first URL
//! and to no other; a redirect never leads from HTTPS to HTTP; only GET and HEAD are redirected.
//! What is repeated is repeated on 408, 425, 429, 5xx and broken connections only.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, Url, redirect};

use crate::api_error;
use crate::error::{Error, Task, is_transient_status};
use crate::limits::{MAX_ERROR_BYTES, MAX_REDIRECTS};
use crate::options::{ClientOptions, RetryPolicy};
use crate::plain::{PlainHttp, is_loopback};

/// A request that can be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) task: Task,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn new(task: &Task, method: Method, url: Url) -> Self {
        Self {
            task: task.clone(),
            method,
            url,
            headers: HeaderMap::new(),
            authorization: None,
            body: Bytes::new(),
        }
    }
}

/// The connections of a client.
#[derive(Debug)]
pub(crate) struct Http {
    /// Reads, and small writes: an answer that stands still is given up.
    short: Ways,
    /// Streaming uploads, whose answer comes when all is sent: these watch themselves.
    upload: Ways,
    retry: RetryPolicy,
    plain_http: PlainHttp,
}

/// A client with the environment's proxies, and one without for this machine: a proxy elsewhere
/// would look for `localhost` at itself.
#[derive(Debug)]
struct Ways {
    proxied: reqwest::Client,
    direct: reqwest::Client,
}

impl Ways {
    fn build(builder: impl Fn() -> reqwest::ClientBuilder) -> Result<Self, Error> {
        Ok(Self {
            proxied: builder().build().map_err(Error::Setup)?,
            direct: builder().no_proxy().build().map_err(Error::Setup)?,
        })
    }

    fn to(&self, url: &Url) -> &reqwest::Client {
        if url.host_str().is_some_and(is_loopback) {
            &self.direct
        } else {
            &self.proxied
        }
    }
}

impl Http {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, Error> {
        let builder = || {
            reqwest::Client::builder()
                .user_agent(&options.user_agent)
                .connect_timeout(options.timeouts.connect)
                .redirect(redirect::Policy::none())
                .referer(false)
                .https_only(options.plain_http.is_empty())
                .tcp_keepalive(Duration::from_secs(30))
                // The default of 64 KiB holds a layer down on any long way.
                .http2_initial_stream_window_size(4 << 20)
                .http2_initial_connection_window_size(16 << 20)
        };
        Ok(Self {
            short: Ways::build(|| builder().read_timeout(options.timeouts.idle))?,
            upload: Ways::build(builder)?,
            retry: options.retry.clone(),
            plain_http: options.plain_http.clone(),
        })
    }

    /// How that registry is spoken to.
    pub(crate) fn scheme(&self, registry: &str) -> &'static str {
        if self.plain_http.allows(registry) {
            "http"
        } else {
            "https"
        }
    }

    pub(crate) const fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    /// The client for a body that is streamed to `url`.
    pub(crate) fn upload(&self, url: &Url) -> &reqwest::Client {
        self.upload.to(url)
    }

    /// Sends until there is an answer that is not worth a repetition, or no attempts are left.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, Error> {
        let mut attempt = 1;
        loop {
            let result = self.send_once(request).await;
            let wait = match &result {
                Ok(answer) if !is_transient_status(answer.status().as_u16()) => return result,
                Ok(answer) => match retry_after(answer.headers()) {
                    // A limit per hour is not waited for.
                    Some(wait) if wait > self.retry.max_retry_after => return result,
                    wait => wait,
                },
                Err(error) if !error.is_transient() => return result,
                Err(_) => None,
            };
            if attempt >= self.retry.attempts {
                return result;
            }
            let wait = wait.unwrap_or_else(|| self.retry.delay(attempt));
            match &result {
                Ok(answer) => {
                    tracing::debug!(task = %request.task, status = %answer.status(), ?wait, "trying again")
                }
                Err(error) => tracing::debug!(task = %request.task, %error, ?wait, "trying again"),
            }
            drop(result);
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Sends once, following redirects.
    pub(crate) async fn send_once(&self, request: &Request) -> Result<Response, Error> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut builder = self
                .short
                .to(&url)
                .request(request.method.clone(), url.clone())
                .headers(request.headers.clone());
            if let Some(value) = &request.authorization
                && same_origin(&url, &request.url)
            {
                builder = builder.header(AUTHORIZATION, value.clone());
            }
            // A PUT or POST without a body still has to say so.
            if !request.body.is_empty() || !is_read(&request.method) {
                builder = builder.body(request.body.clone());
            }
            let answer = builder
                .send()
                .await
                .map_err(|error| Error::of_transport(&request.task, host_of(&url), error))?;
            if !is_read(&request.method) || !is_redirect(answer.status().as_u16()) {
                return Ok(answer);
            }
            url = redirect_target(&request.task, &url, answer.headers())?;
        }
        Err(Error::BadAnswer {
            task: request.task.clone(),
            host: host_of(&request.url),
            problem: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }
}

fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

const fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// Host and port of a URL, for messages.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Where `Location` leads from `from`, unless it must not be gone to.
pub(crate) fn redirect_target(task: &Task, from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    let bad = |problem: &str| Error::BadAnswer {
        task: task.clone(),
        host: host_of(from),
        problem: problem.to_owned(),
    };
    let location = headers
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| bad("its Location header is missing"))?;
    let mut target = from
        .join(location)
        .map_err(|_| bad("its Location header is no URL"))?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(bad("it leads from HTTPS to plain HTTP")),
        _ => return Err(bad("its Location header has an unknown scheme")),
    }
    // Credentials in a URL would become an Authorization header.
    let cleared = target
        .set_username("")
        .and_then(|()| target.set_password(None));
    if cleared.is_err() || target.host_str().is_none() {
        return Err(bad("its Location header has no host"));
    }
    Ok(target)
}

/// The wait of a `Retry-After` in seconds. Its other form, a date, counts as absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// Reads a body of at most `limit_bytes`.
pub(crate) async fn read_limited(
    task: &Task,
    mut answer: Response,
    limit_bytes: u64,
) -> Result<Bytes, Error> {
    let host = host_of(answer.url());
    let too_large = |host| Error::TooLarge {
        task: task.clone(),
        host,
        limit_bytes,
    };
    if answer.content_length().is_some_and(|len| len > limit_bytes) {
        return Err(too_large(host));
    }
    let mut body = BytesMut::new();
    loop {
        match answer.chunk().await {
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(chunk)) => {
                let len = u64::try_from(body.len() + chunk.len()).unwrap_or(u64::MAX);
                if len > limit_bytes {
                    return Err(too_large(host));
                }
                body.extend_from_slice(&chunk);
            }
            Err(error) => return Err(Error::of_transport(task, host, error)),
        }
    }
}

/// Turns an answer that is a refusal into an error, with what its body says.
pub(crate) async fn refusal(task: &Task, mut answer: Response) -> Error {
    let host = host_of(answer.url());
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    let limit = usize::try_from(MAX_ERROR_BYTES).unwrap_or(usize::MAX);
    // A broken or endless body takes nothing away from the status.
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= limit {
            body.truncate(limit);
            break;
        }
    }
    Error::refused(task, host, status, api_error::parse(&body))
}

#[cfg(test)]
mod tests;
