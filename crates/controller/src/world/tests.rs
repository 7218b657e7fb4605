#![allow(clippy::unwrap_used)]

use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use uimgacc_objects::NodeTotals;

use super::super::decide::nodes::Standing;
use super::super::view::Meta;
use super::super::wire::WirePod;
use super::*;

fn object<T: serde::de::DeserializeOwned>(kind: &str, name: &str, with: Value) -> T {
    let mut object = json!({
        "apiVersion": "uimgacc.io/v1", "kind": kind,
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {},
    });
    for (key, value) in with.as_object().unwrap() {
        match (object[key].as_object_mut(), value.as_object()) {
            (Some(old), Some(new)) => old.extend(new.clone()),
            _ => object[key] = value.clone(),
        }
    }
    serde_json::from_value(object).unwrap()
}

fn image(name: &str, target: &str, with: Value) -> AcceleratedImage {
    let mut with = with;
    with["spec"] = json!({"originalImage": "r.example/app:1", "targetImage": target});
    object("AcceleratedImage", name, with)
}

fn pod(name: &str, image: &str, node: Option<&str>, phase: &str) -> Event<PodView> {
    let wire: WirePod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "resourceVersion": "1"},
        "spec": {"nodeName": node, "containers": [{"image": "other"}], "initContainers": [{"image": image}]},
        "status": {"phase": phase},
    }))
    .unwrap();
    Event::Apply(wire.into())
}

fn node(name: &str) -> Event<NodeView> {
    let labels = [("kubernetes.io/os".to_owned(), "linux".to_owned())];
    Event::Apply(NodeView::of(ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels.into()),
        ..ObjectMeta::default()
    }))
}

fn world() -> World {
    let mut world = World::new("kube-system");
    let spec = json!({"spec": {"store": {"hostPath": {"path": "/s"}}, "image": "i"}});
    world.cluster_event(Event::Apply(object("ImageAcceleration", "default", spec)));
    world
}

#[test]
fn references_are_compared_as_they_are_meant() {
    let digest = format!("sha256:{}", "2".repeat(64));
    let other = format!("sha256:{}", "3".repeat(64));
    let parse = |text: &str| text.parse::<ImageReference>().unwrap();
    for (used, image, same) in [
        ("app:1".to_owned(), "docker.io/library/app:1", true),
        ("app".to_owned(), "app:latest", true),
        ("app:2".to_owned(), "app:1", false),
        ("r.example/app:1".to_owned(), "app:1", false),
        (format!("app@{digest}"), "app:1", true),
        (format!("app:whatever@{digest}"), "app:1", true),
        (format!("app:1@{other}"), "app:1", false),
    ] {
        assert_eq!(
            is_same(&parse(&used), &parse(image), Some(&digest)),
            same,
            "{used}"
        );
    }
}

#[test]
fn users_are_pods_that_run_or_will() {
    let mut world = world();
    let chain = json!({"status": {"phase": "Ready", "chainToken": "sha256:c"}});
    let one = image("one", "r.example/app:fast", chain);
    world.image(Event::Apply(one));
    let view = world.images.get("one").unwrap().clone();
    world.pod(pod("runs", "r.example/app:fast", Some("n1"), "Running"));
    world.pod(pod("waits", "r.example/app:fast", None, "Pending"));
    world.pod(pod("done", "r.example/app:fast", Some("n1"), "Succeeded"));
    world.pod(pod("original", "r.example/app:1", Some("n1"), "Running"));
    let targets = ["default/runs on n1", "default/waits on no node yet"];
    assert_eq!(world.users(&view, true), targets, "the node is not set up");
    let lease = |containers: u32| {
        let held = json!({"token": "sha256:c", "containers": containers});
        let status = json!({"chains": [held]});
        Event::Apply(object("AccelerationNode", "n1", json!({"status": status})))
    };
    world.acceleration_node(lease(0));
    assert_eq!(
        world.users(&view, true),
        targets,
        "nothing lies on the chain"
    );
    world.acceleration_node(lease(1));
    let all = ["default/original on n1", targets[0], targets[1]];
    assert_eq!(world.users(&view, true), all);
    assert_eq!(world.users(&view, false), targets);
    let Event::Apply(gone) = pod("runs", "r.example/app:fast", Some("n1"), "Running") else {
        unreachable!()
    };
    world.pod(Event::Delete(gone));
    assert_eq!(world.users(&view, false), targets[1..]);
}

