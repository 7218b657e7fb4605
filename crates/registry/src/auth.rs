//! Logs in where a registry asks for it: Basic (RFC 7617) and Bearer tokens (distribution's token
//! specification, and its OAuth2 form for identity tokens).
//!
//! Guarantees: one lookup of credentials per registry and client; one token per registry and scope
//! until it ends or is refused. Credentials go only to the registry itself and to the token service
//! (`realm`) that its challenge names, and to that over HTTPS unless the registry
//! itself is spoken to without TLS.
//!
//! Assumption: a registry that wants a login says so with 401 and `WWW-Authenticate`; nothing is
//! sent before that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::sync::Mutex;
use uimgacc_types::ImageReference;

use crate::challenge::{self, Challenge};
use crate::credentials::{CredentialSource, Credentials};
use crate::error::{Error, Task};
use crate::http::{Http, Request, host_of, read_limited, refusal};
use crate::limits::MAX_TOKEN_BYTES;

/// Sent with OAuth2 requests; the service may log it.
const CLIENT_ID: &str = "uimgacc";
/// How long a token without `expires_in` holds (token specification).
const DEFAULT_TOKEN_SECONDS: u64 = 60;
/// Taken off the life of a token for clocks and ways.
const TOKEN_MARGIN: Duration = Duration::from_secs(5);

/// What a request may do: actions (`pull`, `push`) by resource (`repository:a/b`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub(crate) struct Scope(BTreeMap<String, BTreeSet<String>>);

impl Scope {
    pub(crate) fn pull(repository: &str) -> Self {
        Self::default().and(repository, &["pull"])
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self::default().and(repository, &["pull", "push"])
    }

    /// Adds `actions` on `repository`.
    pub(crate) fn and(mut self, repository: &str, actions: &[&str]) -> Self {
        self.add(&format!("repository:{repository}"), actions.iter().copied());
        self
    }

    fn names(&self, repository: &str) -> bool {
        self.0.contains_key(&format!("repository:{repository}"))
    }

    fn add<'a>(&mut self, resource: &str, actions: impl Iterator<Item = &'a str>) {
        let entry = self.0.entry(resource.to_owned()).or_default();
        entry.extend(actions.filter(|a| !a.is_empty()).map(str::to_owned));
    }

    /// Adds what a challenge asks for: scopes with blanks between, `type:name:action,action`.
    fn add_text(&mut self, text: &str) {
        for one in text.split_whitespace() {
            if let Some((resource, actions)) = one.rsplit_once(':') {
                self.add(resource, actions.split(','));
            }
        }
    }

    /// One text per resource.
    fn texts(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(resource, actions)| {
                let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
                format!("{resource}:{}", actions.join(","))
            })
            .collect()
    }
}

/// What is known of a registry.
#[derive(Debug, Default)]
struct Known {
    credentials: Option<Option<Credentials>>,
    basic: Option<HeaderValue>,
    tokens: HashMap<Scope, Token>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    ends: Instant,
}

/// The logins of a client.
#[derive(Debug)]
pub(crate) struct Auth {
    source: CredentialSource,
    /// Scopes that name this repository get no credentials.
    anonymous: Option<ImageReference>,
    /// By the registry's name. Held while a token is fetched, so that layers that start together
    /// ask once.
    known: Mutex<HashMap<String, Known>>,
}

impl Auth {
    pub(crate) fn new(source: CredentialSource, anonymous: Option<ImageReference>) -> Self {
        Self {
            source,
            anonymous,
            known: Mutex::default(),
        }
    }

    fn is_anonymous(&self, registry: &str, scope: &Scope) -> bool {
        self.anonymous
            .as_ref()
            .is_some_and(|image| image.registry() == registry && scope.names(image.repository()))
    }

    /// The header to begin with: none, until the registry asked once.
    pub(crate) async fn header(&self, registry: &str, scope: &Scope) -> Option<HeaderValue> {
        let known = self.known.lock().await;
        let known = known.get(registry)?;
        let token = known.tokens.get(scope);
        token
            .filter(|token| token.ends > Instant::now())
            .map(|token| token.header.clone())
            .or_else(|| {
                known
                    .basic
                    .clone()
                    .filter(|_| !self.is_anonymous(registry, scope))
            })
    }

