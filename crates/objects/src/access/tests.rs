#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

const NONE: Option<&[&str]> = None;

/// Original, target and Secret of an image; credentials, targets and sources of the cluster.
fn decide(
    image: (&str, &str, bool),
    credentials: bool,
    targets: Option<&[&str]>,
    sources: Option<&[&str]>,
) -> Result<bool, AccessRefused> {
    let (original, target, secret) = image;
    let mut one = json!({"originalImage": original, "targetImage": target});
    if secret {
        one["pullSecret"] = json!({"name": "team"});
    }
    let mut all = json!({"image": "i", "store": {"hostPath": {"path": "/s"}}});
    if credentials {
        all["registryCredentials"] = json!({"name": "uimgacc-registry"});
    }
    if let Some(targets) = targets {
        all["allowedTargets"] = json!(targets);
    }
    if let Some(sources) = sources {
        all["credentialsFor"] = json!(sources);
    }
    let access = access(
        &serde_json::from_value(one).unwrap(),
        &serde_json::from_value(all).unwrap(),
    );
    access.map(|access| access.original_with_credentials)
}

#[test]
fn targets() {
    let image = |target| ("r.io/app:1", target, false);
    for (target, list, allowed) in [
        ("r.io/app:fast", &["r.io"][..], true),
        ("r.io/team/app:fast", &["r.io/team"], true),
        ("r.io/team/deep/app:fast", &["x.io", "r.io/team"], true),
        ("r.io/team:fast", &["r.io/team"], true),
        // Never a mere prefix of the text.
        ("r.io/team-b/app:fast", &["r.io/team"], false),
        ("r.io.evil.example/app:fast", &["r.io"], false),
        ("r.io:5000/app:fast", &["r.io"], false),
        ("evil.example/r.io/app:fast", &["r.io"], false),
        ("evil.example/app:fast", &["r.io"], false),
        ("r.io/app:fast", &[], false),
        ("r.io/app:fast", &[""], false),
        // Short names are on Docker Hub.
        ("app:fast", &["docker.io"], true),
        ("app:fast", &["docker.io/library"], true),
        ("me/app:fast", &["docker.io/me"], true),
        ("index.docker.io/me/app:fast", &["docker.io/me"], true),
        ("me/app:fast", &["me"], false),
        ("localhost/app:fast", &["localhost"], true),
        ("R.io/app:fast", &["r.io"], false),
    ] {
        for credentials in [false, true] {
            let result = decide(image(target), credentials, Some(list), NONE);
            assert_eq!(result.is_ok(), allowed, "{target} {list:?} {result:?}");
        }
    }
}

#[test]
fn without_a_list_only_what_needs_no_credentials() {
    let image = |secret| ("r.io/app:1", "anywhere.example/app:fast", secret);
    assert_eq!(decide(image(false), false, NONE, NONE), Ok(false));
    for (secret, credentials) in [(true, false), (false, true), (true, true)] {
        let refused = decide(image(secret), credentials, NONE, NONE).unwrap_err();
        assert!(
            refused.to_string().contains("has no allowedTargets"),
            "{refused}"
        );
        assert!(refused.hint().contains("--allow-target"));
        // A list of sources alone says nothing about targets.
        assert!(decide(image(secret), credentials, NONE, Some(&["r.io"])).is_err());
    }
}

#[test]
fn originals() {
    let targets = Some(&["t.io"][..]);
    for (original, sources, with) in [
        ("t.io/app:1", NONE, true),
        ("r.io/app:1", NONE, false),
        ("r.io/app:1", Some(&["r.io"][..]), true),
        ("r.io/b/app:1", Some(&["r.io/a"]), false),
        // Nothing moves between repositories.
        ("t.io/app:1", Some(&[]), true),
        ("t.io/other:1", Some(&[]), false),
    ] {
        let image = (original, "t.io/app:fast", true);
        assert_eq!(
            decide(image, false, targets, sources),
            Ok(with),
            "{original}"
        );
        let image = (original, "t.io/app:fast", false);
        assert_eq!(
            decide(image, true, targets, sources),
            Ok(with),
            "{original}"
        );
        assert_eq!(
            decide(image, false, targets, sources),
            Ok(false),
            "no credentials"
        );
    }
}

#[test]
fn refusals_say_what_is_allowed() {
    let image = ("r.io/app:1", "evil.example/x/app:fast", true);
    let refused = decide(image, false, Some(&["r.io", "t.io/a"]), NONE).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "images may not be pushed to evil.example/x/app: allowedTargets of the ImageAcceleration is r.io, t.io/a"
    );
    let image = ("r.io/UPPER:1", "r.io/app:fast", true);
    assert!(matches!(
        decide(image, false, NONE, NONE),
        Err(AccessRefused::Reference(_))
    ));
}

#[test]
fn entries() {
    for (text, expected) in [
        ("registry.example.com", Some("registry.example.com")),
        (
            "registry.example.com:5000/a/b",
            Some("registry.example.com:5000/a/b"),
        ),
        ("https://index.docker.io/v1/", Some("docker.io")),
        ("registry-1.docker.io", Some("docker.io")),
        ("index.docker.io/me", Some("docker.io/me")),
        ("https://r.io/v2/", Some("r.io")),
        ("r.io/", Some("r.io")),
        ("localhost", Some("localhost")),
        ("docker.io", Some("docker.io")),
        ("team-a", None),
        ("", None),
        ("*.r.io", None),
        ("r.io/a:1", None),
        ("r.io/A", None),
        ("r.io/a@b", None),
        ("r.io//a", None),
    ] {
        assert_eq!(entry(text).as_deref(), expected, "{text}");
    }
}
