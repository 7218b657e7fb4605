//! What who may create images, or only look at them, does not get.

use std::process::Command;

use serde_json::{Value, json};
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::image::Pushed;
use uimgacc_testkit::{Registry, parts};

use crate::fixture::{ClusterFixture, LABELS, MINUTE, app, app_in, pod, ready};

const USER: &str = "anna";
const PASSWORD: &str = "s3cret";
/// `USER:PASSWORD` in base64.
const AUTH: &str = "YW5uYTpzM2NyZXQ=";

#[test]
fn nobody_who_only_looks_learns_a_chain() {
    if !ready() {
        return;
    }
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1]);
    fixture.enable(&[]);
    nobody_learns_a_chain(&fixture);
}

#[test]
fn private_images_stay_where_they_are() {
    if !ready() {
        return;
    }
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1]);
    let address = fixture.cluster.address();
    let private = Registry::start_with_htpasswd_on(address, USER, PASSWORD);
    let foreign = Registry::start_on(address);
    fixture.enable(&[
        "--plain-http-registry",
        &format!("{},{}", private.address(), foreign.address()),
    ]);
    a_private_image_is_not_pushed_elsewhere(&fixture, &private, &foreign);
}

/// Everything that the role `view` may read, while a Pod runs from the store.
fn nobody_learns_a_chain(fixture: &ClusterFixture) {
    let cluster = &fixture.cluster;
    let image = app(fixture, "app:1", 1);
    fixture.create("app:1", "app:fast");
    let target = fixture.reference("app:fast");
    cluster.apply(&pod(
        "fast",
        &target,
        Some(LABELS[0]),
        None,
        "cat /data/name-2; sleep 600",
    ));
    cluster.wait("condition=Ready", &["pod/fast"], MINUTE);
    fixture.wait_until("the node reports what it holds", MINUTE, || {
        let nodes = cluster.get(&["accelerationnodes"]);
        let held = &nodes["items"][0]["status"]["chains"];
        held.as_array()
            .is_some_and(|held| held.iter().any(|one| one["containers"] == 1))
    });
    cluster.kubectl_ok(&[
        "create",
        "clusterrolebinding",
        "looks",
        "--clusterrole=view",
        "--user=looks",
    ]);
    let hidden: Vec<&str> = image
        .layers
        .iter()
        .flat_map(|layer| [&layer.diff_id, &layer.chain_id, &layer.digest])
        .map(|digest| digest.trim_start_matches("sha256:"))
        .collect();
    let (looked, seen) = everything_seen(fixture, "looks");
    assert!(looked > 10, "{looked} kinds");
    for digest in hidden {
        assert!(!seen.contains(digest), "{digest} in\n{seen}");
    }
    for part in [
        "acceleratedimages.uimgacc.io",
        "accelerationnodes.uimgacc.io",
        "chain:",
        "uimgacc-convert-",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    assert_eq!(fixture.json(&["get"])["Images"][0]["ChainId"], Value::Null);
    // Nodes give back what they hold by these tokens, and the space goes.
    cluster.kubectl_ok(&["delete", "pod", "fast", "--wait"]);
    fixture.ok(&["delete", &target]);
    fixture.assert_clean();
}

/// All objects and logs of Pods that a user may read, and of how many kinds.
fn everything_seen(fixture: &ClusterFixture, user: &str) -> (usize, String) {
    let cluster = &fixture.cluster;
    let user = format!("--as={user}");
    let kinds = cluster.kubectl_ok(&["api-resources", "--verbs=list", "-o", "name"]);
    let mut seen = String::new();
    let mut looked = 0;
    for kind in kinds.lines() {
        let output = cluster.kubectl(&["get", kind, "-A", "-o", "json", &user]);
        if output.status.success() {
            looked += 1;
            seen.push_str(&format!(
                "--- {kind}\n{}",
                String::from_utf8_lossy(&output.stdout)
            ));
        }
    }
    let pods = cluster.get(&["pods", "-A"]);
    for pod in pods["items"].as_array().unwrap() {
        let of = |key: &str| pod["metadata"][key].as_str().unwrap();
        let output = cluster.kubectl(&["logs", "-n", of("namespace"), of("name"), &user]);
        let log = String::from_utf8_lossy(&output.stdout);
        seen.push_str(&format!("--- log of {}\n{log}", of("name")));
    }
    (looked, seen)
}

/// Somebody has a Secret's name and a registry of their own.
fn a_private_image_is_not_pushed_elsewhere(
    fixture: &ClusterFixture,
    private: &Registry,
    foreign: &Registry,
) {
    let cluster = &fixture.cluster;
    let image = app_in(private, "payroll:1", 2);
    let config = json!({"auths": {private.address(): {"auth": AUTH}}}).to_string();
    cluster.apply(
        &json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "payroll", "namespace": "kube-system"},
            "stringData": {".dockerconfigjson": config}})
        .to_string(),
    );
    let stolen = foreign.reference("stolen:1");
    let theft = json!({"apiVersion": "uimgacc.io/v1", "kind": "AcceleratedImage", "metadata": {"name": "theft"},
        "spec": {"originalImage": image.reference, "targetImage": stolen, "pullSecret": {"name": "payroll"}}})
    .to_string();
    let file = cluster.dir().join("theft.json");
    std::fs::write(&file, &theft).unwrap();
    let create = ["create", "-f", file.to_str().unwrap()];

    // With the policy it is not even an object.
    let output = cluster.kubectl(&create);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("has no allowedTargets"),
        "{said}"
    );
    let words = [
        "create",
        &image.reference,
        &stolen,
        "--pull-secret",
        "payroll",
    ];
    let message = fixture.failed(&words, 1);
    assert!(message.contains("--allow-target"), "{message}");

    // Without it the agent starts no Job.
    cluster.kubectl_ok(&[
        "delete",
        "validatingadmissionpolicybinding",
        "uimgacc-targets",
    ]);
    fixture.wait_until("the policy is gone", MINUTE, || {
        cluster.kubectl(&create).status.success()
    });
    let reason = || {
        let image = cluster.get(&["acceleratedimage", "theft"]);
        let all = image["status"]["conditions"].as_array().cloned();
        let mut all = all.unwrap_or_default().into_iter();
        let found = all.find(|one| one["type"] == "Progressing");
        found.unwrap_or_default()["reason"].clone()
    };
    fixture.wait_until("the refusal", MINUTE, || reason() == "TargetNotAllowed");
    // Nor where the target is allowed and the Secret is not.
    let allowed = format!("{},{}", foreign.address(), private.address());
    fixture.ok(&["enable", "--allow-target", &allowed, "--timeout", "120"]);
    fixture.wait_until("the other refusal", MINUTE, || {
        reason() == "PullSecretNotAllowed"
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(!is_there(&stolen), "{}", foreign.log());
    // By our user agent: skopeo pushed it before.
    let requests = private.log();
    assert!(
        !requests.contains("uimgacc/"),
        "nobody asked for it: {requests}"
    );

    // With both, and only then, it is made; nothing else must be done.
    cluster.kubectl_ok(&[
        "label",
        "secret",
        "-n",
        "kube-system",
        "payroll",
        "uimgacc.io/pull-secret=true",
    ]);
    fixture.wait_until("the image", 2 * MINUTE, || {
        cluster.get(&["acceleratedimage", "theft"])["status"]["phase"] == "Ready"
    });
    assert!(is_there(&stolen));
    an_original_that_is_not_listed(fixture, &image, private);
}

/// A target may be allowed without its registry's originals being so.
fn an_original_that_is_not_listed(fixture: &ClusterFixture, image: &Pushed, private: &Registry) {
    let target = private.reference("copies/payroll:fast");
    let allowed = private.reference("copies:x").replace(":x", "");
    fixture.ok(&[
        "enable",
        "--allow-target",
        &allowed,
        "--credentials-for",
        &allowed,
        "--timeout",
        "120",
    ]);
    let create = [
        "create",
        &image.reference,
        &target,
        "--pull-secret",
        "payroll",
    ];
    let message = fixture.failed(&create, 1);
    for part in ["credentialsFor", "does not cover it", "401"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    fixture.ok(&[
        "enable",
        "--credentials-for",
        &private.address(),
        "--timeout",
        "120",
    ]);
    fixture.ok(&create);
}

/// Whether a registry without a password has that image.
fn is_there(reference: &str) -> bool {
    let mut skopeo = Command::new(parts::program("skopeo"));
    skopeo.args(["inspect", "--raw", "--tls-verify=false"]);
    let output = skopeo
        .arg(format!("docker://{reference}"))
        .output()
        .unwrap();
    output.status.success()
}
