//! The life of images: made, failed, made again, in use, given back, deleted.

use serde_json::{Value, json};
use uimgacc_testkit::ready;

use super::stage::{NEEDS, Stage, condition, http, node_condition};

const CHAIN: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[test]
fn images_are_made_fail_and_go() {
    if !ready(&NEEDS) {
        return;
    }
    let stage = Stage::start();
    let agent = stage.agent("one");
    stage.wait("one", "/readyz", || http(agent.port, "/readyz").0 == 200);

    // Before anything is enabled, an image says so.
    stage.create_image("early", "registry.example/app:early");
    stage.wait("one", "NotEnabled", || {
        condition(&stage.image("early"), "Progressing").1 == "NotEnabled"
    });
    assert_eq!(stage.image("early")["status"]["phase"], "Creating");

    a_wrong_address_is_told(&stage);
    stage.enable("one");
    stage.convert("one", "early", CHAIN);
    what_the_job_wrote_is_kept(&stage);
    a_job_that_came_late_is_removed(&stage);
    a_failure_is_told_and_not_repeated(&stage);
    what_died_goes_on(&stage);
    a_target_has_one_owner(&stage);
    an_image_in_use_stays(&stage);

    let log = stage.log("one");
    assert!(!log.to_lowercase().contains("forbidden"), "{log}");
    let metrics = http(agent.port, "/metrics").1;
    assert!(metrics.contains("uimgacc_controller_leader 1"), "{metrics}");
    assert!(
        metrics.contains("uimgacc_controller_images{phase=\"CreateError\"} 1"),
        "{metrics}"
    );
}

fn a_wrong_address_is_told(stage: &Stage) {
    stage.cluster.apply(
        "{apiVersion: uimgacc.io/v1, kind: ImageAcceleration, metadata: {name: default},
          spec: {store: {nfs: {servers: [10.9.9.9]}}, image: 'registry.example/uimgacc:1'}}",
    );
    let left =
        json!({"error": "nfs://10.9.9.9/ does not answer: check the address", "retry": true});
    stage.end_job("one", "uimgacc-init", 1, "Error", &left.to_string());
    // Some seconds later it is tried again.
    stage.wait("one", "StoreFailed", || {
        let (status, reason, message) =
            condition(&stage.object(&["imgaccel", "default"]), "NfsReady");
        reason == "StoreFailed" && status == "False" && message.contains("check the address")
    });
    stage.wait("one", "an event", || {
        let events = stage.events("default");
        events
            .iter()
            .any(|(reason, text)| reason == "StoreFailed" && text.contains("10.9.9.9"))
    });
    assert_eq!(
        condition(&stage.image("early"), "Progressing").1,
        "WaitingForStore"
    );
}

fn what_the_job_wrote_is_kept(stage: &Stage) {
    stage.wait("one", "its Job is gone", || {
        stage
            .object(&["job", "-n", "kube-system", "uimgacc-convert-early"])
            .is_null()
    });
    let image = stage.image("early");
    let status = &image["status"];
    assert_eq!(status["size"], 12345);
    assert_eq!(status["progress"]["percent"], 100);
    assert_eq!(status["chainToken"], CHAIN);
    assert_eq!(status["failures"], 0);
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["error"], Value::Null);
    assert_eq!(condition(&image, "Ready").0, "True");
    assert_eq!(image["metadata"]["finalizers"], json!(["uimgacc.io/store"]));
    stage.wait("one", "the events", || {
        let events = stage.events("early");
        ["Converting", "Ready"]
            .iter()
            .all(|wanted| events.iter().any(|(reason, _)| reason == wanted))
    });
}

/// As a leader makes it that does not know yet that it leads no more.
fn a_job_that_came_late_is_removed(stage: &Stage) {
    let before = stage.image("early");
    let uid = before["metadata"]["uid"].as_str().unwrap();
    for (component, uid) in [
        ("delete", uid),
        ("delete", "another"),
        ("convert", "another"),
    ] {
        let name = format!("uimgacc-{component}-early");
        let job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": "kube-system",
                "labels": {
                    "app.kubernetes.io/part-of": "uimgacc",
                    "app.kubernetes.io/component": component,
                },
                "annotations": {"uimgacc.io/image": "early", "uimgacc.io/image-uid": uid},
            },
            "spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "work", "image": "registry.example/uimgacc:1"}],
            }}},
        });
        stage.cluster.apply(&job.to_string());
        stage.wait("one", "the late Job is gone", || {
            stage.object(&["job", "-n", "kube-system", &name]).is_null()
        });
    }
    assert_eq!(stage.image("early")["status"], before["status"]);
}

