//! Addresses of NFS stores as people write them. Pure.
//!
//! `10.0.0.1`, `10.0.0.1:/path`, `a,b:/path` and `nfs://a,b/path?options` mean servers, the path of
//! the export (default `/`) and mount options. IPv6 addresses stand in brackets.

use uimgacc_objects::NfsStore;

/// Why a text is no address of an NFS export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no NFS address: {problem} (write 10.0.0.1:/path or nfs://10.0.0.1,10.0.0.2/path?options)"
)]
pub struct NfsAddressError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Reads an address.
///
/// # Errors
/// There is no server, the path is not absolute, or there are characters that belong into neither.
pub fn parse_nfs(text: &str) -> Result<NfsStore, NfsAddressError> {
    parse(text.trim()).map_err(|problem| NfsAddressError {
        text: text.to_owned(),
        problem,
    })
}

fn parse(text: &str) -> Result<NfsStore, &'static str> {
    let (servers, path, options) = match text.split_once("://") {
        Some(("nfs", rest)) => {
            let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
            let (servers, path) = place.split_at(place.find('/').unwrap_or(place.len()));
            // `&` separates as in URLs, `,` as in mount -o.
            (servers, path, options.replace('&', ","))
        }
        Some(_) => return Err("only the scheme nfs:// is known"),
        None => match text.split_once(":/") {
            Some((servers, path)) => {
                let start = servers.len() + 1;
                debug_assert_eq!(&text[start + 1..], path);
                (servers, &text[start..], String::new())
            }
            None => (text, "", String::new()),
        },
    };
    let servers = servers
        .split(',')
        .map(|server| is_server(server).then(|| server.to_owned()))
        .collect::<Option<Vec<_>>>()
        .ok_or("a server must be a host name, an IPv4 address or [an IPv6 address]")?;
    if servers.len() > 16 {
        return Err("more than 16 servers");
    }
    let path = if path.is_empty() { "/" } else { path };
    if path.contains(char::is_whitespace) || path.split('/').any(|part| part == "..") {
        return Err("the path must be without spaces and `..`");
    }
    if options.contains(char::is_whitespace) {
        return Err("options must be without spaces");
    }
    Ok(NfsStore {
        servers,
        path: path.to_owned(),
        options,
    })
}

fn is_server(server: &str) -> bool {
    if let Some(address) = server
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !server.is_empty()
        && server.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
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
