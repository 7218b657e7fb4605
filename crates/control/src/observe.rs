//! Waiting by watches.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt as _, TryStreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::Cluster;
use crate::error::{Error, is_passing, of_watch};

/// Objects of one kind as a watch reports them, by name. Not kube's reflector store, since that
/// cannot be asked, but only waited for, whether its first list is whole.
#[derive(Debug)]
pub(crate) struct Table<K> {
    items: BTreeMap<String, K>,
    next: BTreeMap<String, K>,
    is_listed: bool,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            next: BTreeMap::new(),
            is_listed: false,
        }
    }
}

impl<K: Resource> Table<K> {
    pub(crate) fn of(items: Vec<K>) -> Self {
        Self {
            items: items
                .into_iter()
                .map(|item| (item.name_any(), item))
                .collect(),
            next: BTreeMap::new(),
            is_listed: true,
        }
    }

    pub(crate) fn apply(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.next.clear(),
            Event::InitApply(item) => {
                self.next.insert(item.name_any(), item);
            }
            Event::InitDone => {
                self.items = std::mem::take(&mut self.next);
                self.is_listed = true;
            }
            Event::Apply(item) => {
                self.items.insert(item.name_any(), item);
            }
            Event::Delete(item) => {
                self.items.remove(&item.name_any());
            }
        }
    }

    /// Whether all that there was at the beginning is known.
    pub(crate) fn is_listed(&self) -> bool {
        self.is_listed
    }

    pub(crate) fn get(&self, name: &str) -> Option<&K> {
        self.items.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.items.values()
    }
}

/// A watch that goes on after errors that pass; others end it. Objects come without `managedFields`.
pub(crate) fn events<K>(
    cluster: &Cluster,
    api: Api<K>,
    config: watcher::Config,
    action: &'static str,
) -> BoxStream<'static, Result<Event<K>, Error>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let server = cluster.server().to_owned();
    watch(api, config)
        // The larger part of an object, and of no use here.
        .modify(|object| object.meta_mut().managed_fields = None)
        .default_backoff()
        .map_err(move |error| of_watch(&server, action, &error))
        .boxed()
}

/// Several watches as one stream.
pub(crate) type Merged<T> = SelectAll<BoxStream<'static, Result<T, Error>>>;

/// The next event before the deadline; `None` after it. Errors that pass are left out.
pub(crate) async fn next_before<T>(
    stream: &mut (impl futures_util::Stream<Item = Result<T, Error>> + Unpin),
    deadline: Instant,
) -> Result<Option<T>, Error> {
    loop {
        match timeout_at(deadline, stream.next()).await {
            Err(_) | Ok(None) => return Ok(None),
            Ok(Some(Ok(event))) => return Ok(Some(event)),
            Ok(Some(Err(error))) if is_passing(&error) => {
                tracing::debug!(%error, "a watch starts again");
            }
            Ok(Some(Err(error))) => return Err(error),
        }
    }
}

/// Watches one object until `decide` has an answer; `None` after `within`.
///
/// `decide` gets the object, or `None` where there is none.
pub(crate) async fn until<K, T>(
    cluster: &Cluster,
    api: Api<K>,
    name: &str,
    within: Duration,
    action: &'static str,
    mut decide: impl FnMut(Option<&K>) -> Option<Result<T, Error>>,
) -> Result<Option<T>, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let deadline = Instant::now() + within;
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = events(cluster, api, config, action);
    let mut table = Table::default();
    while let Some(event) = next_before(&mut stream, deadline).await? {
        table.apply(event);
        if table.is_listed()
            && let Some(answer) = decide(table.get(name))
        {
            return answer.map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn named(name: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map
    }

    #[test]
    fn a_new_list_forgets_what_is_gone() {
        let mut table = Table::default();
        for event in [
            Event::Init,
            Event::InitApply(named("a")),
            Event::InitApply(named("b")),
            Event::InitDone,
            Event::Delete(named("b")),
            Event::Apply(named("c")),
        ] {
            table.apply(event);
        }
        assert_eq!(table.iter().count(), 2);
        table.apply(Event::Init);
        table.apply(Event::InitApply(named("d")));
        assert_eq!(
            table.iter().count(),
            2,
            "the old list stands until the new one is whole"
        );
        table.apply(Event::InitDone);
        assert!(table.get("d").is_some());
        assert_eq!(table.iter().count(), 1);
    }
}
