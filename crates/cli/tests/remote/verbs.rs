//! What the verbs ask for, print and refuse.

use serde_json::{Value, json};

use crate::service::{Reply, Service, get};
use crate::support::{Home, failed, ok};

const IMAGES: &str = r#"[{"OriginalImage": "nginx", "TargetImage": "reg.example/nginx:fast", "Size": 1210000, "Layers": 6}]"#;

fn images() -> Value {
    serde_json::from_str(IMAGES).unwrap()
}

#[test]
fn get_prints_the_answer_as_it_came() {
    let text = r#"{"RetCode":0,"Action":"GetUK8SImageAccelerateResponse","Zeta":1.5,"Enable":true,"Status":"Ready",
        "NfsReady":true,"AgentReady":true,"Images":IMAGES,"Odd":{"b":null,"a":[]},"Error":""}"#;
    let text = text.replace("IMAGES", IMAGES);
    let service = Service::start([Reply::Text(200, text.clone())]);
    let home = Home::of(&service, "region = 'cn-bj2'\nproject_id = 'org-1'");
    let (out, err) = ok(&home.run(&["get", "-o", "json"]));
    assert_eq!(err, "");
    let squeeze = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(squeeze(&out), squeeze(&text), "the same in the same order");
    assert!(out.starts_with("{\n  \"RetCode\": 0,\n"), "{out}");
    assert_eq!(service.seen(), ["Get ProjectId=org-1 Region=cn-bj2"]);

    let (out, err) = ok(&home.run(&["get"]));
    let row = out.lines().nth(1).unwrap();
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "nginx",
            "reg.example/nginx:fast",
            "1.21",
            "MB",
            "6",
            "Ready"
        ]
    );
    assert!(
        err.contains("uk8s-1 at http://127.0.0.1:") && err.contains("store ready"),
        "{err}"
    );
    for name in ["reg.example/nginx:fast", "docker.io/library/nginx:latest"] {
        let (out, _) = ok(&home.run(&["get", name, "-o", "json"]));
        let one: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(one["Images"], images(), "{name}");
        assert_eq!(one["Zeta"], 1.5);
    }
    let missing = failed(&home.run(&["get", "nginx:2"]), 1);
    assert!(
        missing.contains("no accelerated image docker.io/library/nginx:2 in the cluster uk8s-1"),
        "{missing}"
    );
    let (yaml, _) = ok(&home.run(&["get", "-o", "yaml"]));
    assert!(yaml.starts_with("RetCode: 0\n"), "{yaml}");
}

#[test]
fn get_shows_what_is_being_done() {
    let tasks = json!([
        {"OriginalImage": "nginx", "TargetImage": "r.io/a:1", "Status": "Creating", "Percent": 45, "Stage": "layers"},
        {"OriginalImage": "nginx", "TargetImage": "r.io/b:1", "Status": "CreateError", "Error": "no \u{1b}[31mspace"},
    ]);
    let fields = json!({"Status": "Creating", "Tasks": tasks, "Nodes": 3, "ReadyNodes": 2});
    let service = Service::start([get(fields)]);
    let home = Home::of(&service, "");
    let (out, err) = ok(&home.run(&["get"]));
    assert!(
        out.contains("Creating 45 %") && out.contains("r.io/b:1: no [31mspace"),
        "{out}"
    );
    assert!(!out.contains('\u{1b}'));
    assert!(
        err.contains("2 of 3 nodes ready") && err.contains("not told while the status is Creating"),
        "{err}"
    );
    let (out, _) = ok(&home.run(&["get", "r.io/a:1", "-o", "json"]));
    let one: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(one["Tasks"], json!([tasks[0]]));
    let hidden = failed(&home.run(&["get", "r.io/c:1"]), 1);
    assert!(
        hidden.contains("not told while the status is Creating"),
        "{hidden}"
    );

    let off = json!({"Enable": false, "NfsReady": false, "AgentReady": false, "Status": "Unknown"});
    let service = Service::start([get(off)]);
    let (out, err) = ok(&Home::of(&service, "").run(&["get"]));
    assert_eq!(out.trim(), "");
    assert!(err.contains("not enabled"), "{err}");
}

#[test]
fn enable_sends_arguments_before_settings() {
    let service = Service::start([get(json!({"ReadyNodes": 2, "Nodes": 2}))]);
    let settings = "subnet_id = 's-1'\nnfs_addr = '10.0.0.1:/a'\nuhub_username = 'u'\nuhub_password = 'geheim'";
    let home = Home::of(&service, settings);
    let (out, _) = ok(&home.run(&["enable"]));
    assert_eq!(out, "image acceleration is ready on 2 nodes of uk8s-1\n");
    let arguments = [
        "enable",
        "--nfs",
        "10.0.0.2:/b",
        "--subnet-id",
        "s-2",
        "--username",
        "v",
        "--password-stdin",
        "--no-wait",
    ];
    let (out, _) = ok(&home.run_with(&arguments, "geheim & mehr\n"));
    assert!(out.contains("is being set up in uk8s-1"), "{out}");
    assert_eq!(
        service.seen(),
        [
            "Enable NfsAddr=10.0.0.1:/a SubnetId=s-1 UHubPassword=geheim UHubUsername=u",
            "Get",
            "Enable NfsAddr=10.0.0.2:/b SubnetId=s-2 UHubPassword=geheim & mehr UHubUsername=v",
        ]
    );
    let half = Home::of(&service, "uhub_username = 'u'");
    let text = failed(&half.run(&["enable"]), 1);
    assert!(
        text.contains("uhub_password is not set") && text.contains("UIMGACC_UHUB_PASSWORD"),
        "{text}"
    );
}

