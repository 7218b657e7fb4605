//! The server's configuration: TOML, strict, so that a misspelt key is never silently ignored. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::access::{Access, Key, Require, Right};
use uimgacc_api::recut::name_inside;
use uimgacc_api::secret::Secret;

/// Where a login of `EnableUK8SImageAccelerate` is for.
const UHUB: &str = "uhub.service.ucloud.cn";

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ConfigError {
    /// Not TOML, or not what is known; says where.
    #[error("{0}")]
    Syntax(String),
    /// A key or cluster is there twice.
    #[error("{kind} {name:?} is there twice")]
    Twice {
        /// `public_key` or `cluster`.
        kind: &'static str,
        name: String,
    },
    /// Something is empty that must not be.
    #[error("{0} is empty")]
    Empty(String),
    /// A limit that nothing could be done with.
    #[error("limits: {0} must be from 1 to {1}")]
    Limit(&'static str, usize),
    /// A name that no request could have.
    #[error("{what} contains {name:?}, the name of a parameter of the API")]
    NameInside {
        /// Which name.
        what: String,
        /// What it contains.
        name: &'static str,
    },
    /// A cluster has two stores.
    #[error("the cluster {0:?} has two stores: give host_path or pvc, not both")]
    OneStore(String),
    /// A key is bound to a cluster that is not there, or not in its projects.
    #[error(
        "the key {key:?} is bound to the cluster {cluster:?}, which is in none of its projects"
    )]
    NoCluster {
        /// The public key.
        key: String,
        /// The cluster's ID.
        cluster: String,
    },
    /// A key has its private key in two places, or in none.
    #[error("the key {0:?} needs private_key or private_key_file, one of them")]
    OnePrivateKey(String),
    /// A file with a private key cannot be read.
    #[error("the private key of {key:?}: {message}")]
    PrivateKeyFile {
        /// The public key.
        key: String,
        message: String,
    },
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients come.
    pub listen: SocketAddr,
    /// Where metrics and health are; nowhere by default.
    pub metrics: Option<SocketAddr>,
    /// Without it plain HTTP is spoken: only behind something that ends TLS.
    pub tls: Option<Tls>,
    /// The signature that every request must have besides UCloud's; none by default.
    pub require: Option<Require>,
    /// Answer 172 `User Not Exists`, as UCloud does, where nobody has the public key. By default that is
    /// answered as a wrong signature.
    #[serde(default)]
    pub reveal_unknown_keys: bool,
    /// What one client may take.
    #[serde(default)]
    pub limits: Limits,
    /// Who may ask.
    #[serde(default)]
    pub keys: Vec<KeyConfig>,
    /// What may be asked of.
    #[serde(default)]
    pub clusters: Vec<ClusterConfig>,
}

/// The certificate of the server, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What is refused beyond.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a body, and of a query.
    pub body_bytes: usize,
    /// Seconds that a request may take to come, and its answer to be found.
    pub seconds: u16,
    /// Requests a second of one key; twice as many in a burst.
    pub requests_per_second: u32,
    /// Requests a second of one address that nobody signed; twice as many in a burst.
    pub wrong_signatures_per_second: u32,
    /// Connections at once; more are closed.
    pub connections: usize,
    /// Connections that are read from at once, which bounds the memory; others wait for their turn.
    pub active: usize,
    /// Those of them that one address (of IPv6: one network of 64 bits) may have.
    pub active_of_one_peer: usize,
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        for (name, value, most) in [
            ("body_bytes", self.body_bytes, 1 << 20),
            ("seconds", usize::from(self.seconds), 300),
            ("connections", self.connections, 1_000_000),
            ("active", self.active, 100_000),
            ("active_of_one_peer", self.active_of_one_peer, 100_000),
        ] {
            if value == 0 || value > most {
                return Err(ConfigError::Limit(name, most));
            }
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 << 10,
            seconds: 10,
            requests_per_second: 100,
            wrong_signatures_per_second: 100,
            connections: 20_000,
            active: 1000,
            active_of_one_peer: 500,
        }
    }
}

