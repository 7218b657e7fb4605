//! Captured requests: cut otherwise, sent again, and the second signature against both.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use uimgacc_api::exact::{HEADER, Sent, WINDOW};
use uimgacc_remote::{Client, Request, Setting, Settings, Source};
use uimgacc_testkit::{ApiServer, Need, UcloudSdk, ready};

use crate::stage::{
    NOWHERE, TWO_PROJECTS, ask, code, form, post, request, signed, start, two_projects,
};

const FORM: &str = "application/x-www-form-urlencoded";
const GET: [(&str, &str); 3] = [
    ("Action", "GetUK8SImageAccelerate"),
    ("PublicKey", "a"),
    ("ClusterId", "uk8s-a"),
];

/// Clusters that one key may change, so that a cut can go from one to the other.
const TWO_CLUSTERS: &str = r#"
[[keys]]
public_key = "a"
private_key = "private-a"
projects = { org-a = "write" }
[[clusters]]
id = "uk8s-a"
project = "org-a"
kubeconfig = "{dir}/nowhere"
[[clusters]]
id = "uk8s-b"
project = "org-a"
kubeconfig = "{dir}/nowhere"
"#;

fn sdk(base_url: String) -> UcloudSdk {
    UcloudSdk {
        base_url,
        region: "cn-bj2".to_owned(),
        project_id: "org-a".to_owned(),
        public_key: "a".to_owned(),
        private_key: "private-a".to_owned(),
    }
}

/// What the SDK sends: the parameters with their signature.
fn captured(action: &str, parameters: &Value) -> Vec<(String, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sdk = sdk(format!("http://{}", listener.local_addr().unwrap()));
    let hearing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        let body = loop {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the SDK ended its request early");
            all.extend_from_slice(&bytes[..count]);
            let text = String::from_utf8_lossy(&all);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
            if body.len() >= length {
                break body.to_owned();
            }
        };
        let answer = r#"{"RetCode": 0}"#;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        )
        .unwrap();
        body
    });
    assert_eq!(sdk.invoke(action, parameters)["RetCode"], 0);
    let body = hearing.join().unwrap();
    form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect()
}

/// The text that was signed, without the private key.
fn text(pairs: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = pairs.iter().filter(|(key, _)| key != "Signature").collect();
    sorted.sort();
    sorted
        .iter()
        .map(|(key, value)| format!("{key}{value}"))
        .collect()
}

/// Those parameters with the signature that was captured; the text is the same.
fn recut(captured: &[(String, String)], pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    assert_eq!(text(&all), text(captured));
    all.extend(
        captured
            .iter()
            .filter(|(key, _)| key == "Signature")
            .cloned(),
    );
    all
}

#[test]
fn a_tag_is_not_cut_off() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let server = start(TWO_CLUSTERS, &[("nowhere", NOWHERE)]);
    let heard = captured(
        "CreateUK8SImageAccelerate",
        &json!({"ClusterId": "uk8s-a", "OriginalImage": "r/x:1", "TargetImage": "r/x:prod_fast"}),
    );
    // As it was sent it is good: only the cluster is missing.
    assert_eq!(code(&post(&server, &heard)).0, 130);
    let common = [
        ("Action", "CreateUK8SImageAccelerate"),
        ("ClusterId", "uk8s-a"),
        ("OriginalImage", "r/x:1"),
        ("ProjectId", "org-a"),
        ("PublicKey", "a"),
        ("Region", "cn-bj2"),
        ("TargetImage", "r/x:prod"),
    ];
    for rest in [("_fast", ""), ("_", "fast")] {
        let pairs = [&common[..], &[rest]].concat();
        let (code, message) = code(&post(&server, &recut(&heard, &pairs)));
        assert_eq!(code, 230, "{message}");
        assert!(message.contains("no such parameter"), "{message}");
    }
    let original = [
        ("Action", "CreateUK8SImageAccelerate"),
        ("ClusterId", "uk8s-a"),
        ("OriginalImage", "r/x:1ProjectIdorg-a"),
        ("PublicKey", "a"),
        ("Region", "cn-bj2"),
        ("TargetImage", "r/x:prod_fast"),
    ];
    let (code, message) = code(&post(&server, &recut(&heard, &original)));
    assert_eq!(code, 230, "{message}");
    assert!(message.contains("\"ProjectId\""), "{message}");
}

