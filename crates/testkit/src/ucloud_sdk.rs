//! UCloud's SDK for Python, unmodified, against a server of ours.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::parts;

/// Reads parameters from standard input and prints the answer, or the error as the SDK tells it.
const SCRIPT: &str = r#"
import json, sys
from ucloud.client import Client
from ucloud.core import exc
ask = json.load(sys.stdin)
client = Client(ask["client"])
try:
    answer = client.invoke(ask["action"], ask["parameters"])
except exc.RetCodeException as error:
    answer = {"RetCode": error.code, "Message": error.message, "Action": error.action}
print(json.dumps(answer))
"#;

/// A client with its keys.
#[derive(Debug, Clone)]
pub struct UcloudSdk {
    /// `http://` or `https://` with host and port.
    pub base_url: String,
    /// Region.
    pub region: String,
    /// Project.
    pub project_id: String,
    /// Public key.
    pub public_key: String,
    /// Private key.
    pub private_key: String,
}

/// A client that trusts a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Trusting<'s> {
    sdk: &'s UcloudSdk,
    certificate: &'s str,
}

impl Trusting<'_> {
    /// As [`UcloudSdk::invoke`].
    #[must_use]
    pub fn invoke(&self, action: &str, parameters: &Value) -> Value {
        self.sdk.run(action, parameters, Some(self.certificate))
    }
}

impl UcloudSdk {
    /// `Client(...).invoke(action, parameters)`: its answer, or code and message of its `RetCodeException`.
    ///
    /// # Panics
    /// Where the SDK fails in another way; what it printed is shown.
    #[must_use]
    pub fn invoke(&self, action: &str, parameters: &Value) -> Value {
        self.run(action, parameters, None)
    }

    /// The same with a file of certificates to trust.
    #[must_use]
    pub fn trusting<'s>(&'s self, certificate: &'s str) -> Trusting<'s> {
        Trusting {
            sdk: self,
            certificate,
        }
    }

    fn run(&self, action: &str, parameters: &Value, certificate: Option<&str>) -> Value {
        use std::io::Write as _;
        let ask = serde_json::json!({
            "client": {
                "region": self.region, "project_id": self.project_id, "base_url": self.base_url,
                "public_key": self.public_key, "private_key": self.private_key,
                "timeout": 30, "max_retries": 0,
            },
            "action": action,
            "parameters": parameters,
        });
        let mut python = Command::new("python3");
        python
            .args(["-c", SCRIPT])
            .env("PYTHONPATH", parts::dir().join("ucloud-sdk"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(certificate) = certificate {
            python.env("REQUESTS_CA_BUNDLE", certificate);
        }
        let mut child = python.spawn().expect("python3 starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(ask.to_string().as_bytes())
            .expect("the SDK reads");
        drop(stdin);
        let output = child.wait_with_output().expect("the SDK ends");
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(said.trim()).unwrap_or_else(|_| {
            panic!(
                "{action}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }
}
