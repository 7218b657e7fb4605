//! Real control planes: what one server did every other tells at once; one that hangs holds up no other; a `disable` whose server
//! died is ended by the next.

use std::time::{Duration, Instant};

use serde_json::Value;
use uimgacc_testkit::cluster::{Cluster, Component, Options};
use uimgacc_testkit::{ApiServer, Need, agent_status, ready};

use crate::stage::{code, post, signed, start};

const MINUTE: Duration = Duration::from_secs(60);

fn config(clusters: &[(&str, &Cluster)]) -> String {
    let mut config = String::from(
        "[limits]\nrequests_per_second = 10000\n\
         [[keys]]\npublic_key = \"a\"\nprivate_key = \"p\"\nprojects = { o = \"write\" }\n",
    );
    for (id, cluster) in clusters {
        let kubeconfig = cluster.kubeconfig().display().to_string();
        config.push_str(&format!(
            "[[clusters]]\nid = \"{id}\"\nproject = \"o\"\nkubeconfig = \"{kubeconfig}\"\n\
             enable = {{ host_path = \"/mnt/store\" }}\n"
        ));
    }
    config
}

fn call(server: &ApiServer, cluster: &str, action: &str, more: &[(&str, &str)]) -> Value {
    let action = format!("{action}UK8SImageAccelerate");
    let mut pairs = vec![
        ("Action", &*action),
        ("PublicKey", "a"),
        ("ClusterId", cluster),
    ];
    pairs.extend(more);
    post(server, &signed(&pairs, "p"))
}

fn get(server: &ApiServer, cluster: &str) -> Value {
    call(server, cluster, "Get", &[])
}

/// Enabled, with the status that an agent would write: here is none.
fn enable(server: &ApiServer, id: &str, cluster: &Cluster) {
    let answer = call(server, id, "Enable", &[]);
    assert_eq!(code(&answer).0, 0, "{answer}\n{}", server.log());
    agent_status::ready(cluster);
    wait("Ready", || get(server, id)["Status"] == "Ready");
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + MINUTE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn many_servers_and_a_cluster_that_hangs() {
    if !ready(&[Need::Root, Need::Parts, Need::Kubernetes]) {
        return;
    }
    let options = Options::control_plane().without_controllers();
    let (one, two) = (Cluster::start(&options), Cluster::start(&options));
    let config = config(&[("one", &one), ("two", &two)]);
    let servers = [(), (), ()].map(|()| start(&config, &[]));
    assert_eq!(get(&servers[0], "one")["Enable"], false);
    enable(&servers[0], "one", &one);
    enable(&servers[1], "two", &two);

    a_create_is_seen_by_all(&servers, &one);
    a_failure_that_is_tried_again_is_none(&servers, &one);

    // The process stands still: connections are taken, and nothing is ever answered.
    let pid = rustix::process::Pid::from_raw(
        i32::try_from(two.pid(Component::ApiServer).unwrap()).unwrap(),
    )
    .unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let began = Instant::now();
    let times = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let answer = get(&servers[0], "two");
                assert_eq!(answer["Status"], "Unknown", "{answer}");
                // As it was last.
                assert_eq!(answer["Enable"], true, "{answer}");
                assert_ne!(answer["Error"], "");
            });
            scope.spawn(|| {
                let began = Instant::now();
                let answer = get(&servers[0], "one");
                assert_eq!(answer["RetCode"], 0);
                assert_ne!(answer["Status"], "Unknown", "{answer}");
                times.lock().unwrap().push(began.elapsed());
            });
        }
    });
    // None of them waited for the other cluster, which is told of after 2 s.
    let mut times = times.into_inner().unwrap();
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    let images = [("OriginalImage", "r/a:1"), ("TargetImage", "r/a:fast")];
    let began = Instant::now();
    let refused = call(&servers[0], "two", "Create", &images);
    assert_eq!(code(&refused).0, 130, "{refused}");
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    wait("the cluster's return", || {
        get(&servers[0], "two")["Status"] != "Unknown"
    });
}

