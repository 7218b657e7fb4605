//! TLS, and a configuration that changes.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use uimgacc_testkit::process::run;
use uimgacc_testkit::{ApiServer, Need, UcloudSdk, ready};

use crate::stage::{NOWHERE, TWO_PROJECTS, code, post, signed, start, two_projects};

#[test]
fn the_sdk_through_tls() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    run(Command::new("openssl").args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        &path("key"),
        "-out",
        &path("crt"),
    ]));
    let config = format!(
        "tls = {{ certificate = \"{}\", key = \"{}\" }}\n{TWO_PROJECTS}",
        path("crt"),
        path("key")
    );
    let server = start(&config, &[("nowhere", NOWHERE)]);
    let sdk = UcloudSdk {
        base_url: server.url(),
        region: "cn-bj2".to_owned(),
        project_id: "org-a".to_owned(),
        public_key: "a".to_owned(),
        private_key: "private-a".to_owned(),
    };
    assert!(sdk.base_url.starts_with("https://"));
    let answer = sdk.trusting(&path("crt")).invoke(
        "GetUK8SImageAccelerate",
        &serde_json::json!({"ClusterId": "uk8s-a"}),
    );
    assert_eq!(answer["RetCode"], 0, "{answer}");
    // Who speaks no TLS gets nothing.
    let (head, body) = crate::stage::send(&server, b"GET / HTTP/1.1\r\n\r\n");
    assert!(!body.contains("RetCode"), "{head}{body}");
}

#[test]
fn keys_change_while_it_runs() {
    let mut server = two_projects();
    let path = server.dir().join("api.toml");
    let old = fs::read_to_string(&path).unwrap();
    let asked = |server: &ApiServer, private: &str| {
        let pairs = [
            ("Action", "GetUK8SImageAccelerate"),
            ("PublicKey", "a"),
            ("ClusterId", "uk8s-b"),
        ];
        code(&post(server, &signed(&pairs, private))).0
    };
    assert_eq!(asked(&server, "private-a"), 230);
    fs::write(&path, old.replace("\"private-a\"", "\"private-new\"")).unwrap();
    server.daemon().send(Signal::HUP);
    until("the new key", || asked(&server, "private-new") == 230);
    assert_eq!(asked(&server, "private-a"), 171);
    // One that cannot be used changes nothing, and its text is not told.
    fs::write(&path, old.replace("\"private-a\"", "private-secret")).unwrap();
    server.daemon().send(Signal::HUP);
    until("the complaint", || {
        server.log().contains("the old configuration stays")
    });
    assert_eq!(asked(&server, "private-new"), 230);
    assert!(!server.log().contains("private-"), "{}", server.log());
    server.daemon().stop();
    assert!(server.log().contains("ending"));
}

#[test]
fn the_audit_log_and_the_metrics() {
    let server = two_projects();
    let pairs = [
        ("Action", "EnableUK8SImageAccelerate"),
        ("PublicKey", "a"),
        ("ClusterId", "uk8s-b"),
        ("UHubUsername", "u"),
        ("UHubPassword", "a-password-that-no-log-has"),
    ];
    assert_eq!(code(&post(&server, &signed(&pairs, "private-a"))).0, 230);
    assert_eq!(code(&post(&server, &signed(&pairs, "private-b"))).0, 171);
    until("two lines", || {
        server.log().matches("\"code\":").count() == 2
    });
    let log = server.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(lines[0]["action"], "EnableUK8SImageAccelerate");
    assert_eq!(lines[0]["public_key"], "a");
    assert_eq!(
        (&lines[0]["is_verified"], &lines[0]["code"]),
        (&true.into(), &230.into())
    );
    assert_eq!(
        (&lines[1]["is_verified"], &lines[1]["code"]),
        (&false.into(), &171.into())
    );
    assert_eq!(lines[0]["peer"], "127.0.0.1");
    for secret in ["a-password-that-no-log-has", "private-a", "private-b"] {
        assert!(!log.contains(secret), "{log}");
    }
    let told = |path: &str| {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(server.metrics_address()).unwrap();
        std::io::Write::write_all(&mut stream, bytes.as_bytes()).unwrap();
        crate::stage::read(stream).1
    };
    assert!(told("/readyz").contains("ok") && told("/healthz").contains("ok"));
    let metrics = told("/metrics");
    for line in [
        "uimgacc_api_requests_total{action=\"EnableUK8SImageAccelerate\",code=\"230\"} 1",
        "uimgacc_api_cluster_reachable{cluster=\"uk8s-a\"} 0",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[test]
fn a_configuration_is_checked_before_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.toml");
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_uimgacc-api"))
            .args(["check-config", "--config"])
            .arg(&path)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (is_good, said) = check("listen = '127.0.0.1:1'");
    assert!(is_good && said.contains("0 keys, 0 clusters"), "{said}");
    for (text, part) in [
        (
            "listen = '127.0.0.1:1'\nlisteen = 1",
            "unknown field `listeen`",
        ),
        (
            "listen = '127.0.0.1:1'\ntls = { certificate = '/none', key = '/none' }",
            "cannot read the certificate /none",
        ),
        (
            "listen = '127.0.0.1:1'\n[[clusters]]\nid = 'a'\nproject = 'p'\nkubeconfig = '/none'",
            "cluster \"a\": cannot read /none",
        ),
    ] {
        let (is_good, said) = check(text);
        assert!(!is_good && said.contains(part), "{said}");
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
