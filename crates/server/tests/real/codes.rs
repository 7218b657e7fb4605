//! Every code that clients know, as they meet it; and what one project can see of another.

use std::time::{Duration, Instant};

use serde_json::json;
use uimgacc_testkit::UcloudSdk;

use crate::stage::{code, post, signed, start, two_projects};

const GET: (&str, &str) = ("Action", "GetUK8SImageAccelerate");
const A: (&str, &str) = ("PublicKey", "a");
const ORG_A: (&str, &str) = ("ProjectId", "org-a");
const ON_A: (&str, &str) = ("ClusterId", "uk8s-a");

#[test]
fn every_code() {
    let server = two_projects();
    let create = ("Action", "CreateUK8SImageAccelerate");
    let images = [("OriginalImage", "r/a:1"), ("TargetImage", "r/a:fast")];
    let told = |pairs: &[(&str, &str)], key: &str| code(&post(&server, &signed(pairs, key)));
    type Case<'c> = (&'c [(&'c str, &'c str)], &'c str, u64, &'c str);
    let cases: &[Case<'_>] = &[
        (&[GET, A, ORG_A, ON_A], "private-a", 0, ""),
        (
            &[create, A, ORG_A, ON_A, images[0], images[1]],
            "private-a",
            130,
            "the cluster does not answer",
        ),
        (&[A, ORG_A, ON_A], "private-a", 160, "Missing Action"),
        (
            &[("Action", "DescribeUHostInstance"), A],
            "private-a",
            161,
            "Action [DescribeUHostInstance] not found",
        ),
        (
            &[GET, A, ORG_A, ON_A],
            "private-b",
            171,
            "Signature VerifyAC Error",
        ),
        (
            &[GET, ("PublicKey", "nobody"), ORG_A, ON_A],
            "private-a",
            171,
            "Signature VerifyAC Error",
        ),
        (
            &[GET, A, ORG_A],
            "private-a",
            220,
            "Missing params [ClusterId]",
        ),
        (
            &[create, A, ORG_A, ON_A, images[1]],
            "private-a",
            220,
            "Missing params [OriginalImage]",
        ),
        (
            &[create, A, ORG_A, ON_A, ("OriginalImage", "A B"), images[1]],
            "private-a",
            230,
            "Params [OriginalImage] not available",
        ),
        (
            &[GET, A, ("ProjectId", "org-b"), ON_A],
            "private-a",
            292,
            "Project [org-b] not exists",
        ),
        (
            &[
                ("Action", "DisableUK8SImageAccelerate"),
                ("PublicKey", "reader"),
                ORG_A,
                ON_A,
            ],
            "private-reader",
            299,
            "Permission denied",
        ),
    ];
    for (pairs, key, expected, message) in cases {
        assert_eq!(
            told(pairs, key),
            (*expected, (*message).to_owned()),
            "{pairs:?}"
        );
    }
    let unsigned: Vec<(String, String)> = [GET, A, ORG_A, ON_A]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
    assert_eq!(
        code(&post(&server, &unsigned)),
        (170, "Missing Signature".to_owned())
    );
    let answer = post(&server, &signed(&[GET, A, ORG_A], "private-a"));
    assert_eq!(answer["Action"], "GetUK8SImageAccelerateResponse");
}

#[test]
fn too_many_requests_are_throttled() {
    let config = "[limits]\nrequests_per_second = 5\n\
        [[keys]]\npublic_key = \"a\"\nprivate_key = \"p\"\nprojects = { o = \"write\" }\n\
        [[keys]]\npublic_key = \"b\"\nprivate_key = \"q\"\nprojects = { o = \"write\" }\n";
    let server = start(config, &[]);
    let asked = |public: &str, private: &str| {
        let pairs = signed(&[GET, ("PublicKey", public), ("ClusterId", "x")], private);
        code(&post(&server, &pairs)).0
    };
    // Whoever has no private key uses up nobody's share.
    for _ in 0..100 {
        assert_eq!(asked("a", "wrong"), 171);
    }
    let began = Instant::now();
    let codes: Vec<u64> = (0..60).map(|_| asked("a", "p")).collect();
    let throttled = codes.iter().filter(|code| **code == 153).count();
    // Two seconds' worth at once, then as many as come to be.
    let most = 10.0 + 5.0 * began.elapsed().as_secs_f64();
    assert!((60 - throttled) as f64 <= most + 1.0, "{most}: {codes:?}");
    assert_eq!(codes[0], 230);
    assert_eq!(asked("b", "q"), 230, "each key has a share of its own");
}

#[test]
fn a_project_sees_nothing_of_another() {
    let server = two_projects();
    let of = |public: &str, private: &str, project: &str, cluster: &str, action: &str| {
        let pairs = [
            ("Action", action),
            ("PublicKey", public),
            ("ProjectId", project),
            ("ClusterId", cluster),
        ];
        post(&server, &signed(&pairs, private))
    };
    for action in [
        "GetUK8SImageAccelerate",
        "EnableUK8SImageAccelerate",
        "DisableUK8SImageAccelerate",
        "CreateUK8SImageAccelerate",
        "DeleteUK8SImageAccelerate",
    ] {
        let other = of("b", "private-b", "org-b", "uk8s-a", action);
        let none = of("b", "private-b", "org-b", "uk8s-none", action);
        // Not to be told apart from one that is not there.
        assert_eq!(other, none);
        assert_eq!(code(&other).0, 230);
        assert_eq!(
            code(&of("b", "private-b", "org-a", "uk8s-a", action)).0,
            292
        );
        assert_eq!(
            code(&of("b", "private-a", "org-b", "uk8s-b", action)).0,
            171
        );
    }
}

#[test]
fn the_sdk_reads_refusals() {
    if !uimgacc_testkit::ready(&[uimgacc_testkit::Need::Parts]) {
        return;
    }
    let server = two_projects();
    let sdk = UcloudSdk {
        base_url: server.url(),
        region: "cn-bj2".to_owned(),
        project_id: "org-a".to_owned(),
        public_key: "a".to_owned(),
        private_key: "private-a".to_owned(),
    };
    let get = "GetUK8SImageAccelerate";
    let began = Instant::now();
    let unknown = sdk.invoke(get, &json!({"ClusterId": "uk8s-a"}));
    assert_eq!(unknown["Status"], "Unknown", "{unknown}");
    assert!(began.elapsed() < Duration::from_secs(5));
    // Values of every kind are signed as it signs them.
    let more = json!({
        "ClusterId": "uk8s-a", "Empty": "", "List": ["a", "b"], "Number": 42, "Float": 42.5,
        "Whole": 42.0, "Yes": true, "Map": {"a": {"b": 1}}, "中": "文 &=+%",
    });
    // The signature fits, then a parameter is refused that the action does not have.
    let refused = sdk.invoke(get, &more);
    assert_eq!(
        (&refused["RetCode"], &refused["Message"]),
        (
            &json!(230),
            &json!("Params [Empty] not available: this action has no such parameter")
        )
    );
    let wrong = UcloudSdk {
        private_key: "private-b".to_owned(),
        ..sdk.clone()
    };
    let refused = wrong.invoke(get, &json!({"ClusterId": "uk8s-a"}));
    assert_eq!(
        (&refused["RetCode"], &refused["Message"]),
        (&json!(171), &json!("Signature VerifyAC Error"))
    );
    let refused = sdk.invoke("CreateUK8SImageAccelerate", &json!({"ClusterId": "uk8s-a"}));
    assert_eq!(refused["RetCode"], 220);
}
