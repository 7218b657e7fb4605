//! A copy of what a cluster holds of ours, kept by watches, for many readers.
//!
//! A watch may lag, or hang without a word. So whoever reads says how old the answer may be, and
//! where the copy was not proved since, a consistent read of the objects' versions proves it: all
//! readers share one such read. A writer that waits [`Mirror::AGE`] after its write can thus be sure
//! that no reader anywhere sees the time before it.

mod proof;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use uimgacc_objects::{AcceleratedImage, ImageAcceleration, names};

use crate::Cluster;
use crate::disable::removal::{MARKED, is_marked};
use crate::error::Error;
use crate::get::{ClusterImages, view};
use crate::images::not_enabled;
use crate::observe::{Table, events};
use proof::{Seen, Versions};

/// How long a watch may take to tell what a consistent read saw, before that is read again.
const LAG: Duration = Duration::from_millis(300);
/// How old watches are at least that are given up because they lag.
const RENEW: Duration = Duration::from_secs(3);
/// How long a cluster that did not answer is not asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of a cluster.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The images and the state of the cluster.
    pub images: Arc<ClusterImages>,
    /// A `disable` was asked for; what remains is to be taken away.
    pub is_removing: bool,
}

/// A copy of what a cluster holds of ours. Cheap to clone; the copies share all.
#[derive(Debug, Clone)]
pub struct Mirror {
    cluster: Cluster,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    copy: Mutex<Copy>,
    changed: watch::Sender<u64>,
    /// Held by whoever reads for all.
    reading: tokio::sync::Mutex<()>,
    /// The watches tell less than they should.
    lagging: Notify,
}

#[derive(Debug, Default)]
struct Copy {
    definition: Table<CustomResourceDefinition>,
    acceleration: Table<ImageAcceleration>,
    images: Table<AcceleratedImage>,
    snapshot: Option<Snapshot>,
    /// The copy holds all that there was then.
    proved: Option<Instant>,
    /// Since when the cluster has not answered, and why.
    failed: Option<(Instant, String)>,
}

enum Change {
    Definition(Event<CustomResourceDefinition>),
    Acceleration(Event<ImageAcceleration>),
    Image(Event<AcceleratedImage>),
}

type Changes = BoxStream<'static, Result<Change, Error>>;

impl Copy {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Definition(event) => self.definition.apply(event),
            Change::Acceleration(event) => self.acceleration.apply(event),
            Change::Image(event) => self.images.apply(event),
        }
        self.snapshot = None;
    }

    fn forget_objects(&mut self) {
        self.acceleration.forget();
        self.images.forget();
        self.snapshot = None;
    }

    fn is_defined(&self) -> bool {
        self.definition.get(MARKED).is_some_and(is_served)
    }

    /// Whether all is known that there was when the watches began.
    fn is_listed(&self) -> bool {
        self.definition.is_listed()
            && (!self.is_defined() || (self.acceleration.is_listed() && self.images.is_listed()))
    }

    fn snapshot(&mut self) -> Snapshot {
        if let Some(snapshot) = &self.snapshot {
            return snapshot.clone();
        }
        let images: Vec<AcceleratedImage> = self.images.iter().cloned().collect();
        let mut all = view(self.acceleration.get(names::DEFAULT), &images);
        let is_removing = self.definition.get(MARKED).is_some_and(is_marked);
        // Until all is taken away it is not disabled.
        all.enable |= is_removing;
        let snapshot = Snapshot {
            images: Arc::new(all),
            is_removing: is_removing && self.acceleration.get(names::DEFAULT).is_none(),
        };
        self.snapshot = Some(snapshot.clone());
        snapshot
    }

    fn covers(&self, seen: &Sight) -> bool {
        let is_there = |table: bool, seen: &Option<Seen>, copy: Versions| match seen {
            Some(seen) => table && seen.is_covered_by(&copy),
            None => copy.is_empty(),
        };
        is_there(
            self.definition.is_listed(),
            &Some(seen.definition.clone()),
            versions(&self.definition),
        ) && is_there(
            self.acceleration.is_listed(),
            &seen.acceleration,
            versions(&self.acceleration),
        ) && is_there(
            self.images.is_listed(),
            &seen.images,
            versions(&self.images),
        )
    }
}

