//! Why something failed, and what to do.

use std::path::PathBuf;
use std::time::Duration;

use uimgacc_api::Verb;

use crate::config::ConfigError;
use crate::setting::Setting;

/// What callers tell apart: exit codes hang from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It did not come about in time.
    Timeout,
    /// Somebody uses what would go.
    InUse,
    /// All else.
    Failed,
}

/// Why something failed. Texts of the service stand in it as one line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// A setting is missing.
    #[error("{key} is not set", key = .0.key())]
    NotSet(Setting),
    /// The signature would fit another request as well, so whoever hears it could send that one.
    #[error("the request cannot be signed: {0}")]
    Unsafe(String),
    /// The configuration file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The configuration file cannot be understood.
    #[error("the configuration {} cannot be used", path.display())]
    Config {
        path: PathBuf,
        #[source]
        source: ConfigError,
    },
    /// A variable cannot be used.
    #[error(transparent)]
    Variable(#[from] ConfigError),
    /// The HTTP client cannot be made.
    #[error("cannot set up HTTP")]
    Setup(#[source] reqwest::Error),
    /// There was no answer.
    #[error("no answer from {url}")]
    Unreachable {
        /// The service.
        url: String,
        /// The request changes something, and may have arrived.
        may_have_arrived: bool,
        #[source]
        source: Cause,
    },
    /// The answer is none of this API.
    #[error("{url} answered what is no answer of this API: {problem}")]
    Foreign {
        /// The service.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Whatever stands before the service refused, or a redirection, which is not followed.
    #[error("{url} answered HTTP {status}")]
    Http {
        /// The service.
        url: String,
        /// Such as `502 Bad Gateway`.
        status: reqwest::StatusCode,
    },
    /// The service refused.
    #[error("the service refused {action}: {message} (code {code})", action = verb.name())]
    Refused {
        /// What was asked for.
        verb: Verb,
        /// Its `RetCode`.
        code: i64,
        /// Its `Reason`: Pods use it.
        is_in_use: bool,
        /// Its `Message`.
        message: String,
    },
    /// The image could not be made.
    #[error("cannot accelerate {image}: {message}")]
    CreateFailed {
        /// The target.
        image: String,
        /// What the service says.
        message: String,
    },
    /// The image cannot be deleted.
    #[error("cannot delete {image}: {message}")]
    DeleteFailed {
        /// The target.
        image: String,
        /// What the service says.
        message: String,
    },
    /// Somebody else took away what was waited for.
    #[error("{0}")]
    Lost(String),
    /// There is no such image.
    #[error("there is no accelerated image {image} in the cluster {cluster}")]
    NoImage {
        /// As it was asked for.
        image: String,
        /// The cluster's ID.
        cluster: String,
    },
    /// The images are not told just now.
    #[error("whether there is an image {image} is not told while the status is {status}")]
    Hidden {
        /// As it was asked for.
        image: String,
        /// `Status`.
        status: &'static str,
    },
    /// It did not come about in time.
    #[error("{what} after {} s: {state}", after.as_secs())]
    Timeout {
        /// What did not, such as `not ready`.
        what: String,
        /// How long it was waited for.
        after: Duration,
        /// How it was at last.
        state: String,
    },
}

/// The innermost reason of an error of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(pub(crate) String);

impl Error {
    /// What callers tell apart.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Timeout { .. } => Kind::Timeout,
            Self::Refused {
                is_in_use: true, ..
            } => Kind::InUse,
            _ => Kind::Failed,
        }
    }

    /// Whether asking again may help, by itself and soon.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Http { status, .. } => matches!(status.as_u16(), 429 | 500..),
            // The SDKs ask again where a code lies above 2000.
            Self::Refused { code, .. } => matches!(code, 130 | 150 | 153 | 2001..),
            _ => false,
        }
    }

    /// What to do about it, one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotSet(setting) => {
                return Some(format!(
                    "`uimgacc config init` asks for it, and {} sets it",
                    setting.variable()
                ));
            }
            Self::File { action: "read", .. } => {
                "`uimgacc config init` makes one, `uimgacc config path` prints where it is looked for"
            }
            Self::Config { .. } => "mend it, or start over by `uimgacc config init --force`",
            Self::Unreachable {
                may_have_arrived: true,
                ..
            } => "the request may have arrived: `uimgacc get` shows whether it has",
            Self::Unreachable { source, .. } if source.0.contains("certificate") => {
                "SSL_CERT_FILE names a file with the authorities to trust"
            }
            Self::Http { status, .. } if status.is_server_error() => "try again",
            Self::Unreachable { .. } | Self::Foreign { .. } | Self::Http { .. } => {
                "check base_url (`uimgacc config show`) and the way to it"
            }
            Self::Refused {
                is_in_use: true, ..
            } => "end these Pods first",
            Self::Refused { code, message, .. } => return refused(*code, message),
            Self::NoImage { .. } => "`uimgacc get` lists the images",
            Self::Hidden { .. } => "ask again when that has ended",
            Self::Timeout { .. } => "the work goes on; `uimgacc get` shows how far it is",
            Self::Unsafe(_) => "choose another name or tag, without the name of a parameter in it",
            Self::CreateFailed { .. }
            | Self::DeleteFailed { .. }
            | Self::Lost(_)
            | Self::File { .. }
            | Self::Variable(_)
            | Self::Setup(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// What to do about a code of the API.
fn refused(code: i64, message: &str) -> Option<String> {
    let hint = match code {
        130 | 150 => "the service or the cluster does not answer it just now: try again",
        153 => "too many requests: wait a little, then try again",
        160 | 161 => "this service does not know the action: check base_url",
        170 | 171 if message.contains("clock") => "set the clock of this machine",
        170 | 171 => {
            "check private_key: it must be the one of public_key, and the service must know that"
        }
        172 => "check public_key: the service does not know it",
        220 | 230 => {
            let parameter = message
                .split_once('[')
                .and_then(|(_, rest)| rest.split_once(']'));
            return parameter
                .and_then(|(name, _)| of_parameter(name))
                .map(str::to_owned);
        }
        292 => "check project_id: it must be one that the key has rights in",
        299 => "the key may not do this: ask for the rights, or use another key",
        2001.. => "try again",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn of_parameter(name: &str) -> Option<&'static str> {
    Some(match name {
        "ClusterId" => {
            "check cluster_id, region and project_id: there is no such cluster in that project"
        }
        "Region" => "check region",
        "ProjectId" => "check project_id",
        "NfsAddr" => "check --nfs or nfs_addr: write such as 10.0.0.1:/export",
        "SubnetId" => "check --subnet-id or subnet_id",
        "UHubUsername" | "UHubPassword" => {
            "check --username and the password, or uhub_username and uhub_password"
        }
        "OriginalImage" => "check the name of the original image",
        "TargetImage" => "check the name of the target image",
        "Image" => "check the image's name: `uimgacc get` lists the images",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i64, message: &str) -> Error {
        Error::Refused {
            verb: Verb::Get,
            code,
            is_in_use: false,
            message: message.to_owned(),
        }
    }

    #[test]
    fn codes_have_hints() {
        for (code, message, part, is_passing) in [
            (130, "x", "try again", true),
            (150, "x", "try again", true),
            (153, "x", "wait", true),
            (160, "Missing Action", "base_url", false),
            (161, "Action [X] not found", "base_url", false),
            (170, "Missing Signature", "private_key", false),
            (171, "Signature VerifyAC Error", "private_key", false),
            (
                171,
                "Signature VerifyAC Error: ... set the clock",
                "clock of this",
                false,
            ),
            (172, "User Not Exists", "public_key", false),
            (220, "Missing params [NfsAddr]", "--nfs", false),
            (230, "Params [ClusterId] not available", "cluster_id", false),
            (292, "Project [x] not exists", "project_id", false),
            (299, "Permission denied", "rights", false),
            (5001, "x", "try again", true),
        ] {
            let error = of(code, message);
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(part), "{code}: {hint}");
            assert_eq!(error.is_passing(), is_passing, "{code}");
            let text = error.to_string();
            assert!(
                text.contains(message) && text.contains(&code.to_string()),
                "{text}"
            );
        }
        assert_eq!(of(230, "Params not available").hint(), None);
        assert_eq!(of(-1, "x").hint(), None);
    }
}
