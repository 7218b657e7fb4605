//! The Secret with the registry's user and password.
//!
//! It is of type `kubernetes.io/dockerconfigjson`, one entry a registry; a login replaces the entry
//! of its registry and leaves the others.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Map, Value, json};
use uimgacc_objects::access::entry;
use uimgacc_objects::names;

use crate::Cluster;
use crate::error::Error;

/// The registry where none is named.
pub const DOCKER_HUB: &str = "docker.io";
/// The name under which Docker keeps the login of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
const SECRET_TYPE: &str = "kubernetes.io/dockerconfigjson";
const KEY: &str = ".dockerconfigjson";

/// User and password at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Host, perhaps with a port, as in image references; `docker.io` is Docker Hub.
    pub registry: String,
    /// The user.
    pub username: String,
    /// The password or access token.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("registry", &self.registry)
            .field("username", &self.username)
            .field("password", &"[redacted]")
            .finish()
    }
}

/// The Docker config `old` (empty where there is none) with the login in it.
fn merge(old: &[u8], login: &Login) -> Result<Vec<u8>, serde_json::Error> {
    let mut config: Map<String, Value> = if old.is_empty() {
        Map::new()
    } else {
        serde_json::from_slice(old)?
    };
    let key = match login.registry.as_str() {
        DOCKER_HUB | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB_KEY,
        other => other,
    };
    let auth = STANDARD.encode(format!("{}:{}", login.username, login.password));
    let entry = json!({ "username": login.username, "password": login.password, "auth": auth });
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    if let Some(auths) = auths.as_object_mut() {
        auths.insert(key.to_owned(), entry);
    }
    serde_json::to_vec(&config)
}

/// The Secret `name` with the login in it; `old` is what stands there.
pub(crate) fn secret(name: &str, old: Option<Secret>, login: &Login) -> Result<Secret, Error> {
    let invalid = |message: String| Error::Invalid {
        message,
        hint: format!(
            "correct or delete the Secret {}/{name}, then try again",
            names::NAMESPACE
        ),
    };
    let mut secret = old.unwrap_or_else(|| Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(names::NAMESPACE.to_owned()),
            labels: Some(BTreeMap::from([(
                names::PART_OF_LABEL.to_owned(),
                names::PART_OF.to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.to_owned()),
        ..Secret::default()
    });
    if secret.type_.as_deref() != Some(SECRET_TYPE) {
        return Err(invalid(format!(
            "the Secret {}/{name} is of type {}, not {SECRET_TYPE}",
            names::NAMESPACE,
            secret.type_.unwrap_or_default()
        )));
    }
    let mut data = secret.data.unwrap_or_default();
    let old = data
        .get(KEY)
        .map(|bytes| bytes.0.clone())
        .unwrap_or_default();
    let merged = merge(&old, login).map_err(|error| {
        invalid(format!(
            "the Secret {}/{name} holds no Docker config: {error}",
            names::NAMESPACE
        ))
    })?;
    data.insert(KEY.to_owned(), ByteString(merged));
    secret.data = Some(data);
    Ok(secret)
}

/// The registries of a Docker config, as lists of the `ImageAcceleration` have them.
fn registries(config: &[u8]) -> Vec<String> {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let auths = config["auths"].as_object().into_iter().flatten();
    let mut registries: Vec<String> = auths.filter_map(|(key, _)| entry(key)).collect();
    registries.sort_unstable();
    registries.dedup();
    registries
}

impl Cluster {
    /// The registries that a Secret has credentials for; none where it is missing.
    pub(crate) async fn registries_of(&self, name: &str) -> Result<Vec<String>, Error> {
        let secrets = self.ours::<Secret>();
        let secret = secrets.get_opt(name).await;
        let secret = secret.map_err(self.failed(&format!("read the Secret {name}")))?;
        let data = secret.and_then(|secret| secret.data?.remove(KEY));
        Ok(data.map_or_else(Vec::new, |config| registries(&config.0)))
    }

    /// Puts the login into the Secret, which is made where it is missing. Others that write it at
    /// the same time lose nothing: a conflict starts again from what they wrote.
    pub(crate) async fn store_login(&self, name: &str, login: &Login) -> Result<(), Error> {
        const TRIES: u32 = 5;
        let secrets = self.ours::<Secret>();
        let mut tries = 0;
        loop {
            tries += 1;
            let old = secrets
                .get_opt(name)
                .await
                .map_err(self.failed(&format!("read the Secret {name}")))?;
            let is_new = old.is_none();
            let new = secret(name, old, login)?;
            let params = PostParams {
                field_manager: Some(names::FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            let written = if is_new {
                secrets.create(&params, &new).await
            } else {
                secrets.replace(name, &params, &new).await
            };
            match written {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => {}
                Err(error) => {
                    return Err(self.failed(&format!("write the Secret {name}"))(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(registry: &str) -> Login {
        Login {
            registry: registry.to_owned(),
            username: "me".to_owned(),
            password: "s3cret".to_owned(),
        }
    }

    #[test]
    fn logins_are_merged() {
        let one = merge(b"", &login("reg.example.com:5000")).unwrap();
        let two = merge(&one, &login("docker.io")).unwrap();
        let config: Value = serde_json::from_slice(&two).unwrap();
        let auths = config["auths"].as_object().unwrap();
        assert_eq!(auths.len(), 2);
        assert_eq!(auths["reg.example.com:5000"]["auth"], "bWU6czNjcmV0");
        assert_eq!(auths[DOCKER_HUB_KEY]["username"], "me");
        let other = merge(
            br#"{"auths":{"x":{"auth":"eDp5"}},"psFormat":"a"}"#,
            &login("y"),
        )
        .unwrap();
        let config: Value = serde_json::from_slice(&other).unwrap();
        assert_eq!(config["auths"]["x"]["auth"], "eDp5");
        assert_eq!(config["psFormat"], "a");
    }

    #[test]
    fn registries_are_read_as_docker_writes_them() {
        let config = br#"{"auths":{"https://index.docker.io/v1/":{},"r.io":{},"https://r.io/v2/":{},"*.x":{}}}"#;
        assert_eq!(registries(config), ["docker.io", "r.io"]);
        assert!(registries(b"no JSON").is_empty());
    }

    #[test]
    fn passwords_are_not_shown() {
        assert!(!format!("{:?}", login("x")).contains("s3cret"));
    }

    #[test]
    fn other_secrets_are_refused() {
        let opaque = Secret {
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let error = secret("mine", Some(opaque), &login("x")).unwrap_err();
        assert!(error.to_string().contains("is of type Opaque"), "{error}");
    }
}
