//! The client: requests with login.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use uimgacc_types::{Digest, ImageReference};

use crate::auth::{Auth, Scope};
use crate::error::{Error, Task};
use crate::http::{Http, Request, host_of, read_limited, refusal, same_origin};
use crate::limits::MAX_MANIFEST_BYTES;
use crate::manifest::{self, ACCEPTED_MANIFESTS};
use crate::options::ClientOptions;

/// A manifest or index whose bytes were checked against every digest known of it.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// Of a manifest or an index, see [`crate::MediaType`].
    pub media_type: String,
    /// SHA-256 of `bytes`.
    pub digest: Digest,
    /// Exactly as the registry sent them.
    pub bytes: Bytes,
}

/// A client of OCI registries. Clones share connections, logins and tokens.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: Http,
    auth: Auth,
    idle: Duration,
}

/// A request on a repository, before login.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) image: &'a ImageReference,
    pub(crate) task: &'a Task,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) scope: &'a Scope,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether sending it twice is harmless.
    pub(crate) repeat: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        image: &'a ImageReference,
        task: &'a Task,
        method: Method,
        url: Url,
        scope: &'a Scope,
    ) -> Self {
        Self {
            image,
            task,
            method,
            url,
            scope,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            repeat: true,
        }
    }
}

impl Client {
    /// A client; nothing is connected yet.
    ///
    /// TLS trusts the system's certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`;
    /// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured, but never for this machine itself.
    pub fn new(options: ClientOptions) -> Result<Self, Error> {
        Ok(Self {
            inner: Arc::new(Inner {
                http: Http::new(&options)?,
                auth: Auth::new(options.credentials, options.anonymous),
                idle: options.timeouts.idle,
            }),
        })
    }

    pub(crate) fn http(&self) -> &Http {
        &self.inner.http
    }

    pub(crate) fn idle(&self) -> Duration {
        self.inner.idle
    }

    /// The URL `/v2/<repository>/<rest>` of the registry of `image`.
    pub(crate) fn url(
        &self,
        image: &ImageReference,
        task: &Task,
        rest: &str,
    ) -> Result<Url, Error> {
        let host = image.registry_host();
        let scheme = self.http().scheme(image.registry());
        let repository = image.repository();
        format!("{scheme}://{host}/v2/{repository}/{rest}")
            .parse()
            .map_err(|_| Error::Host {
                task: task.clone(),
                registry: image.registry().to_owned(),
            })
    }

    /// Sends with login; the answer has a status that is success or one of `expected`.
    pub(crate) async fn call(&self, call: Call<'_>, expected: &[u16]) -> Result<Response, Error> {
        let registry = call.image.registry();
        let mut request = Request::new(call.task, call.method, call.url);
        request.headers = call.headers;
        request.body = call.body;
        if self.is_home(call.image, call.task, &request.url)? {
            request.authorization = self.inner.auth.header(registry, call.scope).await;
        }
        let mut asked_again = false;
        loop {
            let answer = if call.repeat {
                self.http().send(&request).await?
            } else {
                self.http().send_once(&request).await?
            };
            let status = answer.status();
            if status.is_success() || expected.contains(&status.as_u16()) {
                return Ok(answer);
            }
            // Only the registry itself is logged in to, not where it redirects.
            let may_log_in = status == StatusCode::UNAUTHORIZED
                && !asked_again
                && same_origin(answer.url(), &request.url)
                && self.is_home(call.image, call.task, &request.url)?;
            if may_log_in {
                asked_again = true;
                let header = self
                    .inner
                    .auth
                    .answer(
                        self.http(),
                        call.task,
                        registry,
                        call.scope,
                        answer.headers(),
                        request.authorization.as_ref(),
                    )
                    .await?;
                if header.is_some() {
                    request.authorization = header;
                    continue;
                }
            }
            return Err(refusal(call.task, answer).await);
        }
    }

    /// The header for a request that cannot be sent twice, where `url` lies on the registry.
    pub(crate) async fn authorization(
        &self,
        image: &ImageReference,
        task: &Task,
        url: &Url,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>, Error> {
        if !self.is_home(image, task, url)? {
            return Ok(None);
        }
        Ok(self.inner.auth.header(image.registry(), scope).await)
    }

    /// Whether `url` lies on the registry of `image`: uploads may lead elsewhere.
    fn is_home(&self, image: &ImageReference, task: &Task, url: &Url) -> Result<bool, Error> {
        Ok(same_origin(&self.url(image, task, "")?, url))
    }

    /// Fetches the manifest or index that `image` names, by its digest where it has one.
    ///
    /// Checked: size, the reference's digest, the `Docker-Content-Digest` header, and that it is an
    /// image or an index of images.
    pub async fn pull_manifest(&self, image: &ImageReference) -> Result<FetchedManifest, Error> {
        let task = Task::new(format!("pull the manifest of {image}"));
        let scope = Scope::pull(image.repository());
        let url = self.url(image, &task, &format!("manifests/{}", manifest_name(image)))?;
        let mut call = Call::new(image, &task, Method::GET, url, &scope);
        call.headers
            .insert(ACCEPT, HeaderValue::from_static(ACCEPTED_MANIFESTS));
        let answer = self.call(call, &[]).await?;

        let text_of = |name: &str| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let content_type = text_of(CONTENT_TYPE.as_str());
        let announced = announced_digest(&answer, &task)?;
        let bytes = read_limited(&task, answer, MAX_MANIFEST_BYTES).await?;
        let digest = Digest::of(&bytes);
        for expected in [image.digest(), announced].into_iter().flatten() {
            check_digest(&task, expected, digest)?;
        }
        let media_type =
            manifest::media_type_of(content_type.as_deref(), &bytes).map_err(|source| {
                Error::Manifest {
                    image: image.to_string(),
                    source,
                }
            })?;
        Ok(FetchedManifest {
            media_type,
            digest,
            bytes,
        })
    }
}

/// What stands for `image` in the path of its manifest.
pub(crate) fn manifest_name(image: &ImageReference) -> String {
    match (image.digest(), image.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

/// The `Docker-Content-Digest` header, where it is of SHA-256.
pub(crate) fn announced_digest(answer: &Response, task: &Task) -> Result<Option<Digest>, Error> {
    let value = answer.headers().get("docker-content-digest");
    let Some(text) = value.and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    if !text.starts_with("sha256:") {
        return Ok(None);
    }
    let digest = text.parse().map_err(|_| Error::BadAnswer {
        task: task.clone(),
        host: host_of(answer.url()),
        problem: "its Docker-Content-Digest header is no digest".to_owned(),
    })?;
    Ok(Some(digest))
}

pub(crate) fn check_digest(task: &Task, expected: Digest, found: Digest) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Digest {
        task: task.clone(),
        expected,
        found,
    })
}