#[test]
fn what_the_api_cannot_carry_is_refused_by_name() {
    let service = Service::start([get(json!({}))]);
    let home = Home::of(&service, "");
    for (arguments, names) in [
        ("enable --nfs a --pvc b --image c", None),
        ("enable --pvc b", Some("--pvc: it needs --kubeconfig")),
        (
            "enable --image c --node-selector a=b --bin-dir /x",
            Some("--node-selector, --image, --bin-dir: they need --kubeconfig"),
        ),
        ("enable --registry r --force", Some("--force, --registry")),
        ("enable --cluster-id x --dry-run", Some("--dry-run")),
        (
            "create a b:1 --platform linux/arm64 --pull-secret s",
            Some("--platform, --pull-secret"),
        ),
        ("create a b:1 --no-push", Some("--no-push")),
        ("delete b:1 --force", Some("--force: it needs")),
        ("delete b:1 --no-gc", Some("--no-gc is for local stores")),
        (
            "disable --purge --force",
            Some("--force, --purge: they need"),
        ),
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = home.run(&arguments);
        match names {
            Some(names) => {
                let text = failed(&output, 1);
                assert!(text.contains(names), "{arguments:?}: {text}");
            }
            None => assert_eq!(output.status.code(), Some(2), "{output:?}"),
        }
    }
    let bad = failed(&home.run(&["create", "a/UPPER", "b:1"]), 1);
    assert!(bad.contains("UPPER"), "{bad}");
    let digest = format!("b@sha256:{}", "0".repeat(64));
    assert!(failed(&home.run(&["create", "a", &digest]), 1).contains("must have a tag"));
    assert_eq!(service.seen(), Vec::<String>::new(), "nothing was asked");

    // Manifests are printed without any service, as long as none is asked for.
    let (out, _) = ok(&home.run(&["enable", "--dry-run=crds", "--nfs", "10.0.0.1"]));
    assert!(out.contains("CustomResourceDefinition"), "{out}");
}

#[test]
fn refusals_say_what_to_do() {
    let service = Service::start([get(json!({}))]);
    let home = Home::of(&service, "");
    for (variable, value, parts) in [
        (
            "UIMGACC_PRIVATE_KEY",
            "geheim",
            ["code 171", "check private_key"],
        ),
        (
            "UIMGACC_PUBLIC_KEY",
            "nobody",
            ["code 172", "check public_key"],
        ),
        (
            "UIMGACC_CLUSTER_ID",
            "uk8s-2",
            ["code 230", "check cluster_id"],
        ),
    ] {
        let output = home.command(&["get"]).env(variable, value).output();
        let text = failed(&output.unwrap(), 1);
        for part in parts {
            assert!(text.contains(part), "{text}");
        }
    }
    let text = failed(&home.run(&["get", "--cluster-id", "uk8s-3"]), 1);
    assert!(text.contains("Params [ClusterId] not available"), "{text}");

    let refusal = json!({"RetCode": 299, "Message": "Permission\u{1b}[2J denied", "Action": "x"});
    let service = Service::refusing([get(json!({}))], refusal.into());
    let home = Home::of(&service, "");
    for (arguments, action) in [
        (vec!["enable"], "Enable"),
        (vec!["create", "a", "b:1"], "Create"),
        (vec!["delete", "b:1"], "Delete"),
        (vec!["disable"], "Disable"),
    ] {
        let text = failed(&home.run(&arguments), 1);
        let expected =
            format!("refused {action}UK8SImageAccelerate: Permission [2J denied (code 299)");
        assert!(
            text.contains(&expected) && text.contains("rights"),
            "{text}"
        );
    }
    let seen = service.seen();
    // `delete` looks first what the name means.
    assert_eq!(seen.len(), 5, "none was asked twice: {seen:?}");

    let refusal = json!({"RetCode": 150, "Message": "b is in use by default/p", "Action": "x", "Reason": "InUse"});
    let service = Service::refusing([get(json!({}))], refusal.into());
    let home = Home::of(&service, "");
    for arguments in [vec!["delete", "b:1"], vec!["disable"]] {
        let text = failed(&home.run(&arguments), 4);
        assert!(text.contains("end these Pods first"), "{text}");
    }
}

#[test]
fn what_is_no_answer_of_this_api_is_said() {
    for (reply, part) in [
        (Reply::Text(200, "<html>geheim".to_owned()), "web page"),
        (Reply::Text(502, "<html>".to_owned()), "HTTP 502"),
        (Reply::Text(302, String::new()), "HTTP 302"),
        (Reply::Text(200, "{}".to_owned()), "no RetCode"),
        (Reply::Text(200, "[0]".to_owned()), "no JSON object"),
        (
            Reply::Text(200, " ".repeat(17 << 20)),
            "longer than 16777216 bytes",
        ),
        (Reply::Broken, "no answer from"),
    ] {
        let service = Service::start([reply]);
        let text = failed(&Home::of(&service, "").run(&["get"]), 1);
        assert!(text.contains(part), "{text}");
        assert_eq!(service.seen().len(), 1, "get asks once");
    }
    let service = Service::refusing([get(json!({}))], Reply::Broken);
    let text = failed(&Home::of(&service, "").run(&["create", "a", "b:1"]), 1);
    assert!(text.contains("may have arrived"), "{text}");

    let home = Home::new();
    home.write(
        "base_url = 'http://127.0.0.1:9'\npublic_key = 'a'\nprivate_key = 'b'\ncluster_id = 'c'",
    );
    let text = failed(&home.run(&["create", "a", "b:1"]), 1);
    assert!(text.contains("no answer from http://127.0.0.1:9"), "{text}");
    assert!(
        text.contains("refused") && !text.contains("may have arrived"),
        "{text}"
    );
}
