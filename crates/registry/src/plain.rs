//! Which registries are spoken to by HTTP without TLS, and which hosts are this machine: pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// Registries without TLS: named one by one, because passwords go over the wire in the clear there.
///
/// Docker Hub is never among them, whatever is named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlainHttp {
    registries: BTreeSet<String>,
    loopback: bool,
}

impl PlainHttp {
    /// These, named as in [`uimgacc_types::ImageReference::registry`], such as `host:5000`.
    pub fn registries<S: Into<String>>(registries: impl IntoIterator<Item = S>) -> Self {
        Self {
            registries: registries.into_iter().map(Into::into).collect(),
            loopback: false,
        }
    }

    /// Every registry of this machine: `localhost`, `127.0.0.0/8` and `::1`, on any port.
    #[must_use]
    pub fn and_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// Whether that registry is one of them.
    #[must_use]
    pub fn allows(&self, registry: &str) -> bool {
        registry != "docker.io"
            && (self.registries.contains(registry)
                || self.loopback && is_loopback(host_of_registry(registry)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.registries.is_empty() && !self.loopback
    }
}

/// Whether a registry's name is an address of this machine or of a private network, so that a plain
/// connection to it does not cross the internet.
#[must_use]
pub fn is_near(registry: &str) -> bool {
    let host = host_of_registry(registry);
    is_loopback(host)
        || match address(host) {
            Some(IpAddr::V4(address)) => address.is_private() || address.is_link_local(),
            Some(IpAddr::V6(address)) => {
                address.is_unique_local() || address.is_unicast_link_local()
            }
            None => false,
        }
}

/// `host:5000` and `[::1]:5000` without their ports.
fn host_of_registry(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    }
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// Whether a host is this machine, by its name alone: `localhost`, `127.0.0.0/8`, `::1`.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || address(host).is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_what_was_named_and_never_docker_hub() {
        let named = PlainHttp::registries(["a.example:5000", "docker.io"]);
        for (registry, expected) in [
            ("a.example:5000", true),
            ("a.example", false),
            ("docker.io", false),
            ("127.0.0.1:5000", false),
        ] {
            assert_eq!(named.allows(registry), expected, "{registry}");
        }
        let near = PlainHttp::default().and_loopback();
        for (registry, expected) in [
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("localhost:1", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("localhost.example:1", false),
            ("10.0.0.1:5000", false),
            ("docker.io", false),
        ] {
            assert_eq!(near.allows(registry), expected, "{registry}");
        }
    }

    #[test]
    fn near_is_a_literal_address_of_a_private_network() {
        for near in [
            "10.1.2.3:5000",
            "192.168.0.1",
            "172.16.0.1:80",
            "[fd00::1]:5000",
            "localhost",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in [
            "8.8.8.8:5000",
            "registry.example",
            "10.example",
            "[2001:db8::1]:5000",
        ] {
            assert!(!is_near(far), "{far}");
        }
    }
}
