use proptest::prelude::*;
use serde_json::json;

use super::*;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn descriptor(media_type: &str) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": Digest::of(b"x"), "size": 1})
}

fn image() -> serde_json::Value {
    json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+zstd")],
        "annotations": null,
    })
}

fn kind(header: Option<&str>, value: &serde_json::Value) -> Result<String, String> {
    media_type_of(header, value.to_string().as_bytes()).map_err(|e| e.to_string())
}

#[test]
fn the_document_goes_before_the_header() {
    let mut value = image();
    assert_eq!(kind(Some(OCI), &value).as_deref(), Ok(OCI));
    assert_eq!(kind(None, &value).as_deref(), Ok(OCI));
    let header = format!("{DOCKER}; charset=utf-8");
    assert_eq!(kind(Some(&header), &value).as_deref(), Ok(DOCKER));
    value["mediaType"] = DOCKER.into();
    assert_eq!(kind(Some("text/plain"), &value).as_deref(), Ok(DOCKER));
    assert!(
        kind(Some(OCI), &value)
            .unwrap_err()
            .contains("calls itself")
    );
    assert_eq!(kind(None, &json!({"manifests": []})).as_deref(), Ok(INDEX));
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let old = json!({"schemaVersion": 1, "fsLayers": []});
    assert!(kind(None, &old).unwrap_err().contains("schema 1"));
    let both = json!({"manifests": [], "layers": []});
    assert!(kind(Some(INDEX), &both).unwrap_err().contains("at once"));
    assert!(kind(Some(INDEX), &image()).unwrap_err().contains(INDEX));
    assert!(media_type_of(None, b"no json").is_err());

    let mut chart = image();
    chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    let error = parse(OCI, chart.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("helm"), "{error}");

    let mut many = image();
    many["layers"] = vec![many["layers"][0].clone(); MAX_LAYERS + 1].into();
    let error = parse(OCI, many.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("1001 layers"), "{error}");
}

#[test]
fn layers_tell_how_they_are_packed() {
    let Document::Image(manifest) = parse(OCI, image().to_string().as_bytes()).unwrap() else {
        panic!("an image");
    };
    assert_eq!(
        manifest.layers[0].layer_encoding(),
        Some(LayerEncoding::Zstd)
    );
    assert_eq!(manifest.config.layer_encoding(), None);
    for (text, expected) in [
        (
            "application/vnd.oci.image.layer.v1.tar",
            Some(MediaType::Layer(LayerEncoding::Plain)),
        ),
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Some(MediaType::Layer(LayerEncoding::Gzip)),
        ),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            Some(MediaType::ForeignLayer),
        ),
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
            Some(MediaType::ForeignLayer),
        ),
        ("application/vnd.oci.image.layer.v1.tar+lz4", None),
    ] {
        assert_eq!(MediaType::parse(text), expected, "{text}");
    }
}

#[test]
fn an_index_gives_its_platforms() {
    let mut arm = descriptor(OCI);
    arm["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
    let bytes = json!({"schemaVersion": 2, "manifests": [arm, descriptor(OCI)]}).to_string();
    let Document::Index(entries) = parse(INDEX, bytes.as_bytes()).unwrap() else {
        panic!("an index");
    };
    assert_eq!(entries[0].platform, Some("linux/arm64".parse().unwrap()));
    assert_eq!(entries[1].platform, None);
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(media_type_of(Some(OCI), &bytes).is_err());
        prop_assert!(parse(INDEX, &bytes).is_err());
    }

    #[test]
    fn cut_manifests(cut in 0_usize..300) {
        let whole = image().to_string();
        let cut = cut.min(whole.len() - 1);
        prop_assert!(parse(OCI, &whole.as_bytes()[..cut]).is_err());
    }
}
