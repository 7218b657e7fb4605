//! Names of images, with Docker Hub's short forms written out.
//!
//! The grammar is that of the distribution project's `reference` package, which containerd and
//! Docker share: `[host[:port]/]path[:tag][@digest]`. The first part is a host only when it holds a
//! dot, a colon or a capital letter, or is `localhost`; all else lies on `docker.io`, and a path of
//! one part there below `library/`.
//!
//! Guarantees: a parsed reference holds no character that means something in a URL's path, and its
//! [`Display`](fmt::Display) form parses to the same reference.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// The registry of names that have none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// An older name of the same, still found in scripts.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
/// Where the API of `docker.io` is served.
const DEFAULT_REGISTRY_HOST: &str = "registry-1.docker.io";
/// The folder of names of one part on `docker.io`.
const OFFICIAL_PREFIX: &str = "library/";
/// The tag of references that have neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Most bytes of a repository's path (distribution reference, `RepositoryNameTotalLengthMax`).
const MAX_REPOSITORY_BYTES: usize = 255;
/// Most bytes of a tag.
const MAX_TAG_BYTES: usize = 128;
/// Most bytes of a host with its port: a DNS name has 253 at most.
const MAX_REGISTRY_BYTES: usize = 261;

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image reference {text:?}: {problem}")]
pub struct ParseReferenceError {
    /// The text as given, cut after 300 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: ReferenceProblem,
}

/// What is wrong with an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceProblem {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// It starts with `http://` or the like.
    #[error("it starts with a URL scheme, leave out {0:?}")]
    Scheme(String),
    /// There is nothing before the tag or the digest, or nothing after the host.
    #[error("the name of the repository is missing")]
    NoRepository,
    /// The host or its port is malformed.
    #[error(
        "{0:?} is no registry host (letters, digits, '-' and '.', then perhaps ':' and a port)"
    )]
    Registry(String),
    /// The path has capital letters.
    #[error("the repository {0:?} must be in lower case")]
    UpperCase(String),
    /// A part of the path is malformed.
    #[error(
        "{0:?} is no part of a repository's name (a-z and 0-9, joined by '.', '_', '__' or '-')"
    )]
    Component(String),
    /// The path is too long.
    #[error("the repository's name has {0} bytes, {MAX_REPOSITORY_BYTES} are allowed")]
    RepositoryTooLong(usize),
    /// The path is 64 hex digits, which reads as an image ID.
    #[error("a name of 64 hex digits is an image ID, not a repository")]
    ImageId,
    /// The tag is malformed.
    #[error(
        "{0:?} is no tag (up to {MAX_TAG_BYTES} letters, digits, '_', '.' and '-', not '.' or '-' first)"
    )]
    Tag(String),
    /// The digest is malformed or not SHA-256.
    #[error("{0:?} is no digest, expected sha256: and 64 lower-case hex digits")]
    Digest(String),
}

/// The normalised name of an image: registry, repository, and a tag, a digest or both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// The registry as users write it: host, perhaps `:port`; `docker.io` for Docker Hub.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Where the registry's API is served: [`Self::registry`], but `registry-1.docker.io` for
    /// Docker Hub.
    #[must_use]
    pub fn registry_host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY {
            DEFAULT_REGISTRY_HOST
        } else {
            &self.registry
        }
    }

    /// The path within the registry, such as `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where the text had neither tag nor digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where the text had one.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository, the manifest named by `digest` alone.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest),
        }
    }

    /// Whether blobs of the one can be mounted into the other.
    #[must_use]
    pub fn same_registry(&self, other: &Self) -> bool {
        self.registry == other.registry
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ImageReference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| ParseReferenceError {
            text: text.chars().take(300).collect(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<ImageReference, ReferenceProblem> {
    if text.is_empty() {
        return Err(ReferenceProblem::Empty);
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(ReferenceProblem::Scheme(format!("{scheme}://")));
    }
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => match digest.parse::<Digest>() {
            Ok(digest) => (rest, Some(digest)),
            Err(_) => return Err(ReferenceProblem::Digest(digest.to_owned())),
        },
    };
    // A colon before the last slash belongs to the port.
    let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_end..].split_once(':') {
        None => (rest, None),
        Some((last, tag)) => (&rest[..name_end + last.len()], Some(tag)),
    };
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err(ReferenceProblem::Tag(tag.to_owned()));
    }
    let (registry, path) = split_registry(name);
    if !is_registry(registry) {
        return Err(ReferenceProblem::Registry(registry.to_owned()));
    }
    let repository = if registry == DEFAULT_REGISTRY && !path.is_empty() && !path.contains('/') {
        format!("{OFFICIAL_PREFIX}{path}")
    } else {
        path.to_owned()
    };
    check_path(path, &repository, name == path)?;
    let tag = match (tag, digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(ImageReference {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    })
}

/// Splits a name without tag and digest into registry and path.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, path))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.contains(|c: char| c.is_uppercase()) =>
        {
            let registry = if first == LEGACY_DEFAULT_REGISTRY {
                DEFAULT_REGISTRY
            } else {
                first
            };
            (registry, path)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

/// `path` as given, `repository` as it will be; `bare` when the text named no registry.
fn check_path(path: &str, repository: &str, bare: bool) -> Result<(), ReferenceProblem> {
    if path.is_empty() {
        return Err(ReferenceProblem::NoRepository);
    }
    if repository.len() > MAX_REPOSITORY_BYTES {
        return Err(ReferenceProblem::RepositoryTooLong(repository.len()));
    }
    if path.contains(|c: char| c.is_uppercase()) {
        return Err(ReferenceProblem::UpperCase(path.to_owned()));
    }
    if let Some(bad) = path.split('/').find(|part| !is_component(part)) {
        return Err(ReferenceProblem::Component(bad.to_owned()));
    }
    if bare && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ReferenceProblem::ImageId);
    }
    Ok(())
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !bytes.first().is_some_and(is_plain) || !bytes.last().is_some_and(is_plain) {
        return false;
    }
    bytes
        .split(is_plain)
        .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG_BYTES
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

/// A DNS name, an IPv4 address or a bracketed IPv6 address, then perhaps `:port`.
fn is_registry(registry: &str) -> bool {
    if registry.len() > MAX_REGISTRY_BYTES {
        return false;
    }
    let (host, port) = if let Some(rest) = registry.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        (None, port)
    } else {
        let end = registry.find(':').unwrap_or(registry.len());
        (Some(&registry[..end]), &registry[end..])
    };
    let host_ok = host.is_none_or(|host| host.split('.').all(is_host_label));
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|b| b.is_ascii_digit())
                && digits.parse::<u16>().is_ok_and(|port| port > 0)
        });
    host_ok && port_ok
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests;