fn a_failure_is_told_and_not_repeated(stage: &Stage) {
    stage.create_image("absent", "registry.example/absent:fast");
    let left =
        json!({"error": "registry.example/absent:1 is not there: check the name", "retry": false});
    stage.end_job(
        "one",
        "uimgacc-convert-absent",
        1,
        "Error",
        &left.to_string(),
    );
    stage.wait("one", "CreateError", || {
        stage.image("absent")["status"]["phase"] == "CreateError"
    });
    let image = stage.image("absent");
    let error = image["status"]["error"].as_str().unwrap();
    assert!(
        error.contains("check the name") && error.contains("delete the Job"),
        "{error}"
    );
    assert_eq!(image["status"]["failures"], 1);
    assert_eq!(condition(&image, "Ready").1, "CreateError");
    let described = stage.cluster.kubectl_ok(&["describe", "accimg", "absent"]);
    assert!(described.contains("check the name"), "{described}");

    // Whoever deletes the Job wants another attempt.
    stage.cluster.kubectl_ok(&[
        "delete",
        "job",
        "-n",
        "kube-system",
        "uimgacc-convert-absent",
    ]);
    stage.pod_of("one", "uimgacc-convert-absent");
    let job = stage.object(&["job", "-n", "kube-system", "uimgacc-convert-absent"]);
    assert_eq!(job["metadata"]["annotations"]["uimgacc.io/attempt"], "2");
    stage.end_job(
        "one",
        "uimgacc-convert-absent",
        1,
        "Error",
        &left.to_string(),
    );
    stage.wait("one", "two failures", || {
        stage.image("absent")["status"]["failures"] == 2
    });

    // So does whoever leaves a mark on the image, and the count begins anew.
    let mark = ["annotate", "accimg", "absent", "uimgacc.io/retry=1"];
    stage.cluster.kubectl_ok(&mark);
    stage.wait("one", "a new Job", || {
        let job = stage.object(&["job", "-n", "kube-system", "uimgacc-convert-absent"]);
        job["metadata"]["annotations"]["uimgacc.io/attempt"] == "1"
    });
    stage.end_job(
        "one",
        "uimgacc-convert-absent",
        1,
        "Error",
        &left.to_string(),
    );
    stage.wait("one", "one failure", || {
        stage.image("absent")["status"]["failures"] == 1
    });
}

fn what_died_goes_on(stage: &Stage) {
    stage.create_image("killed", "registry.example/killed:fast");
    stage.end_job("one", "uimgacc-convert-killed", 137, "OOMKilled", "");
    stage.wait("one", "Restarting", || {
        let image = stage.image("killed");
        let (_, reason, message) = condition(&image, "Progressing");
        reason == "Restarting"
            && message.contains("memory")
            && image["status"]["phase"] == "Creating"
    });
    stage.convert("one", "killed", &CHAIN.replace('a', "b"));
    let events = stage.events("killed");
    assert!(
        events.iter().any(|(reason, _)| reason == "ConversionDied"),
        "{events:?}"
    );
}

fn a_target_has_one_owner(stage: &Stage) {
    stage.create_image("second", "registry.example/app:early");
    stage.wait("one", "TargetTaken", || {
        condition(&stage.image("second"), "Progressing").1 == "TargetTaken"
    });
    let error = stage.image("second")["status"]["error"].to_string();
    assert!(error.contains("AcceleratedImage early"), "{error}");
    stage.cluster.kubectl_ok(&["delete", "accimg", "second"]);
    assert!(stage.image("second").is_null());
}

fn an_image_in_use_stays(stage: &Stage) {
    let held = json!([{"token": CHAIN, "containers": 0}]);
    stage.node(
        "n1",
        &json!({"chains": held, "conditions": [node_condition("Ready", true, "Ready"), node_condition("Installed", true, "Installed")]}),
    );
    stage.cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: user, namespace: default},
          spec: {nodeName: n1, containers: [{name: c, image: 'registry.example/app:early'}]}}",
    );
    stage.wait("one", "the controller knows the node", || {
        stage.object(&["imgaccel", "default"])["status"]["nodes"] == json!({"ready": 1, "total": 1})
    });
    stage
        .cluster
        .kubectl_ok(&["delete", "accimg", "early", "--wait=false"]);
    stage.wait("one", "DeleteError", || {
        stage.image("early")["status"]["phase"] == "DeleteError"
    });
    let error = stage.image("early")["status"]["error"].to_string();
    assert!(error.contains("default/user on n1"), "{error}");
    assert_eq!(
        stage.node_spec("n1")["release"]
            .as_array()
            .map_or(0, Vec::len),
        0
    );

    // The Pod ends: the node is asked, and nothing is freed before it has given back.
    stage
        .cluster
        .kubectl_ok(&["delete", "pod", "user", "--force", "--grace-period=0"]);
    stage.wait("one", "the node is asked", || {
        stage.node_spec("n1")["release"] == json!([CHAIN])
    });
    assert_eq!(stage.image("early")["status"]["phase"], "Deleting");
    assert!(
        stage
            .object(&["job", "-n", "kube-system", "uimgacc-delete-early"])
            .is_null()
    );
    stage.patch_status("accnode", "n1", "", &json!({"chains": []}));

    // A deletion that fails says why and is tried again.
    let left = json!({"error": "no space left for the record", "retry": true});
    stage.end_job("one", "uimgacc-delete-early", 1, "Error", &left.to_string());
    stage.wait("one", "DeleteError", || {
        let image = stage.image("early");
        image["status"]["phase"] == "DeleteError"
            && image["status"]["error"].to_string().contains("no space")
    });
    stage.end_job("one", "uimgacc-delete-early", 0, "Completed", "");
    stage.wait("one", "the object is gone", || {
        stage.image("early").is_null()
    });
    stage.wait("one", "its Job is gone", || {
        stage
            .object(&["job", "-n", "kube-system", "uimgacc-delete-early"])
            .is_null()
    });
    stage.wait("one", "the list is empty again", || {
        stage.node_spec("n1")["release"]
            .as_array()
            .is_none_or(Vec::is_empty)
    });
}
