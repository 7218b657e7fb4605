//! The target image's manifest: the original's with annotations, nothing else: pure.

use serde_json::{Map, Value, json};
use uimgacc_types::{ChainId, Digest};

/// containerd hands annotations with this prefix to the snapshotter as labels.
const PREFIX: &str = "containerd.io/snapshot/uimgacc.";
/// The media type of a target manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What the annotations say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotations {
    /// Chain ID of the whole image.
    pub chain_id: ChainId,
    /// Digest of its flattened index.
    pub index_digest: Digest,
    /// The store that has it.
    pub store_id: String,
}

impl Annotations {
    fn write(&self, object: &mut Map<String, Value>) {
        let annotations = object.entry("annotations").or_insert_with(|| json!({}));
        if !annotations.is_object() {
            *annotations = json!({});
        }
        for (name, value) in [
            ("chain-id", self.chain_id.to_string()),
            ("index-digest", self.index_digest.to_string()),
            ("store-id", self.store_id.clone()),
        ] {
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.insert(format!("{PREFIX}{name}"), value.into());
            }
        }
    }
}

/// Docker's media types have no place for annotations; these are OCI's names for the same bytes.
fn oci_type(docker: &str) -> Option<&'static str> {
    Some(match docker {
        "application/vnd.docker.container.image.v1+json" => {
            "application/vnd.oci.image.config.v1+json"
        }
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.v1.tar+gzip"
        }
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            "application/vnd.oci.image.layer.v1.tar+zstd"
        }
        _ => return None,
    })
}

fn rename_type(descriptor: &mut Map<String, Value>) {
    let named = descriptor
        .get("mediaType")
        .and_then(Value::as_str)
        .and_then(oci_type);
    if let Some(named) = named {
        descriptor.insert("mediaType".to_owned(), named.into());
    }
}

/// Writes the target's manifest from the original's bytes. Fields that are not known here stay.
///
/// # Errors
/// The bytes are no manifest with a config and layers.
pub fn manifest(original: &[u8], annotations: &Annotations) -> Result<Vec<u8>, serde_json::Error> {
    use serde::de::Error as _;
    let mut manifest: Map<String, Value> = serde_json::from_slice(original)?;
    manifest.insert("schemaVersion".to_owned(), 2.into());
    manifest.insert("mediaType".to_owned(), MANIFEST_TYPE.into());
    manifest
        .get_mut("config")
        .and_then(Value::as_object_mut)
        .map(rename_type)
        .ok_or_else(|| serde_json::Error::custom("it has no config"))?;
    let layers = manifest
        .get_mut("layers")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| serde_json::Error::custom("it has no layers"))?;
    for layer in layers {
        let layer = layer
            .as_object_mut()
            .ok_or_else(|| serde_json::Error::custom("a layer of it is no descriptor"))?;
        rename_type(layer);
        annotations.write(layer);
    }
    annotations.write(&mut manifest);
    serde_json::to_vec(&manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_becomes_oci_and_unknown_fields_stay() {
        let original = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 1, "digest": "sha256:c"},
            "layers": [
                {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 2, "digest": "sha256:l", "x": 1},
                {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "size": 3, "digest": "sha256:m", "annotations": {"a": "b"}},
            ],
            "subject": {"y": 2},
        });
        let annotations = Annotations {
            chain_id: ChainId::from_bytes([1; 32]),
            index_digest: Digest::from_bytes([2; 32]),
            store_id: "s".to_owned(),
        };
        let bytes = manifest(original.to_string().as_bytes(), &annotations).unwrap();
        let target: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(target["mediaType"], MANIFEST_TYPE);
        assert_eq!(
            target["config"]["mediaType"],
            "application/vnd.oci.image.config.v1+json"
        );
        assert_eq!(
            target["layers"][0]["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        assert_eq!(target["layers"][0]["x"], 1);
        assert_eq!(target["layers"][1]["annotations"]["a"], "b");
        assert_eq!(target["subject"]["y"], 2);
        for place in [&target, &target["layers"][0], &target["layers"][1]] {
            assert_eq!(
                place["annotations"]["containerd.io/snapshot/uimgacc.chain-id"],
                annotations.chain_id.to_string()
            );
        }
        assert_eq!(
            bytes,
            manifest(original.to_string().as_bytes(), &annotations).unwrap()
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let annotations = Annotations {
            chain_id: ChainId::from_bytes([1; 32]),
            index_digest: Digest::from_bytes([2; 32]),
            store_id: "s".to_owned(),
        };
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"config":{}}"#,
            r#"{"config":{},"layers":[1]}"#,
        ] {
            assert!(manifest(bad.as_bytes(), &annotations).is_err(), "{bad}");
        }
    }
}
