//! check, before and after `enable`.

use serde_json::{Value, json};
use uimgacc_testkit::cluster::Cluster;

use crate::support::{
    all_is_well, control_plane, failed, machine, ok, patch_status, ready, stdout, uimgacc,
};

fn outcomes(cluster: &Cluster, arguments: &[&str]) -> Vec<(String, String)> {
    let output = uimgacc(cluster, &[arguments, &["-o", "json"]].concat());
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.iter()
        .map(|one| (text(&one["Title"]), text(&one["Outcome"])))
        .collect()
}

fn of<'a>(all: &'a [(String, String)], part: &str) -> &'a str {
    let found = all.iter().find(|(title, _)| title.contains(part));
    found.map_or("missing", |(_, outcome)| outcome)
}

#[test]
fn before_and_after_enable() {
    if !ready() {
        return;
    }
    let cluster = control_plane();
    let pre = ["check", "--pre", "--pvc", "store"];
    let all = outcomes(&cluster, &pre);
    assert_eq!(of(&all, "there are Linux nodes"), "Fail");
    assert_eq!(of(&all, "you may enable"), "Pass");
    assert_eq!(of(&all, "kube-system/store"), "Fail");
    machine(&cluster, "node-1");
    cluster.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: store, namespace: kube-system}, \
         spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}}",
    );
    let text = ok(&uimgacc(&cluster, &pre));
    for part in [
        "Kubernetes\n----------\n✓ the API answers",
        "✓ they run containerd 1.6",
        "‼ the claim kube-system/store",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let text = stdout(&uimgacc(&cluster, &["check"]));
    assert!(text.contains("× it is enabled"), "{text}");

    ok(&uimgacc(
        &cluster,
        &[
            "enable",
            "--pvc",
            "store",
            "--registry-secret",
            "mine",
            "--no-wait",
        ],
    ));
    let all = outcomes(&cluster, &["check"]);
    assert_eq!(of(&all, "definitions are those"), "Pass");
    for part in [
        "the agent runs",
        "store can be written",
        "all nodes",
        "has a leader",
        "kube-system/mine",
    ] {
        assert_eq!(of(&all, part), "Fail", "{part}: {all:?}");
    }
    all_is_well(&cluster, 1);
    cluster.kubectl_ok(&[
        "-n",
        "kube-system",
        "create",
        "secret",
        "docker-registry",
        "mine",
        "--docker-server=r.io",
        "--docker-username=a",
        "--docker-password=b",
    ]);
    cluster.apply(
        "{apiVersion: uimgacc.io/v1, kind: AccelerationNode, metadata: {name: node-1}, spec: {}}",
    );
    patch_status(
        &cluster,
        &["accelerationnode", "node-1"],
        &json!({"mountMethod": "loop", "conditions": [crate::support::condition("Ready", "True", "Tested", "")]}),
    );
    let now = String::from_utf8(
        std::process::Command::new("date")
            .args(["-u", "+%Y-%m-%dT%H:%M:%S.000000Z"])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    cluster.apply(&format!(
        "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: uimgacc-agent, namespace: kube-system}}, \
         spec: {{holderIdentity: uimgacc-agent-1, leaseDurationSeconds: 15, renewTime: '{}'}}}}",
        now.trim()
    ));
    let output = uimgacc(&cluster, &["check"]);
    let text = ok(&output);
    assert!(
        text.contains("‼ nodes mount without a second page cache\n    node-1 (loop)"),
        "{text}"
    );
    // A definition that an older version brought.
    cluster.kubectl_ok(&[
        "patch", "crd", "acceleratedimages.uimgacc.io", "--type=json", "-p",
        r#"[{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/platform"},
            {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations", "value": []}]"#,
    ]);
    let output = uimgacc(&cluster, &["check"]);
    failed(&output, 1);
    assert!(
        stdout(&output).contains("acceleratedimages.uimgacc.io is of another version"),
        "{}",
        stdout(&output)
    );
}
