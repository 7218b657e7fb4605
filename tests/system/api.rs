//! The verbs of the original script by UCloud's SDK, through two servers, on a real cluster.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::{ApiServer, UcloudSdk};

use crate::fixture::{ClusterFixture, LABELS, MINUTE, app, file, pod, ready, succeeded};

const CLUSTER: &str = "uk8s-test";
const PASSWORD: &str = "a-password-that-no-log-has";

/// Two servers with one configuration; each call goes to the other one than the last.
struct Servers {
    servers: [ApiServer; 2],
    next: std::cell::Cell<usize>,
}

impl Servers {
    fn start(fixture: &ClusterFixture) -> Self {
        let program = uimgacc_testkit::programs::program("uimgacc-api");
        let cluster = &fixture.cluster;
        let registry = cluster.registry().address();
        let config = format!(
            r#"
[[keys]]
public_key = "me"
private_key = "private"
projects = {{ org-a = "write" }}
[[clusters]]
id = "{CLUSTER}"
project = "org-a"
kubeconfig = "{}"
registry = "{registry}"
[clusters.enable]
host_path = "{}"
image = "{}"
plain_http_registries = ["{registry}"]
containerd_restart = ["{}"]
"#,
            "{dir}/kubeconfig",
            fixture.store().display(),
            fixture.image(),
            cluster.node(0).restart_containerd_command().display(),
        );
        let kubeconfig = account(fixture);
        let files = [("kubeconfig", kubeconfig.as_str())];
        Self {
            servers: [(), ()].map(|()| ApiServer::start(&program, &config, &files)),
            next: std::cell::Cell::new(0),
        }
    }

    fn call(&self, action: &str, parameters: Value) -> Value {
        let server = &self.servers[self.next.get()];
        self.next.set(1 - self.next.get());
        let sdk = UcloudSdk {
            base_url: server.url(),
            region: "cn-bj2".to_owned(),
            project_id: "org-a".to_owned(),
            public_key: "me".to_owned(),
            private_key: "private".to_owned(),
        };
        let mut all = json!({ "ClusterId": CLUSTER });
        for (key, value) in parameters.as_object().unwrap() {
            all[key] = value.clone();
        }
        sdk.invoke(&format!("{action}UK8SImageAccelerate"), &all)
    }

    fn ok(&self, action: &str, parameters: Value) {
        let answer = self.call(action, parameters);
        assert_eq!(answer["RetCode"], 0, "{answer}\n{}", self.log());
    }

    fn get(&self) -> Value {
        let answer = self.call("Get", json!({}));
        assert_eq!(answer["RetCode"], 0, "{answer}\n{}", self.log());
        answer
    }

