//! Where a store lies: a folder that somebody else mounts, or an NFS export that we mount.
//!
//! `nfs://server[:port][,server…]/path[?option,option…]`. Several servers are several addresses
//! of one and the same store, best first. IPv6 addresses stand in brackets; `%XX` in the path
//! stands for that byte.
//!
//! Guarantees: pure, no name is resolved here. What parses has only options that the kernel's NFS
//! client knows (kernel: `fs/nfs/fs_context.c`), and its [`Display`](fmt::Display) form parses to
//! the same source.

mod address;
mod options;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

pub use address::{NfsAddress, NfsAddressError};
pub use options::{MountParameter, NfsOptions, NfsVersion};

/// The port of NFS.
pub const NFS_PORT: u16 = 2049;
/// How many addresses one store may have.
pub const MAX_SERVERS: usize = 16;
/// The kernel takes a string of at most 255 bytes, here `server:/path` (`fs/fsopen.c`).
const MAX_SOURCE_BYTES: usize = 255;
/// The longest DNS name.
const MAX_NAME_BYTES: usize = 253;
const SCHEME: &str = "nfs://";

/// Why a text names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store {text:?}: {problem}")]
pub struct ParseSourceError {
    /// The text as given, cut after 300 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: SourceProblem,
}

/// What is wrong with the name of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum SourceProblem {
    /// Nothing there.
    #[error("it is empty; write nfs://SERVER/PATH or the absolute path of a folder")]
    Empty,
    /// A URL that is not for NFS.
    #[error(
        "only nfs:// is mounted by this program; mount other file systems yourself and give the folder"
    )]
    Scheme,
    /// A relative path, or `server:/path`.
    #[error(
        "it is neither nfs://SERVER/PATH nor an absolute path; for SERVER:/PATH write nfs://SERVER/PATH"
    )]
    Relative,
    /// Nothing between `nfs://` and the path.
    #[error("a server is missing between nfs:// and the path")]
    NoServer,
    /// No path.
    #[error("the exported path is missing; write nfs://SERVER/ for the root of the server")]
    NoPath,
    /// A server that is no name and no address.
    #[error(
        "{0:?} is no server: write a host name, an IPv4 address or an IPv6 address in brackets, then perhaps ':' and a port"
    )]
    Server(String),
    /// A server twice.
    #[error("the server {0} stands there twice; leave one out")]
    SameServer(String),
    /// Too many of them.
    #[error("it has more than {MAX_SERVERS} servers; leave some out")]
    TooManyServers,
    /// Several sources that are not one store.
    #[error("addresses of one store must have the same path and options as the first, {first:?}")]
    NotOneStore {
        /// The first of them.
        first: String,
    },
    /// A folder among several sources.
    #[error("a folder has no second address; give the folder alone")]
    FolderAmongMany,
    /// A bad `%XX`, or a byte that no path can have.
    #[error(
        "the path is malformed: '%' must be followed by two hex digits (not 00), '?' and '#' are written %3F and %23, and no part may be '..'"
    )]
    Path,
    /// Longer than the kernel takes.
    #[error(
        "SERVER:/PATH has more than {MAX_SOURCE_BYTES} bytes, the most that the kernel takes; export a folder with a shorter path"
    )]
    TooLong,
    /// An option that is not known.
    #[error(
        "option {0:?} is not known; known are vers, rsize, wsize, hard, soft, timeo, retrans, nconnect, proto, nolock, noacl and the others of nfs(5)"
    )]
    UnknownOption(String),
    /// An option that is decided by this program.
    #[error("option {option:?} cannot be set: {reason}; leave it out")]
    RefusedOption {
        /// As given.
        option: String,
        reason: &'static str,
    },
    /// A value that is not one of those that the option takes.
    #[error("option {option:?} needs {needs}")]
    OptionValue {
        /// As given.
        option: String,
        /// What it takes.
        needs: &'static str,
    },
    /// Two options that say something about the same thing.
    #[error("options {first:?} and {second:?} say two things about one setting; leave one out")]
    Contradiction {
        /// The earlier one.
        first: String,
        /// The later one.
        second: String,
    },
    /// An option that the version has no use for.
    #[error("option {option:?} is for NFSv3 only, and vers={version} is asked for; leave one out")]
    NotInVersion {
        /// As given.
        option: String,
        /// Of the source.
        version: NfsVersion,
    },
}

/// Where a store lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSource {
    /// A folder that is there or that somebody else mounts; absolute.
    Folder(PathBuf),
    /// An NFS export.
    Nfs(NfsSource),
}

/// An NFS export with all addresses it is reached at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsSource {
    servers: Vec<NfsServer>,
    path: String,
    options: NfsOptions,
}

/// One address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NfsServer {
    /// Its name or address.
    pub host: Host,
    /// Its port, where that is not [`NFS_PORT`].
    pub port: Option<u16>,
}

/// A host as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name, in lower case; not resolved yet.
    Name(String),
}

impl NfsSource {
    /// The addresses, best first; at least one.
    #[must_use]
    pub fn servers(&self) -> &[NfsServer] {
        &self.servers
    }

    /// The exported path; absolute.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &NfsOptions {
        &self.options
    }

    /// What the kernel calls the source: `server:/path`.
    #[must_use]
    pub fn kernel_source(&self, server: &NfsServer) -> String {
        format!("{}:{}", server.host, self.path)
    }
}