/// What a consistent read saw; `None` is a kind that the cluster does not know.
#[derive(Debug)]
struct Sight {
    definition: Seen,
    acceleration: Option<Seen>,
    images: Option<Seen>,
}

fn versions<K: Resource>(table: &Table<K>) -> Versions {
    table.iter().filter_map(version).collect()
}

fn version<K: Resource>(object: &K) -> Option<(String, String)> {
    Some((object.uid()?, object.resource_version()?))
}

fn is_served(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}

impl Mirror {
    /// How old an answer may be that says what a cluster holds.
    pub const AGE: Duration = Duration::from_millis(500);

    /// A copy that knows nothing yet; [`Self::follow`] keeps it.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            shared: Arc::new(Shared {
                copy: Mutex::default(),
                changed: watch::Sender::new(0),
                reading: tokio::sync::Mutex::default(),
                lagging: Notify::new(),
            }),
        }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Told each time that the copy has changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// What is known, however old; `None` where nothing ever was.
    #[must_use]
    pub fn last(&self) -> Option<Snapshot> {
        self.with(|copy| copy.is_listed().then(|| copy.snapshot()))
    }

    /// What there was at some time not longer ago than [`Self::AGE`].
    ///
    /// # Errors
    /// The cluster does not answer in that time, or refuses.
    pub async fn fresh(&self, within: Duration) -> Result<Snapshot, Error> {
        let asked = Instant::now();
        let deadline = asked + within;
        if let Some(snapshot) = self.proved(asked)? {
            self.prove_ahead(asked, within);
            return Ok(snapshot);
        }
        let Ok(_reading) = timeout_at(deadline, self.shared.reading.lock()).await else {
            return Err(self.no_answer("a read of others does not end".to_owned()));
        };
        if let Some(snapshot) = self.proved(asked)? {
            return Ok(snapshot);
        }
        match timeout_at(deadline, self.prove()).await {
            Ok(Ok(snapshot)) => Ok(snapshot),
            Ok(Err(error)) => {
                let text = match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                self.with(|copy| copy.failed = Some((Instant::now(), text)));
                Err(error)
            }
            Err(_) => {
                let why = format!("no answer in {} ms", within.as_millis());
                self.with(|copy| copy.failed = Some((Instant::now(), why.clone())));
                Err(self.no_answer(why))
            }
        }
    }

    /// Where many ask, none of them waits for a read: the next one begins before the last is too old.
    fn prove_ahead(&self, now: Instant, within: Duration) {
        let is_soon = self.with(|copy| copy.proved.is_some_and(|at| at + Self::AGE / 2 < now));
        if !is_soon || self.shared.reading.try_lock().is_err() {
            return;
        }
        let mirror = self.clone();
        tokio::spawn(async move {
            if let Ok(_reading) = mirror.shared.reading.try_lock() {
                // Who asks when it is too old is told what is wrong.
                let _ = tokio::time::timeout(within, mirror.prove()).await;
            }
        });
    }

    /// The copy, where a read that began late enough has proved it.
    fn proved(&self, now: Instant) -> Result<Option<Snapshot>, Error> {
        let known = self.with(|copy| {
            if let Some((at, why)) = &copy.failed
                && at.elapsed() < PAUSE
            {
                return Err(why.clone());
            }
            let is_young = copy.proved.is_some_and(|at| at + Self::AGE >= now);
            Ok((is_young && copy.is_listed()).then(|| copy.snapshot()))
        });
        known.map_err(|why| self.no_answer(why))
    }

    fn no_answer(&self, why: String) -> Error {
        Error::Unreachable {
            action: "read how the cluster is accelerated".to_owned(),
            server: self.cluster.server().to_owned(),
            source: crate::error::Cause::new(why),
        }
    }

    /// Reads until the copy holds all that was read.
    async fn prove(&self) -> Result<Snapshot, Error> {
        loop {
            let began = Instant::now();
            let seen = self.cluster.see_all().await?;
            let mut changes = self.changes();
            let read_again = Instant::now() + LAG;
            loop {
                changes.borrow_and_update();
                let snapshot = self.with(|copy| {
                    (copy.is_listed() && copy.covers(&seen)).then(|| {
                        copy.proved = Some(began);
                        copy.failed = None;
                        copy.snapshot()
                    })
                });
                if let Some(snapshot) = snapshot {
                    return Ok(snapshot);
                }
                if timeout_at(read_again, changes.changed()).await.is_err() {
                    break;
                }
            }
            self.shared.lagging.notify_one();
        }
    }

    /// Keeps the copy; never ends.
    pub async fn follow(self) {
        let mut definitions = self.definition_changes();
        let mut objects: Changes = stream::pending().boxed();
        let mut was_defined = None;
        let mut began = Instant::now();
        loop {
            let change = tokio::select! {
                change = definitions.next() => change,
                change = objects.next() => change,
                () = self.shared.lagging.notified() => {
                    // A connection whose other end is gone says nothing for minutes.
                    if began.elapsed() >= RENEW {
                        began = Instant::now();
                        definitions = self.definition_changes();
                        if was_defined.is_some() {
                            objects = self.object_changes();
                        }
                    }
                    continue;
                }
            };
            let change = match change {
                Some(Ok(change)) => change,
                Some(Err(error)) => {
                    tracing::debug!(%error, server = self.cluster.server(), "a watch starts again");
                    continue;
                }
                None => {
                    tokio::time::sleep(PAUSE).await;
                    (definitions, was_defined) = (self.definition_changes(), None);
                    continue;
                }
            };
            let is_definition = matches!(change, Change::Definition(_));
            let defined = self.with(|copy| {
                copy.apply(change);
                let definition = copy.definition.get(MARKED).filter(|one| is_served(one));
                definition.and_then(ResourceExt::uid)
            });
            if is_definition && defined != was_defined {
                self.with(Copy::forget_objects);
                objects = if defined.is_some() {
                    self.object_changes()
                } else {
                    stream::pending().boxed()
                };
                was_defined = defined;
            }
            self.shared.changed.send_modify(|count| *count += 1);
        }
    }

    fn definition_changes(&self) -> Changes {
        let one = Config::default().fields(&format!("metadata.name={MARKED}"));
        let action = "watch the definition of ImageAcceleration";
        events(&self.cluster, self.cluster.all(), one, action)
            .map(|event| event.map(Change::Definition))
            .boxed()
    }

    fn object_changes(&self) -> Changes {
        let cluster = &self.cluster;
        let action = "watch the ImageAcceleration";
        let acceleration = events(cluster, cluster.all(), Config::default(), action)
            .map(|event| event.map(Change::Acceleration));
        let action = "watch the accelerated images";
        let images = events(cluster, cluster.all(), Config::default(), action)
            .map(|event| event.map(Change::Image));
        stream::select(acceleration, images).boxed()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Copy) -> T) -> T {
        let mut copy = self.shared.copy.lock();
        act(&mut copy)
    }
}

