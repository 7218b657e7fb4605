//! Clusters that do not answer, are too old, or do not let one in.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::{Value, json};
use uimgacc_testkit::cluster::Cluster;

use crate::support::{command, enabled, failed, ok, ready, uimgacc};

/// A kubeconfig for another server or another user.
fn kubeconfig(cluster: &Cluster, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let text = cluster.kubectl_ok(&["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(&mut config);
    let path = cluster.dir().join(name);
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// A kubeconfig of a service account with a role.
fn account(cluster: &Cluster, name: &str, role: &str) -> PathBuf {
    cluster.kubectl_ok(&["create", "serviceaccount", name]);
    let subject = format!("--serviceaccount=default:{name}");
    let role = format!("--clusterrole={role}");
    cluster.kubectl_ok(&["create", "clusterrolebinding", name, &role, &subject]);
    let token = cluster.kubectl_ok(&["create", "token", name]);
    kubeconfig(cluster, name, |config| {
        config["users"][0]["user"] = json!({"token": token.trim()});
    })
}

#[test]
fn who_may_do_what() {
    if !ready() {
        return;
    }
    let cluster = enabled();
    let viewer = account(&cluster, "viewer", "uimgacc-view");
    let editor = account(&cluster, "editor", "uimgacc-edit");
    let of = |who: &PathBuf, arguments: &[&str]| {
        let who = ["--kubeconfig", who.to_str().unwrap()];
        uimgacc(&cluster, &[arguments, &who[..]].concat())
    };
    let create = ["create", "a", "r.io/a:1", "--no-wait"];
    ok(&of(&viewer, &["get"]));
    let text = failed(&of(&viewer, &create), 1);
    assert!(text.contains("cannot create resource"), "{text}");
    assert!(text.contains("hint: ask an administrator"), "{text}");
    // Who may edit must also be able to view.
    let text = failed(&of(&editor, &create), 1);
    assert!(text.contains("imageaccelerations"), "{text}");
    cluster.kubectl_ok(&[
        "create",
        "clusterrolebinding",
        "editor-views",
        "--clusterrole=uimgacc-view",
        "--serviceaccount=default:editor",
    ]);
    ok(&of(&editor, &create));
    ok(&of(&editor, &["delete", "r.io/a:1", "--no-wait"]));
    let text = failed(
        &of(&editor, &["enable", "--max-conversions", "3", "--no-wait"]),
        1,
    );
    assert!(text.contains("cluster-admin"), "{text}");
    let output = of(&editor, &["check", "--pre"]);
    failed(&output, 1);
    let stranger = kubeconfig(&cluster, "stranger", |config| {
        config["users"][0]["user"] = json!({"token": "nonsense"});
    });
    let text = failed(&of(&stranger, &["get"]), 1);
    assert!(text.contains("log in again"), "{text}");
}

#[test]
fn no_answer() {
    if !ready() {
        return;
    }
    let cluster = enabled();
    // Bound and dropped, so nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let nowhere = kubeconfig(&cluster, "nowhere", |config| {
        config["clusters"][0]["cluster"]["server"] = json!(address);
    });
    let nowhere = nowhere.to_str().unwrap();
    for verb in [
        &["get"][..],
        &["create", "a", "b:1"],
        &["status"],
        &["disable"],
        &["enable", "--nfs", "a"],
    ] {
        let text = failed(
            &uimgacc(&cluster, &[verb, &["--kubeconfig", nowhere]].concat()),
            1,
        );
        let expected = format!("no answer from the Kubernetes API at {address}");
        assert!(text.contains(&expected), "{text}");
        assert_eq!(
            text.matches("refused").count(),
            1,
            "the cause is told once: {text}"
        );
    }
    failed(&uimgacc(&cluster, &["check", "--kubeconfig", nowhere]), 1);
    let text = failed(&uimgacc(&cluster, &["get", "--context", "other"]), 1);
    assert!(text.contains("other"), "{text}");

    // A store and a cluster at once is a mistake; a store of the environment gives way.
    let text = failed(
        &uimgacc(&cluster, &["get", "--store", "/x", "--context", "other"]),
        1,
    );
    assert!(text.contains("give one of them"), "{text}");
    let admin = cluster.kubeconfig();
    let output = command(&cluster, &["get", "--kubeconfig", admin.to_str().unwrap()])
        .env("UIMGACC_STORE", "/nonexistent")
        .output()
        .unwrap();
    ok(&output);
}

/// No program of such a version is at hand, so its answer is played.
#[test]
fn too_old() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let body = json!({"major": "1", "minor": "25+", "gitVersion": "v1.25.16", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""})
        .to_string();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        first
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "old",
        "contexts": [{"name": "old", "context": {"cluster": "old", "user": "old"}}],
        "clusters": [{"name": "old", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "old", "user": {}}]});
    std::fs::write(&path, config.to_string()).unwrap();
    let output = uimgacc_testkit::programs::uimgacc(&["enable", "--nfs", "10.0.0.1"])
        .env("KUBECONFIG", &path)
        .output()
        .unwrap();
    let text = failed(&output, 1);
    assert!(
        text.contains("Kubernetes v1.25.16 is too old: uimgacc needs 1.26 or later"),
        "{text}"
    );
    assert!(text.contains("hint: upgrade the cluster"), "{text}");
    assert!(
        server.join().unwrap().starts_with("GET /version"),
        "nothing else was asked"
    );
}
