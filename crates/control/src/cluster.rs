//! A handle on one cluster.

use std::fmt::Debug;
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::api::{Api, DynamicObject, ListParams, ObjectList, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::ApiResource;
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;
use uimgacc_objects::names;

use crate::error::{Cause, Error, of_client};

/// Least minor version of Kubernetes 1.
pub const MIN_MINOR: u32 = 26;

/// Objects that one request lists.
const PAGE: u32 = 500;

/// Which cluster.
#[derive(Debug, Clone, Default)]
pub struct Connect {
    /// A kubeconfig; without it KUBECONFIG, `~/.kube/config`, then the Pod's own account.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; without it the current one.
    pub context: Option<String>,
}

/// Version of the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// `v1.30.2`.
    pub text: String,
    /// 1.
    pub major: u32,
    /// 30.
    pub minor: u32,
}

impl ServerVersion {
    fn new(info: &Info) -> Self {
        // Some providers write `27+`.
        let number = |text: &str| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        Self {
            text: info.git_version.clone(),
            major: number(&info.major),
            minor: number(&info.minor),
        }
    }

    /// Whether we can work with it.
    #[must_use]
    pub const fn is_supported(&self) -> bool {
        self.major > 1 || (self.major == 1 && self.minor >= MIN_MINOR)
    }
}

/// A handle on one cluster; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) client: Client,
    server: String,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Finds the cluster; nothing is sent yet.
    ///
    /// # Errors
    /// There is no kubeconfig, or it cannot be used.
    pub async fn connect(connect: &Connect) -> Result<Self, Error> {
        let config = config(connect).await?;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| Error::Kubeconfig {
            path: connect.kubeconfig.clone(),
            source: Cause::of(&error),
        })?;
        Ok(Self {
            client,
            server: server.trim_end_matches('/').to_owned(),
        })
    }

    /// Of a client that is there already, such as an agent's; `server` is for messages.
    #[must_use]
    pub fn new(client: Client, server: &str) -> Self {
        Self {
            client,
            server: server.to_owned(),
        }
    }

    /// The API server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The API server's version.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn version(&self) -> Result<ServerVersion, Error> {
        let info = self.client.apiserver_version().await;
        Ok(ServerVersion::new(&info.map_err(
            self.failed("ask for the version of Kubernetes"),
        )?))
    }

    /// The version, refused where it is too old for us.
    ///
    /// # Errors
    /// It does not answer or is older than 1.26.
    pub async fn supported_version(&self) -> Result<ServerVersion, Error> {
        let version = self.version().await?;
        if version.is_supported() {
            Ok(version)
        } else {
            Err(Error::TooOld {
                found: version.text,
            })
        }
    }

    pub(crate) fn failed(&self, action: &str) -> impl FnOnce(kube::Error) -> Error {
        move |error| of_client(&self.server, action, &error)
    }

    pub(crate) fn all<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    /// Those of our namespace.
    pub(crate) fn ours<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), names::NAMESPACE)
    }

    /// The object of that name; `None` where there is none, or where the kind itself is unknown.
    pub(crate) async fn find<K>(
        &self,
        api: &Api<K>,
        name: &str,
        action: &str,
    ) -> Result<Option<K>, Error>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        match api.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.failed(action)(error)),
        }
    }

    /// Lists all of a kind, page by page.
    pub(crate) async fn list<K>(
        &self,
        api: &Api<K>,
        params: ListParams,
        what: &str,
    ) -> Result<Vec<K>, Error>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        self.list_some(api, params, what, Some).await
    }

    /// What `choose` makes of the objects of a kind; only one page of them is in memory at a time.
    pub(crate) async fn list_some<K, T>(
        &self,
        api: &Api<K>,
        params: ListParams,
        what: &str,
        choose: impl Fn(K) -> Option<T>,
    ) -> Result<Vec<T>, Error>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut params = params.limit(PAGE);
        let mut items = Vec::new();
        loop {
            let page: ObjectList<K> = api
                .list(&params)
                .await
                .map_err(self.failed(&format!("list {what}")))?;
            items.extend(page.items.into_iter().filter_map(&choose));
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => params = params.continue_token(&token),
                _ => return Ok(items),
            }
        }
    }

    /// An API for objects of a kind known at run time only.
    pub(crate) fn dynamic(
        &self,
        resource: &ApiResource,
        namespace: Option<&str>,
    ) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    /// Server-side apply in our name.
    pub(crate) async fn apply<K>(
        &self,
        api: &Api<K>,
        name: &str,
        object: &impl serde::Serialize,
        what: &str,
    ) -> Result<K, Error>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        let object = serde_json::to_value(object).map_err(|error| Error::Invalid {
            message: format!("cannot write {what} as JSON: {error}"),
            hint: String::new(),
        })?;
        api.patch(name, &params, &Patch::Apply(&object))
            .await
            .map_err(self.failed(&format!("apply {what}")))
    }
}

async fn config(connect: &Connect) -> Result<Config, Error> {
    let options = KubeConfigOptions {
        context: connect.context.clone(),
        ..KubeConfigOptions::default()
    };
    let path = connect
        .kubeconfig
        .clone()
        .or_else(|| std::env::var_os("KUBECONFIG").map(PathBuf::from));
    let failed = |error: KubeconfigError| Error::Kubeconfig {
        path: path.clone(),
        source: Cause::of(&error),
    };
    if let Some(path) = &connect.kubeconfig {
        let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
        return Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(failed);
    }
    match Config::from_kubeconfig(&options).await {
        Ok(config) => Ok(config),
        Err(error) => {
            let is_missing = matches!(
                &error,
                KubeconfigError::FindPath
                    | KubeconfigError::ReadConfig(..)
                    | KubeconfigError::CurrentContextNotSet
            ) && std::env::var_os("KUBECONFIG").is_none()
                && connect.context.is_none();
            if !is_missing {
                return Err(failed(error));
            }
            Config::incluster().map_err(|_| Error::NoCluster)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let version = |major: &str, minor: &str| {
            ServerVersion::new(&Info {
                major: major.to_owned(),
                minor: minor.to_owned(),
                ..Info::default()
            })
        };
        assert!(!version("1", "25").is_supported());
        assert!(version("1", "26+").is_supported());
        assert!(version("1", "37").is_supported());
        assert!(version("2", "0").is_supported());
        assert!(!version("", "").is_supported());
    }
}