#[test]
fn holders_are_nodes_that_exist() {
    let mut world = world();
    world.image(Event::Apply(image(
        "one",
        "a:f",
        json!({"status": {"chainToken": "c"}}),
    )));
    let view = world.images.get("one").unwrap().clone();
    let holds = |chain: &str, version: &str| {
        let status = json!({"chains": [{"token": chain, "containers": 4}]});
        let metadata = json!({"resourceVersion": version});
        object(
            "AccelerationNode",
            "n1",
            json!({"status": status, "metadata": metadata}),
        )
    };
    world.acceleration_node(Event::Apply(holds("c", "1")));
    assert!(world.holders(&view).is_empty());
    world.node(node("n1"));
    assert_eq!(world.holders(&view), [("n1".to_owned(), 4)]);
    world.acceleration_node(Event::Apply(holds("other", "2")));
    assert!(world.holders(&view).is_empty());
}

#[test]
fn a_change_concerns_what_it_touches() {
    let mut world = world();
    let keys = world.image(Event::Apply(image("one", "a:f", json!({}))));
    assert_eq!(keys, [Key::Jobs, Key::Image("one".to_owned())].into());
    // The other with the same target too.
    let keys = world.image(Event::Apply(image(
        "two",
        "docker.io/library/a:f",
        json!({}),
    )));
    assert!(keys.contains(&Key::Image("one".to_owned())));
    // A Pod concerns nobody as long as nothing is deleted.
    assert!(world.pod(pod("p", "a:f", None, "Running")).is_empty());
    let deleting =
        json!({"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z", "resourceVersion": "2"}});
    let keys = world.image(Event::Apply(image("one", "a:f", deleting)));
    assert!(keys.contains(&Key::Nodes));
    let keys = world.pod(pod("q", "a:f", None, "Running"));
    assert_eq!(keys, [Key::Nodes, Key::Image("one".to_owned())].into());
    // The heartbeat of a node changes nothing.
    assert!(!world.node(node("n1")).is_empty());
    let again = NodeView {
        meta: Meta {
            version: "9".to_owned(),
            ..world.nodes.get("n1").unwrap().meta.clone()
        },
        ..(**world.nodes.get("n1").unwrap()).clone()
    };
    assert!(world.node(Event::Apply(again)).is_empty());
}

#[test]
fn of_two_with_one_target_the_later_has_a_twin() {
    let mut world = world();
    let later = json!({"metadata": {"creationTimestamp": "2026-02-01T00:00:00Z"}});
    world.image(Event::Apply(image("one", "a:f", json!({}))));
    world.image(Event::Apply(image("two", "a:f", later)));
    let view = |world: &World, name: &str| world.images.get(name).unwrap().clone();
    assert_eq!(world.twin(&view(&world, "two")), Some("one"));
    assert_eq!(world.twin(&view(&world, "one")), None);
    let keys = world.image(Event::Delete(image("one", "a:f", json!({}))));
    assert!(keys.contains(&Key::Image("two".to_owned())));
    assert_eq!(world.twin(&view(&world, "two")), None);
}