    /// Asks once a second, as the original script does.
    fn wait(&self, what: &str, within: Duration, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.get();
            if holds(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "not in time: {what}: {answer}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn log(&self) -> String {
        self.servers.each_ref().map(ApiServer::log).join("\n---\n")
    }
}

/// A kubeconfig of the account in `deploy/api/rbac.yaml`, which has its rights only.
fn account(fixture: &ClusterFixture) -> String {
    let cluster = &fixture.cluster;
    cluster.apply(include_str!("../../deploy/api/rbac.yaml"));
    let token = cluster.kubectl_ok(&["create", "token", "-n", "uimgacc-api", "uimgacc-api"]);
    let admin = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let lines = admin.lines().map(|line| {
        let key = line.trim_start();
        if key.starts_with("client-certificate") {
            let indent = &line[..line.len() - key.len()];
            format!("{indent}token: {}\n", token.trim())
        } else if key.starts_with("client-key") {
            String::new()
        } else {
            format!("{line}\n")
        }
    });
    lines.collect()
}

#[test]
fn a_session_by_the_sdk() {
    if !ready() {
        return;
    }
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1]);
    let (cluster, node) = (&fixture.cluster, fixture.cluster.node(0));
    let config = file(&node.containerd_config());
    let original = app(&fixture, "app:1", 1).reference;
    let target = fixture.reference("app:fast");
    let servers = Servers::start(&fixture);
    let create = || json!({"OriginalImage": original, "TargetImage": target});

    let before = servers.get();
    assert_eq!(
        (&before["Enable"], &before["Status"]),
        (&json!(false), &json!("Unknown"))
    );
    let refused = servers.call("Create", create());
    assert_eq!(refused["RetCode"], 150, "{refused}");

    let began = Instant::now();
    servers.ok(
        "Enable",
        json!({
            "NfsAddr": "10.0.0.1:/", "SubnetId": "subnet-1",
            "UHubUsername": "me", "UHubPassword": PASSWORD,
        }),
    );
    println!("Enable returned after {:?}", began.elapsed());
    let enabled = servers.wait("enabled", 2 * MINUTE, |state| state["Status"] == "Ready");
    println!("enabled after {:?}", began.elapsed());
    for key in ["Enable", "NfsReady", "AgentReady"] {
        assert_eq!(enabled[key], true, "{enabled}");
    }
    assert_eq!(enabled["SubnetId"], "subnet-1");
    let secret = cluster.get(&["secret", "-n", "kube-system", "uimgacc-registry"]);
    assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");

    // From the answer on, no server tells of the time before.
    let began = Instant::now();
    servers.ok("Create", create());
    let took = began.elapsed();
    println!("Create returned after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    for _ in 0..2 {
        let creating = servers.get();
        assert_eq!(creating["Status"], "Creating", "{creating}");
        assert_eq!(creating["Images"], json!([]));
        assert_eq!(creating["Tasks"][0]["TargetImage"], json!(target));
    }
    let created = servers.wait("created", 2 * MINUTE, |state| {
        ["Ready", "CreateError"].contains(&state["Status"].as_str().unwrap())
    });
    println!("created after {:?}", began.elapsed());
    assert_eq!(created["Status"], "Ready", "{created}");
    let image = &created["Images"][0];
    assert_eq!(image["OriginalImage"], json!(original));
    assert_eq!(image["TargetImage"], json!(target));
    assert_eq!(image["Layers"], 4);
    assert!(image["Size"].as_u64().unwrap() > 4_500_000, "{image}");

    let since = cluster.registry().log().len();
    cluster.wait_until("the node's labels", MINUTE, || {
        fixture.labels(node.name()) == LABELS
    });
    cluster.apply(&pod(
        "fast",
        &target,
        Some(LABELS[1]),
        None,
        "cat /data/name-2",
    ));
    assert_eq!(succeeded(&fixture, "fast"), "app:1\n");
    let layers = app(&fixture, "app:1", 1);
    assert!(!fixture.layers_sent(&layers, since));

    // What somebody uses stays.
    cluster.apply(&pod("holder", &target, Some(LABELS[1]), None, "sleep 600"));
    cluster.wait("condition=Ready", &["pod/holder"], MINUTE);
    for (action, parameters) in [("Delete", json!({"Image": target})), ("Disable", json!({}))] {
        let refused = servers.call(action, parameters);
        assert_eq!(refused["RetCode"], 150, "{refused}");
        let message = refused["Message"].as_str().unwrap();
        assert!(message.contains("default/holder"), "{message}");
    }
    assert_eq!(servers.get()["Status"], "Ready");
    cluster.kubectl_ok(&["delete", "pod", "holder", "fast", "--wait"]);

    an_image_that_cannot_be_made_is_tried_again(&servers, &fixture);

    servers.ok("Delete", json!({"Image": target}));
    let deleting = servers.get();
    assert_eq!(deleting["Images"], json!([]), "{deleting}");
    assert_ne!(deleting["Status"], "Ready", "{deleting}");
    servers.wait("deleted", 3 * MINUTE, |state| {
        state["Status"] == "Ready" && state["Tasks"] == json!([])
    });
    let gone = servers.call("Delete", json!({"Image": target}));
    assert_eq!(gone["RetCode"], 230, "{gone}");

    let began = Instant::now();
    servers.ok("Disable", json!({}));
    println!("Disable returned after {:?}", began.elapsed());
    let disabling = servers.get();
    assert_eq!(disabling["Enable"], true, "{disabling}");
    assert_ne!(disabling["Status"], "Ready", "{disabling}");
    // The server that was asked goes away: the other one ends it.
    servers.wait("disabled", 3 * MINUTE, |state| state["Enable"] == false);
    println!("disabled after {:?}", began.elapsed());
    assert_eq!(file(&node.containerd_config()), config);
    cluster.wait_until("the end of all objects", MINUTE, || {
        let kinds = "crds,deployments,daemonsets,jobs,serviceaccounts,clusterroles,secrets";
        let all = cluster.kubectl_ok(&["get", kinds, "-A", "-o", "name"]);
        !all.replace("uimgacc-api", "").contains("uimgacc")
    });
    let log = servers.log();
    assert!(
        !log.contains(PASSWORD) && !log.contains("panicked"),
        "{log}"
    );
}

/// An old failure is never told as the result of a new attempt.
fn an_image_that_cannot_be_made_is_tried_again(servers: &Servers, fixture: &ClusterFixture) {
    let (original, target) = (fixture.reference("none:1"), fixture.reference("none:fast"));
    let create = || json!({"OriginalImage": original, "TargetImage": target});
    servers.ok("Create", create());
    let failed = servers.wait("a failure", 2 * MINUTE, |state| {
        state["Status"] == "CreateError"
    });
    let error = failed["Error"].as_str().unwrap();
    assert!(error.contains("none"), "{failed}");
    assert_eq!(failed["Images"].as_array().unwrap().len(), 1);
    servers.ok("Create", create());
    let again = servers.get();
    assert_eq!(again["Status"], "Creating", "{again}");
    servers.wait("a second failure", 2 * MINUTE, |state| {
        state["Status"] == "CreateError"
    });
    servers.ok("Delete", json!({"Image": target}));
    servers.wait("its end", 2 * MINUTE, |state| state["Status"] == "Ready");
}