/// A pair of keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The public key.
    pub public_key: String,
    /// The private key itself; better is a file.
    pub private_key: Option<Secret>,
    /// A file with it, the end of the line aside.
    pub private_key_file: Option<PathBuf>,
    /// What it may do, by project.
    pub projects: BTreeMap<String, Right>,
    /// The only clusters of these that it may ask for.
    pub clusters: Option<BTreeSet<String>>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Its `ClusterId`.
    pub id: String,
    /// The project that it is in.
    pub project: String,
    /// How to reach it; without one as a Pod of it.
    pub kubeconfig: Option<PathBuf>,
    /// The context in that file, where it is not the current one.
    pub context: Option<String>,
    /// The registry that users and passwords are for.
    #[serde(default = "uhub")]
    pub registry: String,
    /// What `EnableUK8SImageAccelerate` cannot say.
    #[serde(default)]
    pub enable: EnableConfig,
}

/// How a cluster is enabled, besides what the action says; what is left out stays as it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnableConfig {
    /// The store is this folder, which is mounted on every node already; `NfsAddr` counts for nothing.
    pub host_path: Option<String>,
    /// The store is this PersistentVolumeClaim in kube-system; `NfsAddr` counts for nothing.
    pub pvc: Option<String>,
    /// Our own image, where nodes pull it from another registry.
    pub image: Option<String>,
    /// Labels that nodes must have.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Where target images may be pushed; what is left out follows the credentials.
    pub allowed_targets: Option<Vec<String>>,
    /// For which originals credentials are used; what is left out follows the credentials.
    pub credentials_for: Option<Vec<String>>,
    /// Registries without TLS.
    pub plain_http_registries: Option<Vec<String>>,
    /// Conversions at once.
    pub max_conversions: Option<u32>,
    /// Nodes whose containerd may be restarted at the same time.
    pub max_unavailable: Option<u32>,
    /// containerd's configuration on nodes.
    pub containerd_config: Option<String>,
    /// containerd's socket on nodes.
    pub containerd_socket: Option<String>,
    /// containerd's program on nodes.
    pub containerd_binary: Option<String>,
    /// What restarts containerd on nodes, as words.
    pub containerd_restart: Option<Vec<String>>,
}

fn uhub() -> String {
    UHUB.to_owned()
}

