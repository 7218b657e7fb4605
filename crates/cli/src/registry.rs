//! How this program talks to registries by itself.

use std::io::Read as _;

use anyhow::Context as _;
use clap::Args;
use uimgacc_registry::{CredentialSource, PlainHttp};
use uimgacc_types::ImageReference;

/// TLS and credentials.
#[derive(Debug, Args)]
pub(crate) struct RegistryArguments {
    /// Talk to the target's registry by HTTP without TLS; to the original's only where it is the
    /// same, or an address of this machine or a private network.
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Talk to this registry by HTTP without TLS; may be given several times.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) plain_http_registry: Vec<String>,
    /// User name at the target's registry (with --no-push: the original's); for others, and by
    /// default, what `docker login` stored is used.
    #[arg(long, requires = "password_stdin")]
    pub(crate) username: Option<String>,
    /// Read the password from standard input.
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

impl RegistryArguments {
    pub(crate) fn is_given(&self) -> bool {
        self.plain_http || !self.plain_http_registry.is_empty() || self.username.is_some()
    }

    /// The registries without TLS. Docker Hub is none, whatever is asked for.
    pub(crate) fn plain(&self, original: &ImageReference, target: &ImageReference) -> PlainHttp {
        let mut plain = self.plain_http_registry.clone();
        if self.plain_http {
            plain.push(target.registry().to_owned());
            if uimgacc_registry::is_near(original.registry()) {
                plain.push(original.registry().to_owned());
            }
        }
        PlainHttp::registries(plain)
    }

    /// The credentials for the registry of `image`; reads the password where one is announced.
    pub(crate) fn credentials(&self, image: &ImageReference) -> anyhow::Result<CredentialSource> {
        let Some(username) = self.username.clone() else {
            return Ok(CredentialSource::DockerConfig);
        };
        let mut password = String::new();
        std::io::stdin()
            .take(64 << 10)
            .read_to_string(&mut password)
            .context("cannot read the password from standard input")?;
        Ok(CredentialSource::Explicit {
            registry: image.registry().to_owned(),
            username,
            password: password.trim_end_matches(['\r', '\n']).to_owned(),
        })
    }
}
