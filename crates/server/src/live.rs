//! What the server works with just now; replaced as a whole when its configuration changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::access::Access;
use crate::clusters::Clusters;
use crate::config::{Config, Tls};

/// A configuration with all that it names.
#[derive(Debug)]
pub struct Live {
    /// The configuration.
    pub config: Config,
    /// Keys and rights.
    pub access: Access,
    /// The clusters.
    pub clusters: Clusters,
    /// TLS; `None`: plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
}

/// A configuration that was read and checked, with its files.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    access: Access,
    tls: Option<Arc<ServerConfig>>,
    /// All files that it was read from, without the kubeconfigs.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// Reads and checks it.
    ///
    /// # Errors
    /// What is wrong, and in which file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let config = Config::parse(&text).with_context(|| path.display().to_string())?;
        let access = config
            .access(|path| std::fs::read_to_string(path))
            .with_context(|| path.display().to_string())?;
        let tls = config.tls.as_ref().map(tls).transpose()?;
        let mut files = vec![path.to_owned()];
        files.extend(
            config
                .keys
                .iter()
                .filter_map(|key| key.private_key_file.clone()),
        );
        if let Some(tls) = &config.tls {
            files.extend([tls.certificate.clone(), tls.key.clone()]);
        }
        Ok(Self {
            config,
            access,
            tls,
            files,
        })
    }

    /// Connects the clusters; those of `old` that are configured the same go on.
    #[must_use]
    pub fn start(self, old: &Clusters) -> Live {
        Live {
            clusters: Clusters::new(&self.config.clusters, old),
            config: self.config,
            access: self.access,
            tls: self.tls,
        }
    }
}

/// TLS 1.2 and 1.3 with that certificate.
fn tls(files: &Tls) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| {
            format!(
                "cannot read the certificate {}",
                files.certificate.display()
            )
        })?;
    anyhow::ensure!(
        !chain.is_empty(),
        "there is no certificate in {}",
        files.certificate.display()
    );
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("cannot read the key {}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| {
            format!(
                "the key {} and the certificate {} cannot be used together",
                files.key.display(),
                files.certificate.display()
            )
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
