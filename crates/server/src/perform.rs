//! Does what was granted, on one cluster, in bounded time.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use uimgacc_api::action::{Action, Verb};
use uimgacc_api::answer::Answer;
use uimgacc_api::{Refusal, Secret};
use uimgacc_control::{
    Cluster, CreateRequest, DeleteRequest, EnableRequest, Error, Login, NodePathChanges, Silent,
    StoreChoice,
};

use crate::answer;
use crate::clusters::{self, Managed};
use crate::config::ClusterConfig;

/// How long a cluster may take to tell how it is; after that its status is `Unknown`.
const TELL: Duration = Duration::from_secs(2);
/// How long after a change no server anywhere tells of the time before it.
const SEEN: Duration = clusters::AGE.saturating_add(Duration::from_millis(50));

/// How long a change may go on by itself.
const LONGEST: Duration = Duration::from_secs(120);
/// How long the server waits at its end for changes that go on.
const LAST: Duration = Duration::from_secs(10);
/// Changes at once, of all clusters.
const MOST: u32 = 4096;
/// Permits for them.
static RUNNING: Semaphore = Semaphore::const_new(MOST as usize);

/// Waits for changes that go on, for a while; there are no more after it.
pub async fn finish() {
    let _ = timeout(LAST, RUNNING.acquire_many(MOST)).await;
    RUNNING.close();
}

/// Does an action; `within` bounds how long. What takes longer than a request goes on by itself.
///
/// # Errors
/// Why it was not done.
pub(crate) async fn perform(
    cluster: &Managed,
    action: Action,
    within: Duration,
) -> Result<Bytes, Refusal> {
    let verb = action.verb();
    if let Action::Get = action {
        return Ok(get(cluster).await);
    }
    let connection = cluster.connection().await.map_err(|why| {
        tracing::warn!(cluster = cluster.config.id, why, "no connection");
        no_answer()
    })?;
    let Ok(permit) = cluster.changes.clone().try_acquire_owned() else {
        return Err(Refusal::Throttled);
    };
    let config = cluster.config.clone();
    let setting_up = cluster.setting_up.clone();
    let Ok(running) = RUNNING.acquire().await else {
        return Err(Refusal::Unavailable("the server ends".to_owned()));
    };
    // A task of its own: a client that goes away leaves nothing half done.
    let work = tokio::spawn(async move {
        let (_permit, _running) = (permit, running);
        let _turn = match verb {
            Verb::Enable | Verb::Disable => Some(setting_up.lock_owned().await),
            Verb::Get | Verb::Create | Verb::Delete => None,
        };
        let done = timeout(LONGEST, change(&connection.cluster, action, config)).await;
        let seen = Instant::now() + SEEN;
        let Ok(done) = done else {
            tracing::warn!(action = verb.name(), "given up: it takes too long");
            return Err(Error::Timeout {
                what: "the cluster has not answered".to_owned(),
                after: LONGEST,
                missing: Vec::new(),
            });
        };
        done?;
        sleep_until(seen).await;
        Ok(())
    });
    match timeout(within, work).await {
        Ok(Ok(Ok(()))) => Ok(json(&Answer::done(verb))),
        Ok(Ok(Err(error))) => {
            tracing::warn!(cluster = cluster.config.id, action = verb.name(), %error, source = ?std::error::Error::source(&error), "refused");
            Err(refusal(verb, &error))
        }
        Ok(Err(_)) => Err(Refusal::Gateway("the server failed".to_owned())),
        Err(_) => Err(Refusal::Gateway(format!(
            "the cluster has not answered in {} s; what was asked for may still come about",
            within.as_secs()
        ))),
    }
}

async fn get(cluster: &Managed) -> Bytes {
    let (last, why) = match cluster.connection().await {
        Err(why) => (None, why),
        Ok(connection) => match connection.images(TELL).await {
            Ok(images) => {
                cluster.set_reachable(true);
                return cluster.answer(&images, || json(&answer::of(&images)));
            }
            Err(why) => (connection.last_images(), why),
        },
    };
    cluster.set_reachable(false);
    tracing::debug!(cluster = cluster.config.id, why, "no answer");
    json(&answer::unknown(
        last.as_deref(),
        "the cluster does not answer",
    ))
}