impl Config {
    /// Reads a configuration and checks all that can be checked without a look at files.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        config.limits.check()?;
        let mut projects: BTreeMap<&str, &str> = BTreeMap::new();
        for (number, cluster) in config.clusters.iter().enumerate() {
            for (what, value) in [
                ("id", &cluster.id),
                ("project", &cluster.project),
                ("registry", &cluster.registry),
            ] {
                filled(value, || format!("{what} of cluster {}", number + 1))?;
            }
            for (what, key, value) in [
                ("id", "ClusterId", &cluster.id),
                ("project", "ProjectId", &cluster.project),
            ] {
                if let Some(name) = name_inside(key, value) {
                    let what = format!("{what} of cluster {}", number + 1);
                    return Err(ConfigError::NameInside { what, name });
                }
            }
            if cluster.enable.host_path.is_some() && cluster.enable.pvc.is_some() {
                return Err(ConfigError::OneStore(cluster.id.clone()));
            }
            if projects.insert(&cluster.id, &cluster.project).is_some() {
                return Err(twice("cluster", &cluster.id));
            }
        }
        let mut seen = BTreeSet::new();
        for (number, key) in config.keys.iter().enumerate() {
            filled(&key.public_key, || {
                format!("public_key of key {}", number + 1)
            })?;
            if !seen.insert(&key.public_key) {
                return Err(twice("public_key", &key.public_key));
            }
            if key.private_key.is_some() == key.private_key_file.is_some() {
                return Err(ConfigError::OnePrivateKey(key.public_key.clone()));
            }
            for cluster in key.clusters.iter().flatten() {
                let project = projects.get(cluster.as_str());
                if !project.is_some_and(|project| key.projects.contains_key(*project)) {
                    return Err(ConfigError::NoCluster {
                        key: key.public_key.clone(),
                        cluster: cluster.clone(),
                    });
                }
            }
        }
        Ok(config)
    }

    /// Keys and rights; `read` reads files.
    ///
    /// # Errors
    /// [`ConfigError::PrivateKeyFile`], and [`ConfigError::Empty`] for an empty private key.
    pub fn access(
        &self,
        read: impl Fn(&PathBuf) -> std::io::Result<String>,
    ) -> Result<Access, ConfigError> {
        let mut access = Access {
            require: self.require,
            reveal_unknown_keys: self.reveal_unknown_keys,
            ..Access::default()
        };
        for key in &self.keys {
            let text = match (&key.private_key, &key.private_key_file) {
                (Some(text), _) => text.reveal().to_owned(),
                (None, Some(path)) => read(path).map_err(|error| ConfigError::PrivateKeyFile {
                    key: key.public_key.clone(),
                    message: format!("cannot read {}: {error}", path.display()),
                })?,
                (None, None) => return Err(ConfigError::OnePrivateKey(key.public_key.clone())),
            };
            let text = text.trim_end_matches(['\r', '\n']);
            filled(text, || format!("the private key of {:?}", key.public_key))?;
            let pair = Key {
                private_key: Secret::new(text.to_owned()),
                projects: key.projects.clone(),
                clusters: key.clusters.clone(),
            };
            access.keys.insert(key.public_key.clone(), pair);
        }
        let clusters = self.clusters.iter();
        access.clusters = clusters
            .map(|cluster| (cluster.id.clone(), cluster.project.clone()))
            .collect();
        Ok(access)
    }
}

/// Its own text shows the line, which may be that of a private key.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(0, |before| before.matches('\n').count()) + 1;
    ConfigError::Syntax(format!("line {line}: {}", without_value(error.message())))
}

/// `invalid type: integer, expected a string`: the value, which stands in backquotes, may be a key.
fn without_value(message: &str) -> String {
    if !message.starts_with("invalid type") && !message.starts_with("invalid value") {
        return message.to_owned();
    }
    match (message.find([' ', '`', '"']), message.rfind(", expected")) {
        (Some(_), Some(end)) => {
            let start = message.find(['`', '"']).unwrap_or(end).min(end);
            format!("{}{}", message[..start].trim_end(), &message[end..])
        }
        _ => "invalid type".to_owned(),
    }
}

fn filled(text: &str, what: impl Fn() -> String) -> Result<(), ConfigError> {
    if text.is_empty() {
        return Err(ConfigError::Empty(what()));
    }
    Ok(())
}