/// `deploy/examples/api` as it is, but for the image.
fn the_manifests_give_a_server(fixture: &ClusterFixture) {
    let cluster = &fixture.cluster;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/api");
    let manifests = cluster.kubectl_ok(&["kustomize", example]);
    let ours = "image: uimgacc/uimgacc:";
    assert_eq!(manifests.matches(ours).count(), 1, "{manifests}");
    let lines = manifests.lines().map(|line| match line.split_once(ours) {
        Some((indent, _)) => format!("{indent}image: {}\n", fixture.image()),
        None => format!("{line}\n"),
    });
    cluster.apply(&lines.collect::<String>());
    let deployment = ["-n", "uimgacc-api", "deployment/uimgacc-api"];
    cluster.wait("condition=Available", &deployment, MINUTE);
    let pods = cluster.get(&["pods", "-n", "uimgacc-api"]);
    let pods = pods["items"].as_array().unwrap();
    assert_eq!(pods.len(), 2);
    for pod in pods {
        let sdk = UcloudSdk {
            base_url: format!("http://{}:8443", pod["status"]["podIP"].as_str().unwrap()),
            region: "cn-bj2".to_owned(),
            project_id: "org-example".to_owned(),
            public_key: "example-public-key".to_owned(),
            private_key: "example-private-key".to_owned(),
        };
        let get = "GetUK8SImageAccelerate";
        // It has reached its own cluster: there is no error.
        cluster.wait_until("an answer", MINUTE, || {
            let answer = sdk.invoke(get, &json!({"ClusterId": "uk8s-example"}));
            answer["Enable"] == false && answer["Error"] == ""
        });
    }
}

/// The five verbs of the command through the API, with a configuration as users of the original script have it.
#[test]
fn the_command_through_the_api() {
    if !ready() {
        return;
    }
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1]);
    let (cluster, node) = (&fixture.cluster, fixture.cluster.node(0));
    let config = file(&node.containerd_config());
    let original = app(&fixture, "app:1", 1).reference;
    let target = fixture.reference("app:fast");
    the_manifests_give_a_server(&fixture);
    let servers = Servers::start(&fixture);
    let settings = cluster.dir().join("remote.toml");
    let text = format!(
        "region = \"cn-bj2\"\nproject_id = \"org-a\"\npublic_key = \"me\"\nprivate_key = \"private\"\n\
         cluster_id = \"{CLUSTER}\"\nsubnet_id = \"subnet-1\"\nnfs_addr = \"10.0.0.1:/\"\n\
         uhub_username = \"me\"\nuhub_password = \"{PASSWORD}\"\nbase_url = \"{}\"\n",
        servers.servers[0].url()
    );
    std::fs::write(&settings, text).unwrap();
    let settings = settings.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = fixture.command(&[arguments, &["--config", settings]].concat());
        let output = command.env_remove("KUBECONFIG").output().unwrap();
        let [data, said] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(!format!("{data}{said}").contains(PASSWORD), "{data}{said}");
        (output.status.code(), data, said)
    };
    let ok = |arguments: &[&str]| {
        let began = Instant::now();
        let (code, data, said) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}\n{}", servers.log());
        println!("{} took {:?}", arguments[0], began.elapsed());
        data
    };
    ok(&["enable"]);
    assert_eq!(fixture.labels(node.name()), LABELS);
    ok(&["create", &original, &target]);
    let told: Value = serde_json::from_str(&ok(&["get", "-o", "json"])).unwrap();
    assert_eq!(told["Images"][0]["TargetImage"], json!(target));
    assert!(ok(&["get"]).contains(&target));
    cluster.apply(&pod(
        "fast",
        &target,
        Some(LABELS[0]),
        None,
        "cat /data/name-2",
    ));
    assert_eq!(succeeded(&fixture, "fast"), "app:1\n");
    let (code, _, said) = run(&[
        "create",
        &fixture.reference("none:1"),
        &fixture.reference("none:fast"),
    ]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("none"), "{said}");
    ok(&["delete", &fixture.reference("none:fast")]);
    cluster.apply(&pod("holder", &target, Some(LABELS[1]), None, "sleep 600"));
    cluster.wait("condition=Ready", &["pod/holder"], MINUTE);
    for verb in [&["delete", &target][..], &["disable"]] {
        let (code, _, said) = run(verb);
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains("default/holder"), "{said}");
    }
    cluster.kubectl_ok(&["delete", "pod", "holder", "fast", "--wait"]);
    ok(&["delete", &target]);
    let told: Value = serde_json::from_str(&ok(&["get", "-o", "json"])).unwrap();
    assert_eq!((&told["Images"], &told["Tasks"]), (&json!([]), &json!([])));
    ok(&["disable"]);
    assert_eq!(file(&node.containerd_config()), config);
}