    /// Answers a 401 of `registry` to a request that had the header `refused`. `None` when there is
    /// nothing (more) to offer.
    pub(crate) async fn answer(
        &self,
        http: &Http,
        task: &Task,
        registry: &str,
        scope: &Scope,
        headers: &HeaderMap,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Error> {
        let mut all = self.known.lock().await;
        let known = all.entry(registry.to_owned()).or_default();
        // Another request may have got a new token meanwhile.
        if let Some(token) = known.tokens.get(scope)
            && Some(&token.header) != refused
            && token.ends > Instant::now()
        {
            return Ok(Some(token.header.clone()));
        }
        known.tokens.remove(scope);
        let credentials = match &known.credentials {
            _ if self.is_anonymous(registry, scope) => None,
            Some(credentials) => credentials.clone(),
            None => {
                let found = self.source.lookup(registry).await;
                let found = found.map_err(|source| Error::Credentials {
                    registry: registry.to_owned(),
                    source,
                })?;
                known.credentials.insert(found).clone()
            }
        };
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let of = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        if let Some(bearer) = of("bearer") {
            let token =
                fetch_token(http, task, registry, scope, bearer, credentials.as_ref()).await?;
            let header = token.header.clone();
            known.tokens.insert(scope.clone(), token);
            return Ok((Some(&header) != refused).then_some(header));
        }
        if let (Some(_), Some(Credentials::Password { username, password })) =
            (of("basic"), &credentials)
        {
            let header = basic(username, password);
            known.basic.clone_from(&header);
            return Ok(header.filter(|header| Some(header) != refused));
        }
        Ok(None)
    }
}

/// `None` only where base64 made no header, which it never does.
fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let encoded = STANDARD.encode(format!("{username}:{password}"));
    let mut header = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

async fn fetch_token(
    http: &Http,
    task: &Task,
    registry: &str,
    scope: &Scope,
    challenge: &Challenge,
    credentials: Option<&Credentials>,
) -> Result<Token, Error> {
    let bad = |problem: &str| Error::BadAnswer {
        task: task.clone(),
        host: registry.to_owned(),
        problem: problem.to_owned(),
    };
    let realm = challenge
        .param("realm")
        .and_then(|realm| realm.parse::<Url>().ok())
        .filter(Url::has_host)
        .ok_or_else(|| bad("its challenge names no token service"))?;
    if realm.scheme() != "https" && !(realm.scheme() == "http" && http.scheme(registry) == "http") {
        return Err(bad("its token service is not served over HTTPS"));
    }
    let mut wanted = scope.clone();
    wanted.add_text(challenge.param("scope").unwrap_or_default());
    let service = challenge.param("service").unwrap_or_default();

    let task = Task::new(format!("log in to {registry} to {task}"));
    let request = token_request(&task, realm, service, &wanted.texts(), credentials);
    let asked = Instant::now();
    let answer = http.send(&request).await?;
    if !answer.status().is_success() {
        return Err(refusal(&task, answer).await);
    }
    let host = host_of(answer.url());
    let bad = |problem: &str| Error::BadAnswer {
        task: task.clone(),
        host,
        problem: problem.to_owned(),
    };
    let body = read_limited(&task, answer, MAX_TOKEN_BYTES).await?;
    // The cause would quote the body, which may hold a token.
    let Ok(parsed) = serde_json::from_slice::<TokenAnswer>(&body) else {
        return Err(bad("its token answer is not JSON of the right form"));
    };
    let text = [parsed.token, parsed.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty());
    let Some(text) = text else {
        return Err(bad("its token answer has no token"));
    };
    let Ok(mut header) = HeaderValue::try_from(format!("Bearer {text}")) else {
        return Err(bad("its token has characters that no header takes"));
    };
    header.set_sensitive(true);
    // Old services say less than they hold; a day at most, so that the sum cannot overflow.
    let seconds = parsed
        .expires_in
        .unwrap_or(DEFAULT_TOKEN_SECONDS)
        .clamp(DEFAULT_TOKEN_SECONDS, 86_400);
    Ok(Token {
        header,
        ends: asked + Duration::from_secs(seconds) - TOKEN_MARGIN,
    })
}

/// GET with Basic for a password or nothing, POST for an identity token.
fn token_request(
    task: &Task,
    mut realm: Url,
    service: &str,
    scopes: &[String],
    credentials: Option<&Credentials>,
) -> Request {
    if let Some(Credentials::IdentityToken(token)) = credentials {
        // Only the encoding of a query is wanted from this URL.
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service)
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", token);
        let mut request = Request::new(task, Method::POST, realm);
        request.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        request.body = Bytes::from(form.query().unwrap_or_default().to_owned());
        return request;
    }
    {
        let mut query = realm.query_pairs_mut();
        if !service.is_empty() {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
        if let Some(Credentials::Password { username, .. }) = credentials {
            query.append_pair("account", username);
        }
    }
    let mut request = Request::new(task, Method::GET, realm);
    if let Some(Credentials::Password { username, password }) = credentials {
        request.authorization = basic(username, password);
    }
    request
}

#[cfg(test)]
mod tests;
