//! Where a conversion may push, and for which originals it may use credentials. Pure.
//!
//! Whoever may create an [`crate::AcceleratedImage`] chooses an original and a target, but not the
//! credentials: without a rule they could have a private image copied to a registry of their own.
//! The controller, the command and the admission policy in `deploy/policy` follow this one rule:
//!
//! - `allowedTargets` set: the target must be in it.
//! - `allowedTargets` absent: the target may be anywhere as long as the conversion uses no
//!   credentials, neither `pullSecret` nor `registryCredentials`. With credentials it is refused.
//! - Credentials are used for the original only if it is in `credentialsFor` (absent: in
//!   `allowedTargets`) or in the target's own repository. Others are pulled without.
//!
//! An entry is a registry or a path in one, `registry.example.com` or `registry.example.com/team`,
//! and covers itself and everything below it, part by part: `registry.example.com/team` does not
//! cover `registry.example.com/team-b`. Docker Hub is `docker.io`.

use uimgacc_types::{ImageReference, ParseReferenceError};

use crate::{AcceleratedImageSpec, ImageAccelerationSpec};

/// What a conversion may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Whether the original is pulled with the credentials, where there are any.
    pub original_with_credentials: bool,
}

/// Why a conversion may not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefused {
    /// The original or the target is not a reference.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// The target is not in the list.
    #[error(
        "images may not be pushed to {target}: allowedTargets of the ImageAcceleration is {}",
        listed(.allowed)
    )]
    TargetNotAllowed {
        /// Registry and repository of the target.
        target: String,
        /// What the list has.
        allowed: Vec<String>,
    },
    /// There is no list, and credentials would be used.
    #[error(
        "images may not be pushed to {target} with credentials: the ImageAcceleration has no allowedTargets"
    )]
    NoAllowedTargets {
        /// Registry and repository of the target.
        target: String,
    },
}

impl AccessRefused {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Reference(_) => "delete this object and create another",
            Self::TargetNotAllowed { .. } | Self::NoAllowedTargets { .. } => {
                "choose a target that is allowed, or have an administrator run \
                 `uimgacc enable --allow-target REGISTRY[/PATH],...` with the whole list"
            }
        }
    }
}

fn listed(list: &[String]) -> String {
    if list.is_empty() {
        return "empty".to_owned();
    }
    list.join(", ")
}

/// What the conversion of `image` may do in a cluster that is set up as `acceleration` says.
///
/// # Errors
/// See [`AccessRefused`].
pub fn access(
    image: &AcceleratedImageSpec,
    acceleration: &ImageAccelerationSpec,
) -> Result<Access, AccessRefused> {
    let original: ImageReference = image.original_image.parse()?;
    let target: ImageReference = image.target_image.parse()?;
    let (source, destination) = (repository(&original), repository(&target));
    let has_credentials =
        image.pull_secret.is_some() || acceleration.registry_credentials.is_some();
    let allowed = acceleration.allowed_targets.as_ref();
    match allowed {
        Some(allowed) if !is_listed(allowed, &destination) => {
            return Err(AccessRefused::TargetNotAllowed {
                target: destination,
                allowed: allowed.clone(),
            });
        }
        None if has_credentials => {
            return Err(AccessRefused::NoAllowedTargets {
                target: destination,
            });
        }
        _ => {}
    }
    let sources = acceleration.credentials_for.as_ref().or(allowed);
    Ok(Access {
        original_with_credentials: has_credentials
            && (source == destination || sources.is_some_and(|list| is_listed(list, &source))),
    })
}

fn repository(image: &ImageReference) -> String {
    format!("{}/{}", image.registry(), image.repository())
}

fn is_listed(list: &[String], repository: &str) -> bool {
    list.iter().any(|entry| covers(entry, repository))
}

/// Whether an entry of a list is `repository` (with its registry) or a path above it.
#[must_use]
pub fn covers(entry: &str, repository: &str) -> bool {
    repository
        .strip_prefix(entry)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An entry of a list as it must be written, from what people and Docker configurations write:
/// `https://index.docker.io/v1/` is `docker.io`. `None` where it does not name a registry.
#[must_use]
pub fn entry(text: &str) -> Option<String> {
    let text = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let text = text.trim_end_matches('/');
    let text = ["/v1", "/v2"]
        .iter()
        .find_map(|end| text.strip_suffix(end))
        .unwrap_or(text);
    // The grammar is that of references: two more parts make any entry one.
    let below = "/x/x";
    let parsed: ImageReference = format!("{text}{below}").parse().ok()?;
    let (host, path) = match text.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (text, String::new()),
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    let entry = format!("{host}{path}");
    let is_whole =
        parsed.registry() == host || parsed.registry_host() == host || host == "docker.io";
    // A name without a host is on Docker Hub in references; here it would only be a mistake.
    let names_host = host.contains(['.', ':']) || host == "localhost";
    (is_whole && names_host && parsed.tag() == Some("latest")).then_some(entry)
}

#[cfg(test)]
mod tests;