#[test]
fn a_create_does_not_become_a_disable() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let server = start(TWO_CLUSTERS, &[("nowhere", NOWHERE)]);
    // Whoever chooses the tag hears the request and cuts it at his word.
    let tag = "ActionDisableUK8SImageAccelerateClusterIduk8s-bZ";
    let heard = captured(
        "CreateUK8SImageAccelerate",
        &json!({"ClusterId": "uk8s-a", "OriginalImage": format!("r/x:{tag}"), "TargetImage": "r/x:fast"}),
    );
    assert_eq!(
        code(&post(&server, &heard)).0,
        130,
        "it is a good request by itself"
    );
    let begin = "ctionCreateUK8SImageAccelerateClusterIduk8s-aOriginalImager/x:";
    let pairs = [
        ("A", begin),
        ("Action", "DisableUK8SImageAccelerate"),
        ("ClusterId", "uk8s-b"),
        // It takes up what is left of the tag, up to the next key that is wanted.
        (
            "Z",
            "ProjectIdorg-aPublicKeyaRegioncn-bj2TargetImager/x:fast",
        ),
    ];
    // Without a public key behind it, so with one in the tag.
    let refused = code(&post(&server, &recut(&heard, &pairs)));
    assert_eq!(refused.0, 220, "{refused:?}");
    let tag = "ActionDisableUK8SImageAccelerateClusterIduk8s-bPublicKeyaZ";
    let heard = captured(
        "CreateUK8SImageAccelerate",
        &json!({"ClusterId": "uk8s-a", "OriginalImage": format!("r/x:{tag}"), "TargetImage": "r/x:fast"}),
    );
    let pairs = [
        ("A", begin),
        ("Action", "DisableUK8SImageAccelerate"),
        ("ClusterId", "uk8s-b"),
        ("PublicKey", "a"),
        (
            "Z",
            "ProjectIdorg-aPublicKeyaRegioncn-bj2TargetImager/x:fast",
        ),
    ];
    let (code, message) = code(&post(&server, &recut(&heard, &pairs)));
    assert_eq!(code, 230, "{message}");
    assert!(message.starts_with("Params [A] not available"), "{message}");
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A form by POST with the second signature.
fn exact(server: &ApiServer, body: &str, private_key: &str, time: u64, nonce: u8) -> (u64, String) {
    let sent = Sent {
        method: "POST",
        query: "",
        content_type: FORM,
        body: body.as_bytes(),
    };
    let header = sent.sign(private_key, time, [nonce; 16]);
    with_header(server, body, &header)
}

fn with_header(server: &ApiServer, body: &str, header: &str) -> (u64, String) {
    // A line more in the head.
    let kind = format!("{FORM}\r\n{HEADER}: {header}");
    code(&ask(
        server,
        &request("POST", "/", Some(&kind), body.as_bytes()),
    ))
}

#[test]
fn the_second_signature_counts_once() {
    let server = two_projects();
    let body = form(&signed(&GET, "private-a"));
    let time = now();
    let wrong = (171, "Signature VerifyAC Error".to_owned());
    assert_eq!(exact(&server, &body, "private-a", time, 1).0, 0);
    let again = exact(&server, &body, "private-a", time, 1);
    assert_eq!(again.0, 171);
    assert!(again.1.contains("received before"), "{}", again.1);
    assert_eq!(exact(&server, &body, "private-a", time, 2).0, 0);
    assert_eq!(exact(&server, &body, "private-b", time, 3), wrong);
    // It is of another body, or nothing at all.
    let sent = Sent {
        method: "POST",
        query: "",
        content_type: FORM,
        body: b"else",
    };
    assert_eq!(
        with_header(&server, &body, &sent.sign("private-a", time, [4; 16])),
        wrong
    );
    assert_eq!(with_header(&server, &body, "v2"), wrong);
    for time in [time - WINDOW - 60, time + WINDOW + 60] {
        let refused = exact(&server, &body, "private-a", time, 5);
        assert_eq!(refused.0, 171);
        assert!(refused.1.contains("set the clock"), "{}", refused.1);
    }
    // Without the header the request is the old one.
    assert_eq!(code(&post(&server, &signed(&GET, "private-a"))).0, 0);
    // What was used is still known after a reload.
    server_reloads(&server);
    assert_eq!(exact(&server, &body, "private-a", time, 1).0, 171);
}

