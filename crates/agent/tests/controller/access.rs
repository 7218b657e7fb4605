//! Who may have what pulled and pushed: a Secret that nobody released, and a registry of one's own.

use serde_json::{Value, json};
use uimgacc_objects::access::access;
use uimgacc_objects::{AcceleratedImageSpec, ImageAccelerationSpec};
use uimgacc_testkit::ready;

use super::audit::Audit;
use super::stage::{NEEDS, Stage, condition, http};

const POLICY: &str = include_str!("../../../../deploy/policy/policy.yaml");
/// Base64 of a Docker config.
const DATA: &str = "eyJhdXRocyI6e319";

fn secret(stage: &Stage, name: &str) {
    stage.cluster.apply(
        &json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": name, "namespace": "kube-system"},
            "data": {".dockerconfigjson": DATA},
        })
        .to_string(),
    );
}

fn image(name: &str, target: &str, secret: &Value) -> String {
    json!({
        "apiVersion": "uimgacc.io/v1", "kind": "AcceleratedImage", "metadata": {"name": name},
        "spec": {"originalImage": "private.example/app:1", "targetImage": target, "pullSecret": secret},
    })
    .to_string()
}

fn patch(stage: &Stage, name: &str, patch: &Value) -> (bool, String) {
    let output = stage.cluster.kubectl(&[
        "patch",
        name.split('/').next().unwrap(),
        name.split('/').nth(1).unwrap(),
        "--type=merge",
        "-p",
        &patch.to_string(),
    ]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

fn allow(stage: &Stage, targets: &Value) {
    let spec = json!({"spec": {"allowedTargets": targets}});
    let (done, text) = patch(stage, "imageacceleration/default", &spec);
    assert!(done, "{text}");
}

fn job(stage: &Stage, name: &str) -> Value {
    let job = format!("uimgacc-convert-{name}");
    stage.object(&["job", "-n", "kube-system", &job])
}

#[test]
fn a_secret_and_a_target_must_be_allowed() {
    if !ready(&NEEDS) {
        return;
    }
    let audit = Audit::new();
    let stage = Stage::start_with(audit.args());
    let agent = stage.agent("one");
    stage.wait("one", "/readyz", || http(agent.port, "/readyz").0 == 200);
    stage.enable("one");

    // The attack, in a cluster without the policy.
    secret(&stage, "other-team");
    let evil = "evil.example/stolen:1";
    stage
        .cluster
        .apply(&image("stolen", evil, &json!({"name": "other-team"})));
    let reason = || condition(&stage.image("stolen"), "Progressing").1;
    stage.wait("one", "TargetNotAllowed", || reason() == "TargetNotAllowed");
    let error = stage.image("stolen")["status"]["error"].to_string();
    assert!(error.contains("--allow-target"), "{error}");
    assert_eq!(stage.image("stolen")["status"]["phase"], "CreateError");

    // A target that is allowed does not release the Secret.
    allow(&stage, &json!(["evil.example/stolen"]));
    stage.wait("one", "PullSecretNotAllowed", || {
        reason() == "PullSecretNotAllowed"
    });
    let label = "kubectl label secret -n kube-system other-team uimgacc.io/pull-secret=true";
    let error = stage.image("stolen")["status"]["error"].to_string();
    assert!(error.contains(label), "{error}");
    assert!(job(&stage, "stolen").is_null(), "no Job was started");

    // What it says is what helps, and it goes on by itself.
    let words: Vec<&str> = label.split(' ').skip(1).collect();
    stage.cluster.kubectl_ok(&words);
    stage.wait("one", "the Job", || !job(&stage, "stolen").is_null());
    let made = job(&stage, "stolen");
    let pod = &made["spec"]["template"]["spec"];
    let volume = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|volume| volume["name"] == "credentials")
        .unwrap();
    assert_eq!(volume["secret"]["secretName"], "other-team");
    let items = json!([{"key": ".dockerconfigjson", "path": "config.json"}]);
    assert_eq!(volume["secret"]["items"], items);
    let args = pod["containers"][0]["args"].to_string();
    assert!(args.contains("--anonymous-original"), "{args}");

    // A conversion under way ends where it is not allowed any more.
    let words = [
        "label",
        "secret",
        "-n",
        "kube-system",
        "other-team",
        "uimgacc.io/pull-secret-",
    ];
    stage.cluster.kubectl_ok(&words);
    stage.wait("one", "the end of the Job", || {
        job(&stage, "stolen").is_null()
    });
    assert_eq!(reason(), "PullSecretNotAllowed");

    // The agent was sent names and labels, never data.
    let sent = audit.secrets();
    assert!(!sent.is_empty());
    for event in &sent {
        assert!(!event.to_string().contains(DATA), "{event}");
        let kind = &event["responseObject"]["kind"];
        assert!(
            kind.is_null() || *kind == "PartialObjectMetadataList",
            "{event}"
        );
        assert!(
            matches!(event["verb"].as_str(), Some("list" | "watch")),
            "{event}"
        );
    }
    assert!(
        sent.iter()
            .any(|event| event["responseObject"]["kind"] == "PartialObjectMetadataList"),
        "{sent:?}"
    );

    the_secret_of_an_image_cannot_be_changed(&stage);
    the_policy_refuses_what_the_agent_refuses(&stage);
}

fn the_secret_of_an_image_cannot_be_changed(stage: &Stage) {
    stage.create_image("without", "evil.example/stolen/b:1");
    for (name, secret) in [
        ("stolen", json!({"name": "another"})),
        ("stolen", Value::Null),
        ("without", json!({"name": "another"})),
    ] {
        let change = json!({"spec": {"pullSecret": secret}});
        let (done, text) = patch(stage, &format!("accimg/{name}"), &change);
        assert!(!done, "{name} {secret}");
        assert!(text.contains("pullSecret cannot be changed"), "{text}");
    }
    let (done, text) = patch(
        stage,
        "accimg/stolen",
        &json!({"metadata": {"labels": {"a": "b"}}}),
    );
    assert!(done, "{text}");
}

/// Both decide alike, by one table.
fn the_policy_refuses_what_the_agent_refuses(stage: &Stage) {
    stage.cluster.apply(POLICY);
    let create = |yaml: &str, name: &str| {
        let file = stage.cluster.dir().join("image.json");
        std::fs::write(&file, yaml).unwrap();
        let words = ["create", "--dry-run=server", "-f", file.to_str().unwrap()];
        let output = stage.cluster.kubectl(&words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() || text.contains("denied request"),
            "{name}: {text}"
        );
        (output.status.success(), text)
    };
    allow(stage, &json!(["r.io"]));
    let evil = image("probe", "evil.example/a:1", &Value::Null);
    stage.wait("one", "the policy counts", || !create(&evil, "probe").0);
    let (_, text) = create(&evil, "probe");
    let told = "images may not be pushed to evil.example/a: allowedTargets of the ImageAcceleration is r.io";
    assert!(text.contains(told), "{text}");

    let (none, team) = (Value::Null, json!({"name": "team"}));
    let targets = [
        "r.io/app:fast",
        "r.io/team/app:fast",
        "r.io/team/app",
        "r.io/team-b/app:fast",
        "r.io/team:fast",
        "r.io.evil.example/app:fast",
        "r.io:5000/app:fast",
        "r.io:5000/team/app",
        "evil.example/r.io/app:1",
        "app:fast",
        "app",
        "me/app:fast",
        "docker.io/app:1",
        "docker.io/me/app:1",
        "index.docker.io/me/app:1",
        "registry-1.docker.io/me/app:1",
        "localhost/app:1",
        "localhost:5000/app",
        "R.io/app:1",
        "team/app:1",
    ];
    let lists = [
        none.clone(),
        json!([]),
        json!(["r.io"]),
        json!(["r.io/team"]),
        json!(["r.io:5000"]),
        json!(["docker.io/me", "localhost"]),
        json!(["docker.io/library/app"]),
        json!(["docker.io"]),
        json!(["me"]),
    ];
    let mut refused = 0;
    for credentials in [&none, &json!({"name": "uimgacc-registry"})] {
        for list in &lists {
            let spec =
                json!({"spec": {"allowedTargets": list, "registryCredentials": credentials}});
            let (done, text) = patch(stage, "imageacceleration/default", &spec);
            assert!(done, "{text}");
            let acceleration = stage.object(&["imageacceleration", "default"])["spec"].clone();
            let acceleration: ImageAccelerationSpec = serde_json::from_value(acceleration).unwrap();
            settle(stage, list, credentials, &create);
            for secret in [&none, &team] {
                let items: Vec<Value> = targets
                    .iter()
                    .enumerate()
                    .map(|(at, target)| {
                        serde_json::from_str(&image(&format!("image-{at}"), target, secret))
                            .unwrap()
                    })
                    .collect();
                let all = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
                // kubectl goes on after a refusal and names each.
                let (_, text) = create(&all, "all");
                for (at, target) in targets.iter().enumerate() {
                    let spec = json!({"originalImage": "private.example/app:1", "targetImage": target, "pullSecret": secret});
                    let spec: AcceleratedImageSpec = serde_json::from_value(spec).unwrap();
                    let expected =
                        access(&spec, &acceleration).map_err(|refused| refused.to_string());
                    let line = text
                        .lines()
                        .find(|line| line.contains(&format!("\"image-{at}\"")));
                    match (&expected, line) {
                        (Ok(_), None) => {}
                        (Err(told), Some(line)) if line.contains(told.as_str()) => refused += 1,
                        _ => panic!(
                            "{target} {secret} {list} {credentials}: {expected:?} {line:?}\n{text}"
                        ),
                    }
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");

    // What is there is never held up: not by a list that became narrower.
    allow(stage, &json!([]));
    settle(stage, &json!([]), &json!({"name": "x"}), &create);
    for change in [
        json!({"metadata": {"annotations": {"uimgacc.io/retry": "1"}}}),
        json!({"metadata": {"finalizers": ["uimgacc.io/store", "example.com/other"]}}),
        json!({"metadata": {"finalizers": ["uimgacc.io/store"]}}),
    ] {
        let (done, text) = patch(stage, "accimg/without", &change);
        assert!(done, "{text}");
    }
    stage.patch_status("accimg", "without", "", &json!({"size": 1}));
    for name in ["stolen", "without"] {
        stage
            .cluster
            .kubectl_ok(&["delete", "accimg", name, "--wait=false"]);
        // A conversion had begun, so a Job frees what it may have left.
        let job = format!("uimgacc-delete-{name}");
        let mut ended = false;
        stage.wait("one", "the object is gone", || {
            if !ended && !stage.object(&["job", "-n", "kube-system", &job]).is_null() {
                stage.end_job("one", &job, 0, "Completed", "");
                ended = true;
            }
            stage.image(name).is_null()
        });
    }

    // Without an ImageAcceleration nothing is refused.
    let words = ["delete", "imageacceleration", "default", "--wait=false"];
    stage.cluster.kubectl_ok(&words);
    let mut ended = false;
    stage.wait("one", "the object is gone", || {
        let job = ["job", "-n", "kube-system", "uimgacc-leases"];
        if !ended && !stage.object(&job).is_null() {
            stage.end_job("one", "uimgacc-leases", 0, "Completed", "");
            ended = true;
        }
        stage.object(&["imgaccel", "default"]).is_null()
    });
    stage.wait("one", "nothing is refused", || create(&evil, "probe").0);
}

/// The API server takes some moments to see another list: a target tells which one it has.
fn settle(
    stage: &Stage,
    list: &Value,
    credentials: &Value,
    create: &dyn Fn(&str, &str) -> (bool, String),
) {
    let is_list = |text: &str| match list.as_array() {
        None => text.contains("has no allowedTargets"),
        Some(all) if all.is_empty() => text.contains("is empty"),
        Some(all) => {
            let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
            text.contains(&format!("ImageAcceleration is {}\n", all.join(", ")))
        }
    };
    let with = image("probe", "probe.example/a:1", &json!({"name": "team"}));
    let without = image("probe", "probe.example/a:1", &Value::Null);
    stage.wait("one", "the list counts", || {
        let (_, text) = create(&with, "probe");
        let has_credentials =
            !list.is_null() || create(&without, "probe").0 == credentials.is_null();
        is_list(&format!("{}\n", text.trim_end())) && has_credentials
    });
}