/// What is asked for, with what the server's configuration says of this cluster.
fn enable_request(
    nfs: Option<String>,
    subnet: Option<String>,
    login: Option<(String, Secret)>,
    config: ClusterConfig,
) -> EnableRequest {
    let preset = config.enable;
    let store = match (preset.host_path, preset.pvc, nfs) {
        (Some(folder), _, _) => Some(StoreChoice::HostPath(folder)),
        (None, Some(claim), _) => Some(StoreChoice::Claim(claim)),
        (None, None, nfs) => nfs.map(StoreChoice::Nfs),
    };
    EnableRequest {
        store,
        subnet,
        login: login.map(|(username, password)| Login {
            registry: config.registry,
            username,
            password: password.reveal().to_owned(),
        }),
        image: preset.image,
        node_selector: preset.node_selector,
        allowed_targets: preset.allowed_targets,
        credentials_for: preset.credentials_for,
        plain_http_registries: preset.plain_http_registries,
        max_conversions: preset.max_conversions,
        max_unavailable: preset.max_unavailable,
        node_paths: NodePathChanges {
            containerd_config: preset.containerd_config,
            containerd_socket: preset.containerd_socket,
            containerd_binary: preset.containerd_binary,
            containerd_restart: preset.containerd_restart,
            ..NodePathChanges::default()
        },
        ..EnableRequest::default()
    }
}

async fn change(cluster: &Cluster, action: Action, config: ClusterConfig) -> Result<(), Error> {
    match action {
        Action::Get => {}
        Action::Enable { nfs, subnet, login } => {
            let request = enable_request(nfs, subnet, login, config);
            cluster.enable(&request, &Silent).await?;
        }
        Action::Create { original, target } => {
            let request = CreateRequest::new(original, target);
            cluster.create(&request).await?;
        }
        Action::Delete { image } => {
            let request = DeleteRequest {
                image,
                force: false,
            };
            cluster.delete(&request).await?;
        }
        Action::Disable => {
            cluster.begin_disable().await?;
        }
    }
    Ok(())
}

fn no_answer() -> Refusal {
    Refusal::Gateway("the cluster does not answer".to_owned())
}

/// What a client is told. Addresses of clusters and what they say of this server's rights are only
/// for the log.
fn refusal(verb: Verb, error: &Error) -> Refusal {
    let rejected = |key: &'static str| Refusal::Rejected {
        key,
        why: error.to_string(),
    };
    match error {
        Error::NoCluster | Error::Kubeconfig { .. } | Error::Unreachable { .. } => no_answer(),
        // What an object may be is told by the cluster itself (admission, validation).
        Error::Api {
            code: 400 | 422,
            message,
            ..
        } => Refusal::Rejected {
            key: image_parameter(verb),
            why: message.clone(),
        },
        Error::Api { .. } => Refusal::Gateway("the cluster refuses it".to_owned()),
        Error::NfsAddress(_) => rejected("NfsAddr"),
        Error::Invalid { .. } if verb == Verb::Enable => rejected("NfsAddr"),
        Error::Reference(_)
        | Error::Access(_)
        | Error::Invalid { .. }
        | Error::NotFound { .. }
        | Error::Ambiguous { .. }
        | Error::TargetTaken { .. } => rejected(image_parameter(verb)),
        Error::NotEnabled => {
            Refusal::Unavailable(format!("{error}: {} enables it", Verb::Enable.name()))
        }
        Error::InUse { .. } => Refusal::InUse(error.to_string()),
        other => Refusal::Unavailable(other.to_string()),
    }
}

/// The parameter that a refusal is about.
const fn image_parameter(verb: Verb) -> &'static str {
    match verb {
        Verb::Enable => "NfsAddr",
        Verb::Create => "TargetImage",
        Verb::Delete => "Image",
        Verb::Get | Verb::Disable => "ClusterId",
    }
}

/// An answer as bytes.
pub(crate) fn json(answer: &impl Serialize) -> Bytes {
    serde_json::to_vec(answer).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_are_told() {
        let code = |verb, error: Error| {
            let refusal = refusal(verb, &error);
            (refusal.code(), refusal.to_string())
        };
        let api = |code: u16| Error::Api {
            action: "create the image x".to_owned(),
            code,
            reason: "Forbidden".to_owned(),
            message: "user system:serviceaccount:x cannot".to_owned(),
        };
        assert_eq!(
            code(Verb::Create, api(403)),
            (130, "the cluster refuses it".to_owned())
        );
        assert_eq!(code(Verb::Create, api(422)).0, 230);
        assert_eq!(
            code(Verb::Create, Error::NotEnabled),
            (
                150,
                "image acceleration is not enabled in this cluster: EnableUK8SImageAccelerate enables it"
                    .to_owned()
            )
        );
        let gone = Error::NotFound {
            image: "r/a:1".to_owned(),
        };
        assert_eq!(
            code(Verb::Delete, gone),
            (
                230,
                "Params [Image] not available: there is no accelerated image r/a:1 in this cluster"
                    .to_owned()
            )
        );
        assert_eq!(code(Verb::Enable, Error::BeingDisabled).0, 150);
        let used = Error::InUse {
            what: "r/a:1".to_owned(),
            holders: Vec::new(),
        };
        assert!(matches!(refusal(Verb::Delete, &used), Refusal::InUse(_)));
        assert_eq!(code(Verb::Create, Error::NoCluster).0, 130);
    }
}
