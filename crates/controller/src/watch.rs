//! The watches that keep the world up to date, on leader and followers alike.
//!
//! One list and one watch for each kind, without polling: a watch that breaks is resumed where it
//! was, with growing pauses.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt};
use tokio::task::JoinSet;
use uimgacc_objects::{AcceleratedImage, AccelerationNode, ImageAcceleration, StartRecord, names};

use super::context::Shared;
use super::metrics::Kind;
use super::view::{MetaView, NodeView, PodView};
use super::wire::{WireDaemonSet, WireJob, WirePod};
use super::world::{Key, World};

/// Pods of one page; they are the largest objects.
const PODS_A_PAGE: u32 = 200;

/// What nodes recorded of first starts.
const RECORDS: &str = "StartRecord";

/// Starts all watches; they end when the set is dropped.
pub fn start(client: &Client, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    let all = watcher::Config::default;
    let label = format!("{}={}", names::PART_OF_LABEL, names::PART_OF);
    let ours = || all().labels(&label);
    let namespace = shared.namespace.as_str();
    tasks.spawn(follow(
        "AcceleratedImage",
        watcher(Api::<AcceleratedImage>::all(client.clone()), all()).modify(trim),
        shared.clone(),
        World::image,
    ));
    tasks.spawn(follow(
        "ImageAcceleration",
        watcher(Api::<ImageAcceleration>::all(client.clone()), all()).modify(trim),
        shared.clone(),
        World::cluster_event,
    ));
    tasks.spawn(follow(
        "AccelerationNode",
        watcher(Api::<AccelerationNode>::all(client.clone()), all()).modify(trim),
        shared.clone(),
        World::acceleration_node,
    ));
    tasks.spawn(follow(
        "Node",
        watcher(Api::<PartialObjectMeta<Node>>::all(client.clone()), all()),
        shared.clone(),
        |world, event: Event<PartialObjectMeta<Node>>| {
            world.node(map(event, |node| NodeView::of(node.metadata)))
        },
    ));
    tasks.spawn(follow(
        "Pod",
        watcher(
            Api::<WirePod>::all(client.clone()),
            all().page_size(PODS_A_PAGE),
        ),
        shared.clone(),
        |world, event: Event<WirePod>| world.pod(map(event, PodView::from)),
    ));
    tasks.spawn(follow(
        "Job",
        watcher(
            Api::<WireJob>::namespaced(client.clone(), namespace),
            ours(),
        ),
        shared.clone(),
        World::job,
    ));
    tasks.spawn(follow(
        "DaemonSet",
        watcher(
            Api::<WireDaemonSet>::namespaced(client.clone(), namespace),
            ours(),
        ),
        shared.clone(),
        World::installer,
    ));
    // Only metadata: what nodes recorded is for the Job that takes it.
    tasks.spawn(follow(
        RECORDS,
        watcher(
            Api::<PartialObjectMeta<StartRecord>>::all(client.clone()),
            all(),
        ),
        shared.clone(),
        |world, event: Event<PartialObjectMeta<StartRecord>>| {
            world.record(map(event, MetaView::from))
        },
    ));
    // Only metadata is asked for, so no data of a Secret ever comes here.
    let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(client.clone(), namespace);
    tasks.spawn(follow(
        "Secret",
        watcher(
            secrets,
            all().labels(&format!("{}=true", names::PULL_SECRET_LABEL)),
        ),
        shared.clone(),
        |world, event: Event<PartialObjectMeta<Secret>>| {
            world.pull_secret(map(event, MetaView::from))
        },
    ));
}

fn trim<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
}

fn map<A, B>(event: Event<A>, convert: impl Fn(A) -> B) -> Event<B> {
    match event {
        Event::Apply(object) => Event::Apply(convert(object)),
        Event::Delete(object) => Event::Delete(convert(object)),
        Event::InitApply(object) => Event::InitApply(convert(object)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

async fn follow<K: Debug + Send>(
    kind: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    shared: Arc<Shared>,
    change: impl Fn(&mut World, Event<K>) -> BTreeSet<Key>,
) {
    let mut events = Box::pin(events.default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                shared.watch_is(kind, true);
                shared.change(|world| change(world, event));
            }
            Err(error) => {
                // The controller is as ready without: an older cluster has no such kind.
                if kind != RECORDS {
                    shared.watch_is(kind, false);
                }
                shared
                    .metrics
                    .watch_errors
                    .get_or_create(&Kind { kind })
                    .inc();
                tracing::warn!(
                    kind,
                    error = &error as &dyn std::error::Error,
                    "a watch broke"
                );
            }
        }
    }
}