impl NfsServer {
    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(NFS_PORT)
    }
}

impl StoreSource {
    /// Parses the addresses of one store.
    ///
    /// # Errors
    /// One is malformed, or they are not one store.
    pub fn parse_all<S: AsRef<str>>(texts: &[S]) -> Result<Self, ParseSourceError> {
        let mut texts = texts.iter().map(AsRef::as_ref);
        let first_text = texts.next().unwrap_or_default();
        let mut first: Self = first_text.parse()?;
        for text in texts {
            let failed = |problem| ParseSourceError::new(text, problem);
            match (&mut first, text.parse::<Self>()?) {
                (Self::Nfs(all), Self::Nfs(more)) => {
                    if all.path != more.path || all.options != more.options {
                        let first = first_text.to_owned();
                        return Err(failed(SourceProblem::NotOneStore { first }));
                    }
                    for server in more.servers {
                        add_server(&mut all.servers, server).map_err(failed)?;
                    }
                }
                _ => return Err(failed(SourceProblem::FolderAmongMany)),
            }
        }
        Ok(first)
    }
}

impl ParseSourceError {
    fn new(text: &str, problem: SourceProblem) -> Self {
        Self {
            text: text.chars().take(300).collect(),
            problem,
        }
    }
}

impl FromStr for StoreSource {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| ParseSourceError::new(text, problem))
    }
}

fn parse(text: &str) -> Result<StoreSource, SourceProblem> {
    if text.is_empty() {
        return Err(SourceProblem::Empty);
    }
    if text.starts_with('/') {
        return if text.contains('\0') {
            Err(SourceProblem::Path)
        } else {
            Ok(StoreSource::Folder(text.into()))
        };
    }
    let Some(rest) = text.strip_prefix(SCHEME) else {
        return Err(if text.contains("://") {
            SourceProblem::Scheme
        } else {
            SourceProblem::Relative
        });
    };
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (list, path) = match place.find('/') {
        Some(at) => place.split_at(at),
        None if place.is_empty() => return Err(SourceProblem::NoServer),
        None => return Err(SourceProblem::NoPath),
    };
    if list.is_empty() {
        return Err(SourceProblem::NoServer);
    }
    let mut servers = Vec::new();
    for server in list.split(',') {
        add_server(&mut servers, parse_server(server)?)?;
    }
    let source = NfsSource {
        servers,
        path: decode(path)?,
        options: options.parse()?,
    };
    let longest = source
        .servers
        .iter()
        .map(|server| source.kernel_source(server).len());
    if longest.max().unwrap_or_default() > MAX_SOURCE_BYTES {
        return Err(SourceProblem::TooLong);
    }
    Ok(StoreSource::Nfs(source))
}

fn add_server(servers: &mut Vec<NfsServer>, server: NfsServer) -> Result<(), SourceProblem> {
    let same = |known: &NfsServer| known.host == server.host && known.port() == server.port();
    if servers.iter().any(same) {
        return Err(SourceProblem::SameServer(server.to_string()));
    }
    if servers.len() >= MAX_SERVERS {
        return Err(SourceProblem::TooManyServers);
    }
    servers.push(server);
    Ok(())
}

fn parse_server(text: &str) -> Result<NfsServer, SourceProblem> {
    let bad = || SourceProblem::Server(text.to_owned());
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(bad)?;
        let address: Ipv6Addr = address.parse().map_err(|_| bad())?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err(bad()),
        };
        (Host::Address(address.into()), port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        (parse_host(host).ok_or_else(bad)?, port)
    };
    if matches!(host, Host::Address(address) if address.is_unspecified()) {
        return Err(bad());
    }
    let port = match port {
        // `parse` would take "+1".
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(
            digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(bad)?,
        ),
        Some(_) => return Err(bad()),
        None => None,
    };
    Ok(NfsServer { host, port })
}

fn parse_host(text: &str) -> Option<Host> {
    if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
        return Some(Host::Address(address.into()));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // A name whose last part is a number would be a mistyped address.
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    (text.len() <= MAX_NAME_BYTES && text.split('.').all(label) && !numeric)
        .then(|| Host::Name(text.to_ascii_lowercase()))
}

fn decode(text: &str) -> Result<String, SourceProblem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => {
                        u8::try_from(high * 16 + low).map_err(|_| SourceProblem::Path)?
                    }
                    _ => return Err(SourceProblem::Path),
                }
            }
            b'#' => return Err(SourceProblem::Path),
            byte => byte,
        });
    }
    let path = String::from_utf8(bytes).map_err(|_| SourceProblem::Path)?;
    if path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(SourceProblem::Path);
    }
    Ok(path)
}

impl fmt::Display for StoreSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Nfs(source) => source.fmt(f),
        }
    }
}

impl fmt::Display for NfsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        for (number, server) in self.servers.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{server}")?;
        }
        for character in self.path.chars() {
            match character {
                '%' | '?' | '#' => write!(f, "%{:02X}", u32::from(character))?,
                other => write!(f, "{other}")?,
            }
        }
        let options = self.options.to_string();
        if options.is_empty() {
            return Ok(());
        }
        write!(f, "?{options}")
    }
}

impl fmt::Display for NfsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}
