//! Addresses of NFS stores as people write them. Pure.
//!
//! `10.0.0.1`, `10.0.0.1:/path`, `a,b:/path` and `nfs://a,b/path?options` mean servers, the path of
//! the export (default `/`) and mount options. IPv6 addresses stand in brackets.

use uimgacc_objects::NfsStore;
use uimgacc_types::StoreSource;
use uimgacc_types::source::SourceProblem;

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

/// Reads an address.
///
/// # Errors
/// The daemon could not mount it: no server, a path with `..`, an option that no kernel knows.
pub fn parse_nfs(text: &str) -> Result<NfsStore, NfsAddressError> {
    parse(text.trim()).map_err(|problem| NfsAddressError {
        text: text.to_owned(),
        problem,
    })
}

fn parse(text: &str) -> Result<NfsStore, SourceProblem> {
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
    Ok(NfsStore {
        servers: servers.split(',').map(str::to_owned).collect(),
        path: path.to_owned(),
        options,
    })
}

/// `a,b:/path`, as `get` shows it.
#[must_use]
pub fn format_nfs(store: &NfsStore) -> String {
    format!("{}:{}", store.servers.join(","), store.path)
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
            let store = parse_nfs(text).expect(text);
            assert_eq!(store.servers, servers, "{text}");
            assert_eq!(store.path, path, "{text}");
            assert_eq!(store.options, options, "{text}");
            assert_eq!(parse_nfs(&format_nfs(&store)).expect(text).path, store.path);
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
            let error = parse_nfs(text).expect_err(text);
            assert!(
                error.to_string().contains("write 10.0.0.1:/path"),
                "{error}"
            );
        }
    }
}
