//! What `enable` applies besides the user's own objects: the files of `deploy/base`.
//!
//! The same files serve those who apply them by kustomize. The definitions among them are made from
//! `uimgacc-objects`; a test tells where they are out of date.

use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize as _;
use serde_json::Value;
use uimgacc_objects::names;

use crate::error::Error;

/// Our own image, of this version; without a host it lies on Docker Hub.
pub const DEFAULT_IMAGE: &str = concat!("uimgacc/uimgacc:", env!("CARGO_PKG_VERSION"));

/// The definitions, in files of their own.
pub(crate) const DEFINITIONS: [(&str, &str); 4] = [
    (
        "imageaccelerations",
        include_str!("../../../deploy/base/crds/imageaccelerations.yaml"),
    ),
    (
        "acceleratedimages",
        include_str!("../../../deploy/base/crds/acceleratedimages.yaml"),
    ),
    (
        "accelerationnodes",
        include_str!("../../../deploy/base/crds/accelerationnodes.yaml"),
    ),
    (
        "startrecords",
        include_str!("../../../deploy/base/crds/startrecords.yaml"),
    ),
];
const RBAC: &str = include_str!("../../../deploy/base/rbac.yaml");
const AGENT: &str = include_str!("../../../deploy/base/agent.yaml");
const POLICY: &str = include_str!("../../../deploy/policy/policy.yaml");

/// One object of the files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) resource: ApiResource,
    pub(crate) object: Value,
}

impl Manifest {
    fn new(object: Value) -> Result<Self, Error> {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        if object["metadata"]["name"]
            .as_str()
            .is_none_or(str::is_empty)
            || kind.is_empty()
        {
            return Err(malformed("an object has no kind or name"));
        }
        Ok(Self { resource, object })
    }

    pub(crate) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str()
    }

    /// `deployment uimgacc-agent`, for messages.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.resource.kind, self.name())
    }
}

fn malformed(problem: &str) -> Error {
    Error::Invalid {
        message: format!("the manifests within this program are malformed: {problem}"),
        hint: "this is a fault of uimgacc; please report it".to_owned(),
    }
}

fn parse(text: &str) -> Result<Vec<Manifest>, Error> {
    serde_norway::Deserializer::from_str(text)
        .map(Value::deserialize)
        .map(|object| object.map_err(|error| malformed(&error.to_string())))
        // A document of comments alone.
        .filter(|object| !matches!(object, Ok(Value::Null)))
        .map(|object| Manifest::new(object?))
        .collect()
}

/// The definitions of our kinds.
pub(crate) fn definitions() -> Result<Vec<Manifest>, Error> {
    let mut all = Vec::new();
    for (_, text) in DEFINITIONS {
        all.extend(parse(text)?);
    }
    Ok(all)
}

/// Accounts, roles and the agent, which runs from `image`; in the order in which they are applied.
pub(crate) fn static_objects(image: &str) -> Result<Vec<Manifest>, Error> {
    let mut all = parse(RBAC)?;
    all.extend(parse(AGENT)?);
    for manifest in &mut all {
        if manifest.resource.kind == "Deployment" && manifest.name() == names::AGENT {
            manifest.object["spec"]["template"]["spec"]["containers"][0]["image"] =
                Value::String(image.to_owned());
        }
    }
    Ok(all)
}

/// The policy for admission, for clusters that know such.
pub(crate) fn policy() -> Result<Vec<Manifest>, Error> {
    parse(POLICY)
}

/// Objects as YAML, one document each.
///
/// # Errors
/// One cannot be written.
pub fn yaml<T: serde::Serialize>(objects: &[T]) -> Result<String, Error> {
    let mut text = String::new();
    for object in objects {
        let one = serde_norway::to_string(object).map_err(|error| malformed(&error.to_string()))?;
        text.push_str("---\n");
        text.push_str(&one);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UIMGACC_UPDATE=1 cargo test -p uimgacc-control definitions` writes the files anew.
    #[test]
    fn definitions_are_up_to_date() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/base/crds");
        for definition in uimgacc_objects::definitions() {
            let plural = &definition.spec.names.plural;
            let text = format!(
                "# Made from crates/objects: UIMGACC_UPDATE=1 cargo test -p uimgacc-control definitions\n{}",
                serde_norway::to_string(&definition).unwrap()
            );
            if std::env::var_os("UIMGACC_UPDATE").is_some() {
                std::fs::write(format!("{folder}/{plural}.yaml"), &text).unwrap();
                continue;
            }
            let (_, file) = DEFINITIONS
                .iter()
                .find(|(name, _)| name == plural)
                .expect("a file for each kind");
            assert!(
                *file == text,
                "deploy/base/crds/{plural}.yaml is out of date; run UIMGACC_UPDATE=1 cargo test -p uimgacc-control definitions"
            );
        }
    }

    #[test]
    fn everything_is_labelled_and_in_our_namespace() {
        let mut all = static_objects("registry.example.com/uimgacc:7").unwrap();
        all.extend(policy().unwrap());
        assert!(all.len() >= 14, "{}", all.len());
        for manifest in &all {
            assert_eq!(
                manifest.object["metadata"]["labels"][names::PART_OF_LABEL],
                names::PART_OF,
                "{}",
                manifest.title()
            );
            if let Some(namespace) = manifest.namespace() {
                assert_eq!(namespace, names::NAMESPACE);
            }
        }
        let agent = all
            .iter()
            .find(|manifest| manifest.resource.kind == "Deployment")
            .unwrap();
        let container = &agent.object["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "registry.example.com/uimgacc:7");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    }

    #[test]
    fn the_files_name_this_version() {
        assert!(
            AGENT.contains(DEFAULT_IMAGE),
            "deploy/base/agent.yaml must run {DEFAULT_IMAGE}"
        );
        for example in [
            include_str!("../../../deploy/examples/nfs/acceleration.yaml"),
            include_str!("../../../deploy/examples/host-path/acceleration.yaml"),
            include_str!("../../../deploy/examples/persistent-volume-claim/acceleration.yaml"),
        ] {
            assert!(example.contains(DEFAULT_IMAGE));
            let object = parse(example).unwrap().remove(0).object;
            serde_json::from_value::<uimgacc_objects::ImageAcceleration>(object).unwrap();
        }
        let image = parse(include_str!("../../../deploy/examples/image.yaml")).unwrap();
        serde_json::from_value::<uimgacc_objects::AcceleratedImage>(image[0].object.clone())
            .unwrap();
    }

    #[test]
    fn plurals_are_those_of_kubernetes() {
        let plurals: std::collections::BTreeSet<String> = definitions()
            .unwrap()
            .into_iter()
            .chain(static_objects(DEFAULT_IMAGE).unwrap())
            .chain(policy().unwrap())
            .map(|manifest| manifest.resource.plural)
            .collect();
        assert_eq!(
            plurals.iter().map(String::as_str).collect::<Vec<_>>(),
            [
                "clusterrolebindings",
                "clusterroles",
                "customresourcedefinitions",
                "deployments",
                "poddisruptionbudgets",
                "rolebindings",
                "roles",
                "serviceaccounts",
                "validatingadmissionpolicies",
                "validatingadmissionpolicybindings",
            ]
        );
    }
}
