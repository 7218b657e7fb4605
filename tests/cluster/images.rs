//! create, get and delete, with an agent that the test plays.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uimgacc_testkit::cluster::Cluster;

use crate::support::{
    enabled, failed, json_of, ok, patch_status, ready, start, stdout, uimgacc, wait_for,
};

/// Name of the only image with that target.
fn name_of(cluster: &Cluster, target: &str) -> String {
    let all = cluster.get(&["accimg"]);
    let found = all["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|item| item["spec"]["targetImage"] == target);
    let name = found.and_then(|item| item["metadata"]["name"].as_str());
    name.expect("the image is there").to_owned()
}

/// With account of the last attempt that was asked for, as the agent does.
fn agent_says(cluster: &Cluster, name: &str, status: &Value) {
    let mut status = status.clone();
    let image = cluster.get(&["accimg", name]);
    let asked = &image["metadata"]["annotations"]["uimgacc.io/retry"];
    if asked.is_string() {
        status["observedRetry"] = asked.clone();
    }
    patch_status(cluster, &["accimg", name], &status);
}

#[test]
fn an_image_from_create_to_delete() {
    if !ready() {
        return;
    }
    let cluster = enabled();
    let creating = start(
        &cluster,
        &[
            "create",
            "nginx",
            "r.io/nginx:fast",
            "--platform",
            "linux/amd64",
        ],
    );
    let target = "r.io/nginx:fast";
    wait_for("the object is there", || {
        !cluster.get(&["accimg"])["items"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    let name = name_of(&cluster, target);
    assert!(name.starts_with("nginx-fast-"), "{name}");
    let get = json_of(&cluster, &["get"]);
    assert_eq!(get["Status"], "Creating");
    assert_eq!(
        get["Images"][0]["OriginalImage"],
        "docker.io/library/nginx:latest"
    );
    assert_eq!(get["Images"][0]["Size"], Value::Null);
    for (percent, stage) in [(10, "layers"), (60, "push")] {
        agent_says(
            &cluster,
            &name,
            &json!({"phase": "Creating",
            "progress": {"doneBytes": percent * 10_000_000, "totalBytes": 1_000_000_000, "percent": percent, "stage": stage}}),
        );
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(ok(&uimgacc(&cluster, &["get"])).contains("Creating 60 %"));
    agent_says(
        &cluster,
        &name,
        &json!({"phase": "Ready", "progress": null, "size": 5_700_000_000_u64, "layers": 4,
        "uniqueBytes": 1_000_000}),
    );
    let output = creating.finish();
    let text = ok(&output);
    assert!(
        text.contains("r.io/nginx:fast is ready: 5.70 GB in 4 layers"),
        "{text}"
    );
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(talk.contains("layers: 100 MB of 1.00 GB"), "{talk}");
    assert!(talk.contains("push"), "{talk}");

    // The shape of the API.
    let get = json_of(&cluster, &["get"]);
    for (key, value) in [
        ("Enable", json!(true)),
        ("NfsReady", json!(true)),
        ("AgentReady", json!(true)),
        ("Status", json!("Ready")),
        ("Error", json!("")),
        ("NfsAddr", json!("10.0.0.1:/x")),
    ] {
        assert_eq!(get[key], value, "{key}");
    }
    let image = &get["Images"][0];
    assert_eq!(
        (&image["Size"], &image["Layers"]),
        (&json!(5_700_000_000_u64), &json!(4))
    );
    let yaml = ok(&uimgacc(&cluster, &["get", "nginx", "-o", "yaml"]));
    assert!(yaml.contains("TargetImage: r.io/nginx:fast"), "{yaml}");
    let table = ok(&uimgacc(&cluster, &["get", target]));
    assert!(
        table.lines().count() == 2 && table.contains("5.70 GB"),
        "{table}"
    );

    // The same again is the same; another original is refused; other flags belong elsewhere.
    let again = json_of(
        &cluster,
        &[
            "create",
            "docker.io/nginx:latest",
            target,
            "--platform",
            "linux/amd64",
        ],
    );
    assert_eq!(again["Name"], json!(name));
    for (arguments, part) in [
        (
            &["create", "redis", target][..],
            "is the target of docker.io/library/nginx:latest already",
        ),
        (
            &["create", "nginx", target, "--platform", "linux/arm64"],
            "not for linux/arm64",
        ),
        (&["create", "nginx", "nginx"], "is the original itself"),
        (&["create", "nginx", "UPPER"], "lower case"),
        (&["create", "nginx", "a:1", "--no-push"], "for local stores"),
        (
            &["create", "nginx", "a:1", "--plain-http"],
            "--plain-http-registry",
        ),
        (
            &["get", "mongo"],
            "no accelerated image docker.io/library/mongo:latest",
        ),
        (
            &["delete", "mongo"],
            "no accelerated image docker.io/library/mongo:latest",
        ),
        (&["delete", target, "--no-gc"], "for local stores"),
    ] {
        let text = failed(&uimgacc(&cluster, arguments), 1);
        assert!(text.contains(part), "{arguments:?}: {text}");
    }

    // In use: refused before anything has begun, by target and by original. The original counts
    // where containers of its node read the image's chain.
    cluster.kubectl_ok(&["create", "serviceaccount", "default"]);
    cluster.apply(
        "{apiVersion: uimgacc.io/v1, kind: AccelerationNode, metadata: {name: node-1}, spec: {}}",
    );
    agent_says(&cluster, &name, &json!({"chainToken": "sha256:0"}));
    patch_status(
        &cluster,
        &["accelerationnode", "node-1"],
        &json!({"chains": [{"token": "sha256:0", "containers": 1}]}),
    );
    for image in ["r.io/nginx:fast", "nginx"] {
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{nodeName: node-1, containers: [{{name: a, image: '{image}'}}]}}}}"
        ));
        let text = failed(&uimgacc(&cluster, &["delete", target]), 4);
        assert!(
            text.contains("is in use by default/web on node-1"),
            "{text}"
        );
        cluster.kubectl_ok(&["delete", "pod", "web", "--force", "--grace-period=0"]);
    }
    let object = cluster.get(&["accimg", &name]);
    assert!(object["metadata"]["deletionTimestamp"].is_null());

    // The agent's finalizer.
    let hold = |finalizers: &str| {
        let patch = format!(r#"{{"metadata":{{"finalizers":{finalizers}}}}}"#);
        cluster.kubectl_ok(&["patch", "accimg", &name, "--type=merge", "-p", &patch]);
    };
    hold(r#"["uimgacc.io/store"]"#);
    let text = failed(
        &uimgacc(&cluster, &["delete", target, "--timeout", "1s"]),
        5,
    );
    assert!(text.contains("is not deleted after 1 s"), "{text}");
    assert_eq!(json_of(&cluster, &["get"])["Status"], "Deleting");
    let held = json!({"phase": "DeleteError", "error": "node-1 does not let go"});
    agent_says(&cluster, &name, &held);
    assert_eq!(json_of(&cluster, &["get"])["Status"], "DeleteError");
    // The same again asks the agent to try at once, and does not tell the old failure.
    let mut again = start(&cluster, &["delete", target]);
    wait_for("the agent is asked", || {
        cluster.get(&["accimg", &name])["metadata"]["annotations"]["uimgacc.io/retry"].is_string()
    });
    assert_eq!(json_of(&cluster, &["get"])["Status"], "Deleting");
    assert!(!again.has_ended());
    agent_says(&cluster, &name, &held);
    let text = failed(&again.finish(), 1);
    assert!(text.contains("node-1 does not let go"), "{text}");
    let text = failed(
        &uimgacc(
            &cluster,
            &["create", "nginx", target, "--platform", "linux/amd64"],
        ),
        1,
    );
    assert!(text.contains("is being deleted"), "{text}");
    agent_says(
        &cluster,
        &name,
        &json!({"phase": "Deleting", "error": null}),
    );
    let deleting = start(&cluster, &["delete", target, "--force"]);
    wait_for("it is forced", || {
        cluster.get(&["accimg", &name])["metadata"]["annotations"]["uimgacc.io/force"] == "true"
    });
    hold("null");
    assert!(ok(&deleting.finish()).contains("is deleted, about 1.00 MB freed"));
    assert!(
        json_of(&cluster, &["get"])["Images"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn failures_are_told_and_tried_again() {
    if !ready() {
        return;
    }
    let cluster = enabled();
    let creating = start(&cluster, &["create", "r.io/a:1", "r.io/a:fast"]);
    wait_for("the object is there", || {
        !cluster.get(&["accimg"])["items"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    let name = name_of(&cluster, "r.io/a:fast");
    let refused =
        json!({"phase": "CreateError", "failures": 1, "error": "r.io answered 401 Unauthorized"});
    agent_says(&cluster, &name, &refused);
    let text = failed(&creating.finish(), 1);
    assert!(
        text.contains("cannot accelerate r.io/a:fast: r.io answered 401 Unauthorized"),
        "{text}"
    );
    // What to do is the agent's to say, in the same text.
    assert!(!text.contains("hint:"), "{text}");
    let get = json_of(&cluster, &["get"]);
    assert_eq!(get["Status"], "CreateError");
    assert_eq!(get["Error"], "r.io answered 401 Unauthorized");

    // The same again asks the agent to try at once, and does not tell the old failure.
    let mut again = start(&cluster, &["create", "r.io/a:1", "r.io/a:fast"]);
    wait_for("the agent is asked", || {
        cluster.get(&["accimg", &name])["metadata"]["annotations"]["uimgacc.io/retry"].is_string()
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!again.has_ended());
    agent_says(
        &cluster,
        &name,
        &json!({"phase": "Creating", "error": null}),
    );
    agent_says(&cluster, &name, &refused);
    failed(&again.finish(), 1);

    // Interrupted, the work goes on.
    agent_says(
        &cluster,
        &name,
        &json!({"phase": "Creating", "error": null}),
    );
    let waiting = start(&cluster, &["create", "r.io/a:1", "r.io/a:fast"]);
    waiting.wait_lines(1);
    waiting.interrupt();
    let text = failed(&waiting.finish(), 130);
    assert!(text.contains("goes on in the cluster"), "{text}");
}

#[test]
fn watch_shows_each_change() {
    if !ready() {
        return;
    }
    let cluster = enabled();
    ok(&uimgacc(
        &cluster,
        &["create", "a", "r.io/a:1", "--no-wait"],
    ));
    let watching = start(&cluster, &["get", "-w", "-o", "json"]);
    watching.wait_lines(1);
    let name = name_of(&cluster, "r.io/a:1");
    agent_says(
        &cluster,
        &name,
        &json!({"phase": "Ready", "size": 7, "layers": 1}),
    );
    cluster.kubectl_ok(&["annotate", "accimg", &name, "nothing=new"]);
    cluster.kubectl_ok(&["delete", "accimg", &name]);
    watching.wait_lines(3);
    watching.interrupt();
    let output = watching.finish();
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
        .collect();
    let seen: Vec<(&Value, bool)> = lines
        .iter()
        .map(|line| (&line["Status"], line["Deleted"] == true))
        .collect();
    assert_eq!(
        seen,
        [
            (&json!("Creating"), false),
            (&json!("Ready"), false),
            (&json!("Ready"), true)
        ]
    );
}

#[test]
fn a_thousand_images_by_few_requests() {
    if !ready() {
        return;
    }
    let cluster = enabled();
    let mut yaml = String::new();
    for index in 0..1000 {
        yaml.push_str(&format!(
            "---\n{{apiVersion: uimgacc.io/v1, kind: AcceleratedImage, metadata: {{name: image-{index}}}, \
             spec: {{originalImage: 'docker.io/library/app:{index}', targetImage: 'r.io/app:{index}'}}}}\n"
        ));
    }
    cluster.apply(&yaml);
    let before = requests(&cluster);
    let started = Instant::now();
    let table = ok(&uimgacc(&cluster, &["get"]));
    println!("get of 1,000 images: {:?}", started.elapsed());
    assert_eq!(table.lines().count(), 1001);
    // Two pages of images, at most.
    let listed = requests(&cluster);
    assert!(listed - before <= 2, "{before}, {listed}");
    ok(&uimgacc(&cluster, &["get", "r.io/app:500"]));
    // By the name that follows from the target; and a list, where that is not the object's.
    let found = requests(&cluster);
    assert!(found - listed <= 3, "{listed}, {found}");
}

/// Requests for images that the API server has answered.
fn requests(cluster: &Cluster) -> u64 {
    let metrics = cluster.kubectl_ok(&["get", "--raw", "/metrics"]);
    let ours = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{") && line.contains("\"acceleratedimages\"")
    });
    ours.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
