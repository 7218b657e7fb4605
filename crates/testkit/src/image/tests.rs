//! What was pushed is what skopeo finds in the registry.

use std::process::Command;

use super::{Compression, ImageBuilder, MediaTypes, chain_ids, push_index};
use crate::process::run;
use crate::tar::TarBuilder;
use crate::{Need, Registry, parts, ready};

fn inspect(reference: &str) -> Vec<u8> {
    let mut command = Command::new(parts::program("skopeo"));
    run(command.args([
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{reference}"),
    ]))
    .stdout
}

#[test]
fn images_of_all_makes_arrive_unchanged() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let layer = || TarBuilder::new().file("a", 0o644, "hello").finish();
    let oci = ImageBuilder::new()
        .layer(layer(), Compression::None)
        .layer(layer(), Compression::Gzip)
        .layer(layer(), Compression::Zstd);
    let oci = oci.push(&registry, "make/oci:1");
    let docker = ImageBuilder::new()
        .layer(layer(), Compression::Gzip)
        .layer(layer(), Compression::None)
        .media_types(MediaTypes::Docker);
    let docker = docker
        .architecture("arm64")
        .push(&registry, "make/docker:1");
    for pushed in [&oci, &docker] {
        assert_eq!(inspect(&pushed.reference), pushed.manifest);
        assert!(
            pushed
                .layers
                .iter()
                .all(|layer| registry.blob_file(&layer.digest[7..]).exists())
        );
    }
    assert_eq!(oci.layers[0].digest, oci.layers[0].diff_id);
    assert_ne!(oci.layers[1].digest, oci.layers[1].diff_id);
    assert_eq!(oci.layers[1].diff_id, oci.layers[2].diff_id);

    let index = push_index(&registry, "make/oci:all", MediaTypes::Oci, &[&oci]);
    assert_eq!(
        super::digest(&inspect(&registry.reference("make/oci:all"))),
        index
    );
}

#[test]
fn an_image_goes_to_a_registry_with_a_password() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let registry = Registry::start_with_htpasswd("anna", "s3cret");
    let pushed = ImageBuilder::new()
        .layer(TarBuilder::new().finish(), Compression::Gzip)
        .push(&registry, "private:1");
    assert!(registry.blob_file(&pushed.config_digest[7..]).exists());
}

#[test]
fn chain_ids_are_those_of_the_specification() {
    let ids: Vec<String> = ["a", "b"]
        .iter()
        .map(|name| super::digest(name.as_bytes()))
        .collect();
    let chain = chain_ids(&ids);
    assert_eq!(chain[0], ids[0]);
    // printf '%s %s' "$(digest a)" "$(digest b)" | sha256sum
    assert_eq!(
        chain[1],
        super::digest(format!("{} {}", ids[0], ids[1]).as_bytes())
    );
}