fn server_reloads(server: &ApiServer) {
    let path = server.dir().join("api.toml");
    let old = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, old.replace("\"private-b\"", "\"private-new\"")).unwrap();
    let pairs = [
        ("Action", "GetUK8SImageAccelerate"),
        ("PublicKey", "b"),
        ("ClusterId", "uk8s-b"),
    ];
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while code(&post(server, &signed(&pairs, "private-new"))).0 != 0 {
        assert!(std::time::Instant::now() < deadline, "not reloaded");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a_server_may_require_the_second_signature() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let server = start(
        &format!("require = \"v2\"\n{TWO_PROJECTS}"),
        &[("nowhere", NOWHERE)],
    );
    let refused =
        sdk(server.url()).invoke("GetUK8SImageAccelerate", &json!({"ClusterId": "uk8s-a"}));
    assert_eq!(refused["RetCode"], 170, "{refused}");
    let message = refused["Message"].as_str().unwrap();
    assert!(message.contains("X-Uimgacc-Signature"), "{message}");
    // Our own client sends it.
    let mut settings = Settings::default();
    for (setting, text) in [
        (Setting::BaseUrl, server.url()),
        (Setting::PublicKey, "a".to_owned()),
        (Setting::PrivateKey, "private-a".to_owned()),
        (Setting::ClusterId, "uk8s-a".to_owned()),
    ] {
        settings.set(setting, text, Source::Argument);
    }
    let client = Client::new(settings).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for _ in 0..3 {
        let answer = runtime.block_on(client.send(&Request::Get));
        assert_eq!(answer.unwrap().answer.ret_code, Some(0));
    }
}

#[test]
fn wrong_signatures_are_limited_by_address_and_nobody_else_is() {
    let config = TWO_PROJECTS.replace(
        "seconds = 5\n",
        "seconds = 5\nwrong_signatures_per_second = 5\n",
    );
    let server = start(&config, &[("nowhere", NOWHERE)]);
    let asked = |public: &str, private: &str| {
        let pairs = [GET[0], ("PublicKey", public), ("ClusterId", "uk8s-b")];
        code(&post(&server, &signed(&pairs, private)))
    };
    // A key that somebody has and one that nobody has cannot be told apart.
    let throttled = |public: &str| {
        let answers: Vec<_> = (0..60).map(|_| asked(public, "wrong")).collect();
        for (code, message) in &answers {
            match code {
                171 => assert_eq!(message, "Signature VerifyAC Error"),
                _ => assert_eq!(*code, 153, "{message}"),
            }
        }
        answers.iter().filter(|(code, _)| *code == 153).count()
    };
    assert!(throttled("a") > 0 && throttled("nobody") > 0);
    // The same address, the same key: whoever signs rightly is served.
    assert_eq!(asked("a", "private-a").0, 230);
    assert_eq!(asked("b", "private-b").0, 0);
    let log = server.log();
    assert!(!log.contains("\"code\":153"), "{log}");
    assert!(log.contains("\"code\":171"), "{log}");
}

#[test]
fn unknown_keys_are_told_where_that_is_configured() {
    let server = start(
        &format!("reveal_unknown_keys = true\n{TWO_PROJECTS}"),
        &[("nowhere", NOWHERE)],
    );
    let pairs = [GET[0], ("PublicKey", "nobody"), GET[2]];
    let refused = code(&post(&server, &signed(&pairs, "x")));
    assert_eq!(refused, (172, "User Not Exists".to_owned()));
    assert_eq!(code(&post(&server, &signed(&GET, "x"))).0, 171);
}
