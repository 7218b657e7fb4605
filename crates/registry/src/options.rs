//! How a client behaves. Pure.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use uimgacc_types::{ImageReference, backoff};

use crate::credentials::CredentialSource;
use crate::plain::PlainHttp;

/// How a client behaves. The defaults are right for registries on the internet.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Which registries are spoken to without TLS; none.
    pub plain_http: PlainHttp,
    /// Who the user is.
    pub credentials: CredentialSource,
    /// A repository that is read without credentials, though there may be some for its registry.
    pub anonymous: Option<ImageReference>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try.
    pub retry: RetryPolicy,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            plain_http: PlainHttp::default(),
            credentials: CredentialSource::default(),
            anonymous: None,
            user_agent: concat!("uimgacc/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
        }
    }
}

/// How long a registry may do nothing.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// Until a connection stands, TLS included; 10 s.
    pub connect: Duration,
    /// Until the next bytes; 60 s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// How failed requests are repeated: with doubled and partly random waits between.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// How often a request is sent in all; 5.
    pub attempts: u32,
    /// The first wait; 250 ms.
    pub base_delay: Duration,
    /// The longest wait of our own; 10 s.
    pub max_delay: Duration,
    /// The longest `Retry-After` that is waited for; where the registry wants more, its refusal is
    /// the result; 60 s.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            base_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// How long to wait after the `attempt`th failure (from 1): doubled each time, half of it random.
    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        let full = backoff(self.base_delay, attempt, self.max_delay);
        // Each RandomState has new keys, which is randomness enough to spread clients.
        let random = RandomState::new().hash_one(attempt) % 1024;
        let share = u32::try_from(random).unwrap_or(0);
        full / 2 + full / 2 * share / 1024
    }
}