#[test]
fn a_node_whose_installer_is_silent_is_not_ready() {
    let mut world = world();
    let ready = json!([{"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    for name in ["n1", "n2"] {
        world.node(node(name));
        let status = json!({"status": {"conditions": ready}});
        world.acceleration_node(Event::Apply(object("AccelerationNode", name, status)));
    }
    assert_eq!(world.node_totals(), NodeTotals { ready: 2, total: 2 });
    let installer = |namespace: &str| {
        let wire: WirePod = serde_json::from_value(json!({
            "metadata": {"name": "node-x", "namespace": namespace, "resourceVersion": "1", "labels": {
                "app.kubernetes.io/part-of": "uimgacc", "app.kubernetes.io/component": "node"}},
            "spec": {"nodeName": "n2"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]},
        }))
        .unwrap();
        Event::Apply(PodView::from(wire))
    };
    world.pod(installer("somebody-elses"));
    assert_eq!(world.node_totals().ready, 2);
    world.pod(installer("kube-system"));
    assert_eq!(world.node_totals(), NodeTotals { ready: 1, total: 2 });
}

#[test]
fn an_image_that_others_lie_on_is_shared() {
    let mut world = world();
    let status = |chain: &str, base: &[&str]| json!({"status": {"phase": "Ready", "chainToken": chain, "baseChainTokens": base}});
    let deleting = json!({"deletionTimestamp": "2026-01-02T00:00:00Z", "resourceVersion": "2"});
    world.image(Event::Apply(image(
        "base",
        "a:1",
        status("sha256:b", &["sha256:a"]),
    )));
    let view = |world: &World, name: &str| world.images.get(name).unwrap().clone();
    assert!(!world.is_shared(&view(&world, "base")));
    let derived = || status("sha256:d", &["sha256:a", "sha256:b"]);
    world.image(Event::Apply(image("derived", "a:2", derived())));
    assert!(world.is_shared(&view(&world, "base")));
    assert!(!world.is_shared(&view(&world, "derived")));
    // Whoever waits is looked at again when the other goes.
    let mut base = status("sha256:b", &["sha256:a"]);
    base["metadata"] = deleting.clone();
    world.image(Event::Apply(image("base", "a:1", base)));
    let mut gone = derived();
    gone["metadata"] = deleting;
    let keys = world.image(Event::Apply(image("derived", "a:2", gone)));
    assert!(keys.contains(&Key::Image("base".to_owned())));
    assert!(!world.is_shared(&view(&world, "base")));
}

#[test]
fn how_nodes_stand() {
    let mut world = World::new("kube-system");
    let spec = json!({"spec": {"store": {"hostPath": {"path": "/s"}}, "image": "i", "nodeSelector": {"pool": "gpu"}}});
    world.cluster_event(Event::Apply(object("ImageAcceleration", "default", spec)));
    world.image(Event::Apply(image("one", "a:f", json!({}))));
    let lease = |with: Value| {
        AccelerationNodeView::from(object::<uimgacc_objects::AccelerationNode>(
            "AccelerationNode",
            "n1",
            with,
        ))
    };
    let condition = |kind: &str, status: &str, reason: &str| json!([{"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let installed =
        || lease(json!({"status": {"conditions": condition("Installed", "True", "Installed")}}));
    let mut version = 0;
    let mut labelled = |labels: &[(&str, &str)]| {
        version += 1;
        let linux = [("kubernetes.io/os", "linux")];
        let labels = linux.iter().chain(labels);
        let labels = labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Event::Apply(NodeView::of(ObjectMeta {
            name: Some("n1".to_owned()),
            resource_version: Some(version.to_string()),
            labels: Some(labels.collect()),
            ..ObjectMeta::default()
        }))
    };
    assert_eq!(world.standing(&installed()), Standing::Gone);
    world.node(labelled(&[("pool", "gpu")]));
    assert_eq!(world.standing(&installed()), Standing::Selected);

    let leaving = |labelled, used| Standing::Leaving { labelled, used };
    let ours = (names::INSTALLED_LABEL, "true");
    world.node(labelled(&[ours, (names::NODE_LABELS[1], "true")]));
    assert_eq!(world.standing(&installed()), leaving(true, false));
    world.node(labelled(&[ours]));
    assert_eq!(world.standing(&installed()), leaving(false, false));
    // Used by a container that reads the store, or a Pod that will.
    let reads = json!({"status": {"chains": [{"token": "sha256:c", "containers": 1}]}});
    assert_eq!(world.standing(&lease(reads)), leaving(false, true));
    world.pod(pod("p", "a:f", Some("n2"), "Running"));
    assert_eq!(world.standing(&installed()), leaving(false, false));
    world.pod(pod("q", "a:f", Some("n1"), "Pending"));
    assert_eq!(world.standing(&installed()), leaving(false, true));

    // Only what holds nothing any more is let go.
    world.node(labelled(&[]));
    assert!(matches!(
        world.standing(&installed()),
        Standing::Leaving { .. }
    ));
    let uninstalled =
        || lease(json!({"status": {"conditions": condition("Installed", "False", "Uninstalled")}}));
    assert_eq!(world.standing(&uninstalled()), Standing::Left);
    assert_eq!(world.standing(&lease(json!({}))), Standing::Left);
    let holds = json!({"status": {"chains": [{"token": "sha256:c", "containers": 0}]}});
    assert!(matches!(
        world.standing(&lease(holds)),
        Standing::Leaving { .. }
    ));
}

#[test]
fn a_secret_that_is_labelled_wakes_its_images() {
    let mut world = world();
    for (name, secret) in [("a", Some("team")), ("b", Some("other")), ("c", None)] {
        let mut one = image(name, &format!("r.example/{name}:fast"), json!({}));
        one.spec.pull_secret = secret.map(|name| uimgacc_objects::SecretReference {
            name: name.to_owned(),
        });
        world.image(Event::Apply(one));
    }
    let secret = |version: &str| MetaView {
        meta: Meta {
            name: "team".to_owned(),
            version: version.to_owned(),
            ..Meta::default()
        },
    };
    let woken = BTreeSet::from([Key::Image("a".to_owned()), Key::Jobs]);
    assert_eq!(world.pull_secret(Event::Apply(secret("1"))), woken);
    assert!(world.pull_secret(Event::Apply(secret("2"))).is_empty());
    assert_eq!(world.pull_secret(Event::Delete(secret("3"))), woken);
}
