//! Who the user is at which registry.
//!
//! Guarantees: credentials given by hand go to the one registry they were given for; every other
//! registry gets what the Docker config has for it. `Debug` shows no secret.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};

/// The name under which Docker keeps the login of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where credentials come from.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum CredentialSource {
    /// From nowhere: every registry is asked as anybody.
    Anonymous,
    /// Given by hand for one registry; for the others as with [`Self::DockerConfig`].
    Explicit {
        /// As in [`uimgacc_types::ImageReference::registry`], such as `docker.io` or `host:5000`.
        registry: String,
        /// The user's name.
        username: String,
        /// The password or access token.
        password: String,
    },
    /// `$DOCKER_CONFIG/config.json`, by default `~/.docker/config.json`, with its helpers.
    #[default]
    DockerConfig,
    /// Another file of that format.
    DockerConfigFile(PathBuf),
    /// A folder with such a file: `config.json`, or `.dockerconfigjson` as Kubernetes names it in
    /// its Secrets. It is looked for each time, so a Secret may come later.
    DockerConfigFolder(PathBuf),
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Explicit {
                registry, username, ..
            } => f
                .debug_struct("Explicit")
                .field("registry", registry)
                .field("username", username)
                .field("password", &"[redacted]")
                .finish(),
            Self::DockerConfig => f.write_str("DockerConfig"),
            Self::DockerConfigFile(path) => f.debug_tuple("DockerConfigFile").field(path).finish(),
            Self::DockerConfigFolder(path) => {
                f.debug_tuple("DockerConfigFolder").field(path).finish()
            }
        }
    }
}

/// Why credentials cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CredentialError {
    /// The config file cannot be opened.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The config file has a wrong form.
    #[error("{} is no valid Docker config: {problem}", path.display())]
    Config {
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A credential helper failed.
    #[error("the credential helper named in {} failed: {problem}", path.display())]
    Helper {
        path: PathBuf,
        /// What it said, without its standard output.
        problem: String,
    },
    /// The thread that asked was cut short.
    #[error("the lookup was cut short")]
    Cancelled,
}

/// Credentials of one registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Password {
        username: String,
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([redacted])")
    }
}

impl CredentialSource {
    /// The credentials for `registry`, `None` where there are none. Runs helpers: may take a while.
    pub(crate) async fn lookup(
        &self,
        registry: &str,
    ) -> Result<Option<Credentials>, CredentialError> {
        let path = match self {
            Self::Anonymous => return Ok(None),
            Self::Explicit {
                registry: owner,
                username,
                password,
            } if owner == registry => {
                return Ok(Some(Credentials::Password {
                    username: username.clone(),
                    password: password.clone(),
                }));
            }
            Self::Explicit { .. } | Self::DockerConfig => match default_path() {
                Some(path) => path,
                None => return Ok(None),
            },
            Self::DockerConfigFile(path) => path.clone(),
            Self::DockerConfigFolder(folder) => {
                let names = ["config.json", ".dockerconfigjson"];
                let paths = names.map(|name| folder.join(name));
                match paths.into_iter().find(|path| path.exists()) {
                    Some(path) => path,
                    None => return Ok(None),
                }
            }
        };
        let registry = registry.to_owned();
        tokio::task::spawn_blocking(move || from_config(&path, &registry))
            .await
            .unwrap_or(Err(CredentialError::Cancelled))
    }
}

fn default_path() -> Option<PathBuf> {
    let folder = match std::env::var_os("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&std::env::var_os("HOME")?).join(".docker"),
    };
    Some(folder.join("config.json"))
}

fn from_config(path: &Path, registry: &str) -> Result<Option<Credentials>, CredentialError> {
    use CredentialRetrievalError as E;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(CredentialError::Read { path, source });
        }
    };
    let key = if registry == "docker.io" {
        DOCKER_HUB_KEY
    } else {
        registry
    };
    let config = |problem| CredentialError::Config {
        path: path.to_owned(),
        problem,
    };
    let helper = |problem: String| CredentialError::Helper {
        path: path.to_owned(),
        problem,
    };
    match docker_credential::get_credential_from_reader(BufReader::new(file), key) {
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credentials::IdentityToken(token))),
        // docker logout leaves empty entries behind.
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            let some = !username.is_empty() || !password.is_empty();
            Ok(some.then_some(Credentials::Password { username, password }))
        }
        Err(E::NoCredentialConfigured | E::ConfigNotFound) => Ok(None),
        // The words of every helper for "nobody is logged in there".
        Err(E::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {
            Ok(None)
        }
        Err(E::HelperFailure {
            helper: name,
            stderr,
            ..
        }) => {
            let said = crate::api_error::clean(Some(&stderr));
            Err(helper(format!("{name}: {said}")))
        }
        Err(E::HelperCommunicationError) => Err(helper("it cannot be run".to_owned())),
        Err(E::MalformedHelperResponse) => Err(helper("its answer makes no sense".to_owned())),
        Err(E::CredentialDecodingError) => {
            Err(config("an auth entry is not base64 of user:password"))
        }
        Err(E::CredentialMismatchError) => Err(config("auth differs from username and password")),
        Err(E::ConfigReadError) => Err(config("it is not JSON of the right form")),
    }
}

#[cfg(test)]
mod tests;