fn twice(kind: &'static str, name: &str) -> ConfigError {
    ConfigError::Twice {
        kind,
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
listen = "[::]:8443"
metrics = "127.0.0.1:9443"
tls = { certificate = "/etc/uimgacc-api/tls.crt", key = "/etc/uimgacc-api/tls.key" }
[limits]
requests_per_second = 5
[[keys]]
public_key = "a"
private_key_file = "/keys/a"
projects = { org-a = "write", org-b = "read" }
[[keys]]
public_key = "b"
private_key = "geheim"
projects = { org-a = "write" }
clusters = ["uk8s-1"]
[[clusters]]
id = "uk8s-1"
project = "org-a"
kubeconfig = "/clusters/1.yaml"
[[clusters]]
id = "uk8s-2"
project = "org-b"
kubeconfig = "/clusters/2.yaml"
context = "two"
registry = "r.example:5000"
enable = { host_path = "/mnt/store", node_selector = { pool = "gpu" } }
"#;

    #[test]
    fn a_whole_configuration() {
        let config = Config::parse(WHOLE).unwrap();
        assert_eq!(config.limits.requests_per_second, 5);
        assert_eq!(config.limits.body_bytes, Limits::default().body_bytes);
        assert_eq!((config.require, config.reveal_unknown_keys), (None, false));
        let strict = format!("require = \"v2\"\nreveal_unknown_keys = true\n{WHOLE}");
        let strict = Config::parse(&strict)
            .unwrap()
            .access(|_| Ok("key".to_owned()))
            .unwrap();
        assert_eq!(strict.require, Some(Require::V2));
        assert!(strict.reveal_unknown_keys);
        assert_eq!(config.clusters[0].registry, UHUB);
        assert_eq!(config.clusters[1].registry, "r.example:5000");
        assert!(!format!("{config:?}").contains("geheim"));
        let read = |path: &PathBuf| Ok(format!("key of {}\n", path.display()));
        let access = config.access(read).unwrap();
        assert_eq!(access.keys["a"].private_key.reveal(), "key of /keys/a");
        assert_eq!(access.keys["b"].private_key.reveal(), "geheim");
        assert_eq!(access.keys["a"].projects["org-b"], Right::Read);
        assert_eq!(access.clusters["uk8s-2"], "org-b");
        assert!(!format!("{access:?}").contains("geheim"));
        let gone = |_: &PathBuf| Err(std::io::ErrorKind::NotFound.into());
        let refused = config.access(gone).unwrap_err().to_string();
        assert!(
            refused.contains("\"a\"") && refused.contains("/keys/a"),
            "{refused}"
        );
        let empty = config.access(|_: &PathBuf| Ok("\n".to_owned()));
        assert!(matches!(empty, Err(ConfigError::Empty(_))), "{empty:?}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(Config::parse("listen = '127.0.0.1:1'").is_ok());
        for (from, to, said) in [
            ("metrics", "metrix", "unknown field `metrix`"),
            (
                "project = \"org-b\"",
                "project = \"\"",
                "project of cluster 2 is empty",
            ),
            (
                "\"uk8s-2\"",
                "\"uk8s-1\"",
                "cluster \"uk8s-1\" is there twice",
            ),
            (
                "public_key = \"b\"",
                "public_key = \"a\"",
                "public_key \"a\" is there twice",
            ),
            (
                "public_key = \"a\"",
                "public_key = \"\"",
                "public_key of key 1 is empty",
            ),
            (
                "private_key = \"geheim\"\n",
                "",
                "the key \"b\" needs private_key",
            ),
            (
                "[\"uk8s-1\"]",
                "[\"uk8s-2\"]",
                "bound to the cluster \"uk8s-2\"",
            ),
            (
                "[\"uk8s-1\"]",
                "[\"uk8s-3\"]",
                "bound to the cluster \"uk8s-3\"",
            ),
            (
                "enable = { ",
                "enable = { pvc = \"a\", ",
                "\"uk8s-2\" has two stores",
            ),
            ("\"read\"", "\"admin\"", "unknown variant `admin`"),
            ("[::]:8443", "nowhere", "line 2: invalid socket address"),
            ("\"geheim\"", "geheim", "line 13: "),
            (
                "private_key = \"geheim\"",
                "private_key = 4711",
                "line 13: invalid type: integer, expected",
            ),
            (
                "[limits]",
                "require = \"v3\"\n[limits]",
                "unknown variant `v3`",
            ),
            (
                "\"uk8s-2\"",
                "\"uk8s-Region-2\"",
                "id of cluster 2 contains \"Region\"",
            ),
            (
                "requests_per_second = 5",
                "active = 0",
                "active must be from 1",
            ),
        ] {
            assert!(WHOLE.contains(from), "{from}");
            let refused = Config::parse(&WHOLE.replacen(from, to, 1));
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(said), "{to}: {text}");
            assert!(!text.contains("geheim") && !text.contains("4711"), "{text}");
        }
    }
}
