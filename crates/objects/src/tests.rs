#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn definitions_have_what_kubectl_needs() {
    let definitions = definitions();
    let text = serde_json::to_string(&definitions).unwrap();
    for definition in &definitions {
        assert_eq!(definition.spec.group, names::GROUP);
        assert_eq!(definition.spec.scope, "Cluster");
        // Its columns are for who looks why one stays.
        if definition.spec.names.kind == "StartRecord" {
            continue;
        }
        let version = &definition.spec.versions[0];
        assert!(version.subresources.as_ref().unwrap().status.is_some());
        assert!(version.additional_printer_columns.as_ref().unwrap().len() >= 4);
    }
    assert!(text.contains("x-kubernetes-validations"));
    assert!(text.contains("must be named default"));
    assert!(text.contains("exactly one of nfs"));
    assert!(text.contains("images cannot be changed"));
    assert!(text.contains("records cannot be changed"));
}

#[test]
fn a_small_spec_has_defaults() {
    let spec: ImageAccelerationSpec = serde_norway::from_str(
        "{store: {nfs: {servers: [10.0.0.1]}}, image: 'registry/uimgacc:1'}",
    )
    .unwrap();
    assert_eq!(spec.max_conversions, 2);
    assert_eq!(spec.fallback, Fallback::Registry);
    assert_eq!(spec.store.nfs.unwrap().path, "/");
    assert_eq!(spec.node_paths.bin_dir, "/usr/local/bin");
    assert_eq!(AcceleratedImageStatus::default().phase, Phase::Creating);
}
