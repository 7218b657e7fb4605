//! Why a request was not done, in the codes that clients know.

use serde::Serialize;

use crate::exact::WINDOW;
use crate::parameters::{LONGEST_VALUE, ParameterError};

/// A refusal. Its text is the answer's `Message`. Clients try codes above 2000 again by themselves,
/// so there are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Refusal {
    /// 130: what lies behind this server failed.
    #[error("{0}")]
    Gateway(String),
    /// 150: not just now.
    #[error("{0}")]
    Unavailable(String),
    /// 150: Pods use what would go.
    #[error("{0}")]
    InUse(String),
    /// 153: too many requests.
    #[error("Too many requests, try again later")]
    Throttled,
    /// 160: no action was named.
    #[error("Missing Action")]
    MissingAction,
    /// 161: no such action.
    #[error("Action [{0}] not found")]
    UnknownAction(String),
    /// 170: not signed.
    #[error("Missing Signature")]
    MissingSignature,
    /// 170: the second signature is missing, which this server requires.
    #[error(
        "Missing Signature: this server requires the header X-Uimgacc-Signature (v2), which uimgacc sends and the UCloud SDKs do not"
    )]
    MissingExact,
    /// 171: signed by somebody else, or changed since.
    #[error("Signature VerifyAC Error")]
    WrongSignature,
    /// 171: the second signature is too old or too new. Only said to who holds the key.
    #[error(
        "Signature VerifyAC Error: the request was signed at a time that differs by {0} s from the server's, {WINDOW} s are allowed: set the clock"
    )]
    WrongTime(u64),
    /// 171: the second signature was used before. Only said to who holds the key.
    #[error("Signature VerifyAC Error: this request was received before")]
    Replayed,
    /// 172: nobody has this public key.
    #[error("User Not Exists")]
    UnknownUser,
    /// 220: a parameter is missing.
    #[error("Missing params [{0}]")]
    Missing(String),
    /// 230: a parameter, or the way they are sent, cannot be used.
    #[error("Params [{0}] not available")]
    NotAvailable(String),
    /// 230: a parameter cannot be used there.
    #[error("Params [{key}] not available: {why}")]
    Rejected {
        /// The parameter.
        key: &'static str,
        why: String,
    },
    /// 230: the action has no such parameter.
    #[error("Params [{0}] not available: this action has no such parameter")]
    UnknownParameter(String),
    /// 230: a value is too long.
    #[error("Params [{0}] not available: it is longer than {LONGEST_VALUE} bytes")]
    TooLong(&'static str),
    /// 230: a value contains the name of a parameter, see [`crate::recut`].
    #[error(
        "Params [{key}] not available: it contains {name:?}, the name of a parameter, so the signature would fit another request as well: choose another value"
    )]
    NameInside {
        /// The parameter.
        key: &'static str,
        /// The name in its value.
        name: &'static str,
    },
    /// 230: the signed text has another valid reading, see [`crate::recut`].
    #[error(
        "Params [{0}] not available: the signature of this request would fit another request as well, because a value contains names of parameters: choose another value"
    )]
    Ambiguous(&'static str),
    /// 292: the key has no rights in any such project.
    #[error("Project [{0}] not exists")]
    NoProject(String),
    /// 299: the key may not do this.
    #[error("Permission denied")]
    Denied,
}

impl From<ParameterError> for Refusal {
    fn from(error: ParameterError) -> Self {
        let what = match error {
            ParameterError::Twice(key) => key.chars().take(64).collect(),
            other => other.to_string(),
        };
        Self::NotAvailable(what)
    }
}

/// The answer of a request that was not done. HTTP status 200, as clients expect it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RefusalAnswer {
    /// See [`Refusal::code`].
    pub ret_code: u16,
    /// For people.
    pub message: String,
    /// The action with `Response` behind it.
    pub action: String,
    /// A word for programs, where the code alone does not tell: `InUse`. (Ours.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// The reason of [`Refusal::InUse`].
pub const IN_USE: &str = "InUse";

impl Refusal {
    /// Its `RetCode`.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Gateway(_) => 130,
            Self::Unavailable(_) | Self::InUse(_) => 150,
            Self::Throttled => 153,
            Self::MissingAction => 160,
            Self::UnknownAction(_) => 161,
            Self::MissingSignature | Self::MissingExact => 170,
            Self::WrongSignature | Self::WrongTime(_) | Self::Replayed => 171,
            Self::UnknownUser => 172,
            Self::Missing(_) => 220,
            Self::NotAvailable(_)
            | Self::Rejected { .. }
            | Self::UnknownParameter(_)
            | Self::TooLong(_)
            | Self::NameInside { .. }
            | Self::Ambiguous(_) => 230,
            Self::NoProject(_) => 292,
            Self::Denied => 299,
        }
    }

    /// The answer to `action`.
    #[must_use]
    pub fn answer(&self, action: &str) -> RefusalAnswer {
        RefusalAnswer {
            ret_code: self.code(),
            message: self.to_string(),
            action: format!("{action}Response"),
            reason: matches!(self, Self::InUse(_)).then_some(IN_USE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_clients_read_them() {
        let name = || "ClusterId".to_owned();
        for (refusal, code, message) in [
            (Refusal::Gateway("no answer".to_owned()), 130, "no answer"),
            (Refusal::Unavailable("later".to_owned()), 150, "later"),
            (
                Refusal::Throttled,
                153,
                "Too many requests, try again later",
            ),
            (Refusal::MissingAction, 160, "Missing Action"),
            (
                Refusal::UnknownAction("X".to_owned()),
                161,
                "Action [X] not found",
            ),
            (Refusal::MissingSignature, 170, "Missing Signature"),
            (Refusal::WrongSignature, 171, "Signature VerifyAC Error"),
            (Refusal::UnknownUser, 172, "User Not Exists"),
            (Refusal::Missing(name()), 220, "Missing params [ClusterId]"),
            (
                Refusal::NotAvailable(name()),
                230,
                "Params [ClusterId] not available",
            ),
            (
                Refusal::Rejected {
                    key: "Image",
                    why: "not there".to_owned(),
                },
                230,
                "Params [Image] not available: not there",
            ),
            (
                Refusal::NoProject("p".to_owned()),
                292,
                "Project [p] not exists",
            ),
            (Refusal::Denied, 299, "Permission denied"),
        ] {
            let answer = serde_json::to_value(refusal.answer("GetUK8SImageAccelerate")).unwrap();
            let expected = serde_json::json!({
                "RetCode": code,
                "Message": message,
                "Action": "GetUK8SImageAccelerateResponse",
            });
            assert_eq!(answer, expected);
        }
    }

    #[test]
    fn what_is_in_use_is_told_to_programs() {
        let refusal = Refusal::InUse("a is in use by default/b".to_owned());
        let answer = serde_json::to_value(refusal.answer("DeleteUK8SImageAccelerate")).unwrap();
        let expected = serde_json::json!({
            "RetCode": 150,
            "Message": "a is in use by default/b",
            "Action": "DeleteUK8SImageAccelerateResponse",
            "Reason": "InUse",
        });
        assert_eq!(answer, expected);
    }
}
