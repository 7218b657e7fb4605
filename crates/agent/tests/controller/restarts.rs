//! Which node may restart containerd is decided by one write, whoever leads.

use std::sync::Arc;
use std::time::Duration;

use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use uimgacc_controller::context::Shared;
use uimgacc_controller::decide::{Action, cluster};
use uimgacc_controller::execute::{ExecuteError, Executor};
use uimgacc_controller::term::{Term, now};
use uimgacc_controller::view::{AccelerationNodeView, ClusterView};
use uimgacc_objects::{
    AccelerationNode, AccelerationNodeSpec, ImageAcceleration, RestartingNode, names,
};
use uimgacc_testkit::ready;

use super::stage::{NEEDS, Stage};

/// A client with the rights of the agent.
async fn client(stage: &Stage) -> Client {
    let file = Kubeconfig::read_from(stage.service_account("test")).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options).await;
    Client::try_from(config.unwrap()).unwrap()
}

fn executor(client: &Client, identity: &str, lasts: Duration) -> Executor {
    let term = Term::default();
    term.extend(now().plus(lasts));
    let shared = Arc::new(Shared::new(names::NAMESPACE, term));
    Executor::new(client.clone(), identity, shared)
}

/// The status of a cluster in which that node may restart containerd.
fn listing(seen: &ClusterView, name: &str) -> cluster::Status {
    cluster::Status {
        restarting: vec![RestartingNode {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            since: "2026-01-01T00:00:00Z".to_owned(),
        }],
        ..cluster::Status::of(seen)
    }
}

#[tokio::test]
async fn of_two_leaders_one_gives_the_place() {
    if !ready(&NEEDS) {
        return;
    }
    let stage = Stage::start();
    stage.cluster.apply(
        "{apiVersion: uimgacc.io/v1, kind: ImageAcceleration, metadata: {name: default},
          spec: {store: {nfs: {servers: [10.0.0.1]}}, image: 'registry.example/uimgacc:1'}}",
    );
    for node in ["a", "b"] {
        stage.node(node, &json!({"needsRestart": true}));
    }
    let client = client(&stage).await;
    let minute = Duration::from_secs(60);
    let (old, new) = (
        executor(&client, "old", minute),
        executor(&client, "new", minute),
    );

    // The old leader has decided for a and is held up; the new one decides for b.
    let clusters = Api::<ImageAcceleration>::all(client.clone());
    let seen = ClusterView::from(clusters.get(names::DEFAULT).await.unwrap());
    let nodes = Api::<AccelerationNode>::all(client.clone());
    let seen_a = AccelerationNodeView::from(nodes.get("a").await.unwrap());
    let seen_b = AccelerationNodeView::from(nodes.get("b").await.unwrap());
    new.cluster_status(&seen.meta, &listing(&seen, "b"))
        .await
        .unwrap();
    let late = old.cluster_status(&seen.meta, &listing(&seen, "a")).await;
    assert!(matches!(late, Err(ExecuteError::Changed(_))), "{late:?}");
    let status = clusters.get(names::DEFAULT).await.unwrap().status.unwrap();
    assert!(status.may_restart("uid-b") && !status.may_restart("uid-a"));

    // What lies in the nodes' own objects keeps no two leaders apart: b's version is none of a's.
    let ask = |node: &AccelerationNodeView| {
        let spec = AccelerationNodeSpec {
            leaving: true,
            ..AccelerationNodeSpec::default()
        };
        Action::AskNode(node.meta.clone(), spec)
    };
    new.act(ask(&seen_b)).await.unwrap();
    old.act(ask(&seen_a)).await.unwrap();
    // But of one object only the first write counts.
    let late = old.act(ask(&seen_b)).await;
    assert!(matches!(late, Err(ExecuteError::Changed(_))), "{late:?}");
}

#[tokio::test]
async fn an_object_that_came_anew_is_another() {
    if !ready(&NEEDS) {
        return;
    }
    let stage = Stage::start();
    stage.node("a", &json!({}));
    let client = client(&stage).await;
    let nodes = Api::<AccelerationNode>::all(client.clone());
    let seen = AccelerationNodeView::from(nodes.get("a").await.unwrap());
    stage.cluster.kubectl_ok(&["delete", "accnode", "a"]);
    stage.node("a", &json!({}));
    let leader = executor(&client, "one", Duration::from_secs(60));
    let delete = Action::DeleteAccelerationNode(seen.meta.clone());
    for action in [
        delete,
        Action::AskNode(seen.meta.clone(), AccelerationNodeSpec::default()),
    ] {
        let late = leader.act(action).await;
        assert!(matches!(late, Err(ExecuteError::Changed(_))), "{late:?}");
    }
    // Who does not lead any more does not even try.
    let former = executor(&client, "two", Duration::ZERO);
    let late = former.act(Action::DeleteAccelerationNode(seen.meta)).await;
    assert!(
        late.as_ref().is_err_and(ExecuteError::is_deposed),
        "{late:?}"
    );
    assert!(nodes.get_opt("a").await.unwrap().is_some());
}
