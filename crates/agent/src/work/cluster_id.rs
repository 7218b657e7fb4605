//! Tells clusters apart that share a store.

use k8s_openapi::api::core::v1::Namespace;
use kube::Client as Kube;
use kube::api::Api;

use super::failure::Failure;
use super::retry::read;

/// The namespace that lasts as long as its cluster. An `ImageAcceleration` does not: `disable` and the
/// next `enable` replace it.
const LASTING: &str = "kube-system";

/// The uid of the cluster.
pub(super) async fn cluster_id(kube: &Kube) -> Result<String, Failure> {
    let namespaces: Api<Namespace> = Api::all(kube.clone());
    let namespace = read(&namespaces, LASTING).await?;
    Ok(namespace.metadata.uid.unwrap_or_default())
}
