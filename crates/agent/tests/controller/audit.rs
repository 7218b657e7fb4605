//! What the controllers asked of kube-apiserver, by its own audit log.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use tempfile::TempDir;

const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
  "rules": [{"level": "RequestResponse", "users": ["system:serviceaccount:kube-system:uimgacc-agent"],
    "resources": [{"group": "", "resources": ["secrets"]}]}, {"level": "Metadata", "users": ["system:serviceaccount:kube-system:uimgacc-agent"]}, {"level": "None"}]}"#;

/// A request of a controller that reached kube-apiserver.
#[derive(Debug)]
pub(crate) struct Request {
    /// Which controller: each has a token of its own.
    pub(crate) credential: String,
    /// When it arrived.
    pub(crate) received: String,
    /// `verb resource`.
    pub(crate) what: String,
    /// Path and status.
    answer: String,
}

impl Request {
    pub(crate) fn writes(&self) -> bool {
        !["get ", "list ", "watch "]
            .iter()
            .any(|verb| self.what.starts_with(verb))
    }

    /// Whether it was refused because the object is not what the request says.
    pub(crate) fn is_refused(&self) -> bool {
        self.answer.ends_with(" 409")
    }
}

/// The log.
pub(crate) struct Audit {
    dir: TempDir,
}

impl Audit {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("policy.json"), POLICY).unwrap();
        Self { dir }
    }

    /// What kube-apiserver is to be started with.
    pub(crate) fn args(&self) -> Vec<String> {
        let dir = self.dir.path().display();
        vec![
            format!("--audit-policy-file={dir}/policy.json"),
            format!("--audit-log-path={dir}/audit.log"),
        ]
    }

    /// All requests of controllers, in the order of their arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let text = fs::read_to_string(self.dir.path().join("audit.log")).unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut requests: Vec<Request> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            // A watch is there twice: when it begins, and when it ends.
            .filter(|event| event["verb"] != "watch" || event["stage"] == "ResponseStarted")
            .map(|event| {
                let object = &event["objectRef"];
                let sub = word(&object["subresource"]);
                let sub = if sub.is_empty() {
                    sub
                } else {
                    format!("/{sub}")
                };
                Request {
                    credential: word(
                        &event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0],
                    ),
                    received: word(&event["requestReceivedTimestamp"]),
                    what: format!(
                        "{} {}{sub}",
                        word(&event["verb"]),
                        word(&object["resource"])
                    ),
                    answer: format!(
                        "{} {}",
                        event["requestURI"], event["responseStatus"]["code"]
                    ),
                }
            })
            .collect();
        requests.sort_by(|one, other| one.received.cmp(&other.received));
        requests
    }

    /// What the controllers were sent about Secrets.
    pub(crate) fn secrets(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("audit.log")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| event["objectRef"]["resource"] == "secrets")
            .collect()
    }

    /// How many of each, after the first `skip`.
    pub(crate) fn counts(&self, skip: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in self.requests().into_iter().skip(skip) {
            *counts.entry(request.what).or_default() += 1;
        }
        counts
    }
}
