//! Addresses of NFS stores as people write them. Pure.
//!
//! `10.0.0.1`, `10.0.0.1:/path`, `a,b:/path` and `nfs://a,b/path?options` mean servers, the path of
//! the export (default `/`) and mount options. IPv6 addresses stand in brackets.

use std::fmt;
use std::str::FromStr;

use super::{SourceProblem, StoreSource};

/// The address of an NFS export: what is known of a store before it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsAddress {
    /// Addresses of the server, all of the same export; at least one. IPv6 in brackets or without.
    pub servers: Vec<String>,
    /// Path of the export; absolute, with `%XX` as it was written.
    pub path: String,
    /// Mount options as in `mount -o`; empty for the defaults.
    pub options: String,
}

/// Why a text is no address of an NFS export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no NFS address: {problem} (write 10.0.0.1:/path or nfs://10.0.0.1,10.0.0.2/path?options)"
)]
pub struct NfsAddressError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub problem: SourceProblem,
}

impl FromStr for NfsAddress {
    type Err = NfsAddressError;

    /// Refuses what the daemon could not mount: no server, a path with `..`, an option that no kernel
    /// knows.
    fn from_str(text: &str) -> Result<Self, NfsAddressError> {
        parse(text.trim()).map_err(|problem| NfsAddressError {
            text: text.to_owned(),
            problem,
        })
    }
}

/// `a,b:/path`, without the options, as `get` shows it.
impl fmt::Display for NfsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.servers.join(","), self.path)
    }
}

impl NfsAddress {
    /// The text of the [`StoreSource`], `nfs://server,server/path?options`; where this was not parsed
    /// but written by hand it need not be valid.
    #[must_use]
    pub fn source(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(|one| in_brackets(one)).collect();
        let path = encode(&self.path);
        let slash = if path.starts_with('/') { "" } else { "/" };
        let options = if self.options.is_empty() {
            String::new()
        } else {
            format!("?{}", self.options)
        };
        format!("nfs://{}{slash}{path}{options}", servers.join(","))
    }
}

/// An address of IPv6 stands in brackets.
fn in_brackets(server: &str) -> String {
    match server.parse::<std::net::Ipv6Addr>() {
        Ok(_) => format!("[{server}]"),
        Err(_) => server.to_owned(),
    }
}

/// What would end a path within a URL is escaped.
fn encode(path: &str) -> String {
    path.chars()
        .map(|c| match c {
            '%' => "%25".to_owned(),
            '?' => "%3F".to_owned(),
            '#' => "%23".to_owned(),
            ' ' => "%20".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

fn parse(text: &str) -> Result<NfsAddress, SourceProblem> {
    let (servers, path, options) = match text.split_once("://") {
        Some(("nfs", rest)) => {
            let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
            let (servers, path) = place.split_at(place.find('/').unwrap_or(place.len()));
            // `&` separates as in URLs, `,` as in mount -o.
            (servers, path, options.replace('&', ","))
        }
        Some(_) => return Err(SourceProblem::Scheme),
        None => match text.find(":/") {
            Some(colon) => (&text[..colon], &text[colon + 1..], String::new()),
            None => (text, "", String::new()),
        },
    };
    if servers.is_empty() {
        return Err(SourceProblem::NoServer);
    }
    let path = if path.is_empty() { "/" } else { path };
    // What the daemon and the Jobs will be told.
    let mut source = format!("nfs://{servers}{path}");
    if !options.is_empty() {
        source = format!("{source}?{options}");
    }
    source
        .parse::<StoreSource>()
        .map_err(|error| error.problem)?;
    Ok(NfsAddress {
        servers: servers.split(',').map(str::to_owned).collect(),
        path: path.to_owned(),
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, servers, path, options) in [
            ("10.0.0.1", vec!["10.0.0.1"], "/", ""),
            ("10.0.0.1:/", vec!["10.0.0.1"], "/", ""),
            ("10.0.0.1:/a/b", vec!["10.0.0.1"], "/a/b", ""),
            (
                "nas-1.local,nas-2.local:/x",
                vec!["nas-1.local", "nas-2.local"],
                "/x",
                "",
            ),
            ("[fd00::1]:/x", vec!["[fd00::1]"], "/x", ""),
            ("nfs://10.0.0.1", vec!["10.0.0.1"], "/", ""),
            (
                "nfs://10.0.0.1,10.0.0.2/a?vers=4.2,nconnect=4",
                vec!["10.0.0.1", "10.0.0.2"],
                "/a",
                "vers=4.2,nconnect=4",
            ),
            (
                "nfs://[fd00::1]/x?vers=3&nolock",
                vec!["[fd00::1]"],
                "/x",
                "vers=3,nolock",
            ),
        ] {
            let store = text.parse::<NfsAddress>().expect(text);
            assert_eq!(store.servers, servers, "{text}");
            assert_eq!(store.path, path, "{text}");
            assert_eq!(store.options, options, "{text}");
            let again = store.to_string().parse::<NfsAddress>().expect(text);
            assert_eq!(again.path, store.path);
        }
    }

    #[test]
    fn no_addresses() {
        for text in [
            "",
            ":/x",
            "http://a/x",
            "a b:/x",
            "a:/x/../y",
            "nfs://a/x?colour=red",
            "a,a:/x",
            "a,:/x",
            "fd00::1:/x",
            "/x",
            "nfs:///x",
        ] {
            let error = text.parse::<NfsAddress>().expect_err(text);
            assert!(
                error.to_string().contains("write 10.0.0.1:/path"),
                "{error}"
            );
        }
    }
}
