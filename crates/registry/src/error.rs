//! What can go wrong with a registry; what to do about it is an [`Advice`].
//!
//! Guarantees: no message holds a credential, a token or the query of a URL (redirects carry signed
//! ones). The cause is the `source` alone, never repeated in the message.

use std::fmt;

use uimgacc_types::{Digest, with_causes};

use crate::advice::{self, Advice};
use crate::api_error::ApiError;
use crate::manifest::ManifestError;
use crate::{CredentialError, Platform};

/// What was being done, and on which image: `pull the manifest of docker.io/library/alpine:latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task(String);

impl Task {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A failure of the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// The HTTP client cannot be made, mostly because the system's certificates cannot be read.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),

    /// The registry's name makes no URL.
    #[error("cannot {task}: {registry:?} is no host")]
    Host {
        /// What was being done.
        task: Task,
        /// The name.
        registry: String,
    },

    /// No connection, also after repetitions.
    #[error("cannot {task}: no connection to {host}")]
    Connect {
        /// What was being done.
        task: Task,
        /// Whom it was asked of.
        host: String,
        /// What to do.
        advice: Option<Advice>,
        /// What the system says.
        #[source]
        source: reqwest::Error,
    },

    /// The connection broke or stood still, also after repetitions.
    #[error("cannot {task}: the connection to {host} broke")]
    Interrupted {
        /// What was being done.
        task: Task,
        /// Whom it was asked of.
        host: String,
        /// What the system says.
        #[source]
        source: reqwest::Error,
    },

    /// Nothing moved for longer than [`crate::Timeouts::idle`].
    #[error("cannot {task}: {host} took no data for {seconds} s")]
    Stalled {
        /// What was being done.
        task: Task,
        /// Whom it was sent to.
        host: String,
        /// How long.
        seconds: u64,
    },

    /// The registry or its token service said no.
    #[error("cannot {task}: {host} answered {status}{}", said(.errors))]
    Refused {
        /// What was being done.
        task: Task,
        /// Who answered.
        host: String,
        /// HTTP status.
        status: u16,
        /// The server's own words.
        errors: Vec<ApiError>,
        /// What to do.
        advice: Option<Advice>,
    },

    /// The answer breaks the protocol.
    #[error("cannot {task}: {host} gave a bad answer, {problem}")]
    BadAnswer {
        /// What was being done.
        task: Task,
        /// Who answered.
        host: String,
        /// In which way.
        problem: String,
    },

    /// The answer is longer than is sane.
    #[error("cannot {task}: the answer of {host} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What was being done.
        task: Task,
        /// Who answered.
        host: String,
        /// The limit.
        limit_bytes: u64,
    },

    /// The bytes are not what was asked for.
    #[error("cannot {task}: the digest is {found}, expected {expected}")]
    Digest {
        /// What was being done.
        task: Task,
        /// As asked for or announced.
        expected: Digest,
        /// Of the bytes.
        found: Digest,
    },

    /// A blob or manifest is shorter or longer than its descriptor says.
    #[error("cannot {task}: {host} sends {found} bytes, expected {expected}")]
    Size {
        /// What was being done.
        task: Task,
        /// Who answered.
        host: String,
        /// From the descriptor, in bytes.
        expected: u64,
        /// What came or was announced, in bytes; where more came, the count up to then.
        found: u64,
    },

    /// The manifest or index cannot be used.
    #[error("cannot use the manifest of {image}")]
    Manifest {
        /// The image.
        image: String,
        #[source]
        source: ManifestError,
    },

    /// Indexes within indexes without end.
    #[error("cannot use the manifest of {image}: indexes lie too deep within each other")]
    IndexDepth {
        /// The image.
        image: String,
    },

    /// The config is no JSON of the right form.
    #[error("cannot use the config {digest} of {image}")]
    Config {
        /// The image.
        image: String,
        /// The config.
        digest: Digest,
        #[source]
        source: serde_json::Error,
    },

    /// Manifest and config disagree.
    #[error("{image}: the manifest has {layers} layers, the config {diff_ids} diff IDs")]
    LayerCount {
        /// The image.
        image: String,
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },

    /// A layer that may not be copied, such as Windows' base layers.
    #[error("{image}: layer {digest} is a foreign layer ({media_type}), which is not supported")]
    ForeignLayer {
        /// The image.
        image: String,
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },

    /// A layer of a kind that this code does not know.
    #[error(
        "{image}: layer {digest} has the media type {media_type:?}; a plain, gzip or zstd tar is supported"
    )]
    LayerMediaType {
        /// The image.
        image: String,
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },

    /// The image is not there for the platform.
    #[error("{image} has nothing for {wanted}, only {}", list(.available))]
    NoPlatform {
        /// The image.
        image: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<Platform>,
    },

    /// The Docker config or a credential helper failed.
    #[error("cannot get the credentials for {registry}")]
    Credentials {
        /// The registry.
        registry: String,
        #[source]
        source: CredentialError,
    },
}

impl Error {
    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { advice, .. } => {
                ![Some(Advice::AllowPlainHttp), Some(Advice::TrustCertificate)].contains(advice)
            }
            Self::Interrupted { .. } | Self::Stalled { .. } => true,
            Self::Refused { status, .. } => is_transient_status(*status),
            _ => false,
        }
    }

    /// What a user can do about it.
    #[must_use]
    pub const fn advice(&self) -> Option<Advice> {
        match self {
            Self::Connect { advice, .. } | Self::Refused { advice, .. } => *advice,
            Self::NoPlatform { .. } => Some(Advice::ChoosePlatform),
            _ => None,
        }
    }

    /// Whether the registry says that it has no such image or blob.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the registry wants other credentials.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: 401 | 403,
                ..
            }
        )
    }

    pub(crate) fn has_code(&self, code: &str) -> bool {
        matches!(self, Self::Refused { errors, .. } if errors.iter().any(|e| e.code == code))
    }

    /// An error of the HTTP client, told apart by what the user can do.
    pub(crate) fn of_transport(task: &Task, host: String, source: reqwest::Error) -> Self {
        // The URL may hold a signature.
        let source = source.without_url();
        let task = task.clone();
        let said = with_causes(&source);
        if said.contains("InvalidContentType") {
            let advice = Some(Advice::AllowPlainHttp);
            return Self::Connect {
                task,
                host,
                advice,
                source,
            };
        }
        if source.is_connect() {
            let advice = advice::of_connect(&said);
            return Self::Connect {
                task,
                host,
                advice,
                source,
            };
        }
        Self::Interrupted { task, host, source }
    }

    /// A refusal, with advice by status and code.
    pub(crate) fn refused(task: &Task, host: String, status: u16, errors: Vec<ApiError>) -> Self {
        let advice = advice::of_refusal(status, &errors);
        Self::Refused {
            task: task.clone(),
            host,
            status,
            errors,
            advice,
        }
    }
}

/// Statuses after which an idempotent request is repeated.
pub(crate) const fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn said(errors: &[ApiError]) -> String {
    errors.iter().map(|error| format!(", {error}")).collect()
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "images without a platform".to_owned();
    }
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    names.join(", ")
}