impl Cluster {
    async fn see_all(&self) -> Result<Sight, Error> {
        let one = ListParams::default().fields(&format!("metadata.name={MARKED}"));
        let (definition, acceleration, images) = tokio::try_join!(
            self.versions_of::<CustomResourceDefinition>(&one, "read the definitions"),
            async {
                known(
                    self.versions_of::<ImageAcceleration>(
                        &ListParams::default(),
                        "read the ImageAcceleration",
                    )
                    .await,
                )
            },
            async {
                known(
                    self.versions_of::<AcceleratedImage>(
                        &ListParams::default(),
                        "read the accelerated images",
                    )
                    .await,
                )
            },
        )?;
        Ok(Sight {
            definition,
            acceleration,
            images,
        })
    }

    /// Versions alone; without a version in the question the answer is a consistent one.
    async fn versions_of<K>(&self, params: &ListParams, action: &str) -> Result<Seen, Error>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let all = self.all::<K>();
        let list = all
            .list_metadata(params)
            .await
            .map_err(self.failed(action))?;
        Ok(Seen {
            version: list.metadata.resource_version.unwrap_or_default(),
            objects: list
                .items
                .iter()
                .filter_map(version::<PartialObjectMeta<K>>)
                .collect(),
        })
    }
}

/// `None` for a kind that the server does not know.
fn known(seen: Result<Seen, Error>) -> Result<Option<Seen>, Error> {
    match seen.map_err(not_enabled) {
        Ok(seen) => Ok(Some(seen)),
        Err(Error::NotEnabled) => Ok(None),
        Err(other) => Err(other),
    }
}