/// Again and again, so that a window would be found.
fn a_create_is_seen_by_all(servers: &[ApiServer; 3], cluster: &Cluster) {
    for round in 0..20 {
        let target = format!("r.example/app:fast-{round}");
        let server = &servers[round % 3];
        let images = [
            ("OriginalImage", "r.example/app:1"),
            ("TargetImage", &*target),
        ];
        let made = call(server, "one", "Create", &images);
        assert_eq!(code(&made).0, 0, "{made}");
        for server in servers {
            let answer = get(server, "one");
            assert_eq!(answer["Status"], "Creating", "round {round}: {answer}");
            assert_eq!(answer["Images"], serde_json::json!([]));
        }
        // It is ready, as the agent would say.
        let name = cluster.get(&["acceleratedimages"])["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|image| image["spec"]["targetImage"] == *target)
            .unwrap()["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        agent_status::image(cluster, &name, r#""phase":"Ready","size":7,"layers":3"#);
        wait("Ready", || {
            servers
                .iter()
                .all(|one| get(one, "one")["Status"] == "Ready")
        });
        let gone = call(server, "one", "Delete", &[("Image", &target)]);
        assert_eq!(code(&gone).0, 0, "{gone}");
        for server in servers {
            let answer = get(server, "one");
            assert_eq!(
                answer["Images"],
                serde_json::json!([]),
                "round {round}: {answer}"
            );
        }
    }
}

fn a_failure_that_is_tried_again_is_none(servers: &[ApiServer; 3], cluster: &Cluster) {
    let images = [
        ("OriginalImage", "r.example/bad:1"),
        ("TargetImage", "r.example/bad:fast"),
    ];
    assert_eq!(code(&call(&servers[0], "one", "Create", &images)).0, 0);
    let all = cluster.get(&["acceleratedimages"]);
    let name = all["items"][0]["metadata"]["name"].as_str().unwrap();
    agent_status::image(
        cluster,
        name,
        r#""phase":"CreateError","error":"no such image""#,
    );
    wait("the failure", || {
        get(&servers[1], "one")["Status"] == "CreateError"
    });
    assert_eq!(get(&servers[1], "one")["Error"], "no such image");
    assert_eq!(code(&call(&servers[0], "one", "Create", &images)).0, 0);
    for server in servers {
        assert_eq!(get(server, "one")["Status"], "Creating");
    }
    let other = [("OriginalImage", "r.example/else:1"), images[1]];
    let (code, message) = code(&call(&servers[0], "one", "Create", &other));
    assert_eq!(code, 230);
    assert!(
        message.contains("Params [TargetImage]") && message.contains("r.example/bad:1"),
        "{message}"
    );
}

#[test]
fn a_disable_whose_server_died() {
    if !ready(&[Need::Root, Need::Parts, Need::Kubernetes]) {
        return;
    }
    let cluster = Cluster::start(&Options::control_plane());
    let config = config(&[("one", &cluster)]);
    let mut server = start(&config, &[]);
    enable(&server, "one", &cluster);
    // As an agent does, so that the object stays for a while.
    let finalizer = |value: &str| {
        let patch = format!(r#"{{"metadata":{{"finalizers":{value}}}}}"#);
        let words = [
            "patch",
            "imageacceleration",
            "default",
            "--type=merge",
            "-p",
            &patch,
        ];
        cluster.kubectl_ok(&words);
    };
    finalizer(r#"["uimgacc.io/nodes"]"#);
    assert_eq!(code(&call(&server, "one", "Disable", &[])).0, 0);
    let disabling = get(&server, "one");
    assert_eq!(
        (&disabling["Enable"], &disabling["Status"]),
        (&true.into(), &"Unknown".into())
    );
    let again = call(&server, "one", "Enable", &[]);
    assert_eq!(code(&again).0, 150, "{again}");
    server.daemon().kill();
    finalizer("[]");
    let ours = || {
        let kinds = "crds,deployments,serviceaccounts,clusterroles,roles,poddisruptionbudgets";
        cluster.kubectl_ok(&["get", kinds, "-A", "-o", "name"])
    };
    assert!(
        ours().contains("uimgacc-agent"),
        "nobody is there to end it"
    );
    // Two at once.
    let next = [(), ()].map(|()| start(&config, &[]));
    wait("its end", || !ours().contains("uimgacc"));
    for server in &next {
        wait("Enable: false", || get(server, "one")["Enable"] == false);
    }
    // And at once enabled again, in the middle of another end.
    enable(&next[0], "one", &cluster);
    assert_eq!(code(&call(&next[0], "one", "Disable", &[])).0, 0);
    wait("enabled again", || {
        code(&call(&next[1], "one", "Enable", &[])).0 == 0
    });
    std::thread::sleep(Duration::from_secs(12));
    agent_status::ready(&cluster);
    wait("Ready", || get(&next[0], "one")["Status"] == "Ready");
    assert!(
        ours().contains("deployment.apps/uimgacc-agent"),
        "{}",
        ours()
    );
    // Where an image is left, it stays, and the definitions with it; the mark goes.
    let images = [
        ("OriginalImage", "r.example/a:1"),
        ("TargetImage", "r.example/a:fast"),
    ];
    assert_eq!(code(&call(&next[0], "one", "Create", &images)).0, 0);
    assert_eq!(code(&call(&next[1], "one", "Disable", &[])).0, 0);
    for server in &next {
        wait("Enable: false", || get(server, "one")["Enable"] == false);
    }
    assert!(!ours().contains("uimgacc-agent"), "{}", ours());
    let left = cluster.get(&["acceleratedimages"]);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    let definition = cluster.get(&["crd", "imageaccelerations.uimgacc.io"]);
    let annotations = definition["metadata"]["annotations"].to_string();
    assert!(!annotations.contains("uimgacc.io/remove"), "{annotations}");
}
