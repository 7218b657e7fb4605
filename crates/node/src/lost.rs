//! Snapshots that containerd's own records have and the daemon does not: its data were removed by an
//! uninstall, or lost.
//!
//! containerd never mends this by itself: a container on a lost layer fails, and unpacking the image
//! again finds the layer "already there". So its records of them are removed. They are not in its
//! lists, which ask the daemon for each, but containers name theirs, and a label of an image's
//! configuration keeps those of its layers, which go as garbage where that label is gone.
//!
//! Messages are written by hand, with the fields that are used; numbers are those of containerd's
//! `api/services/{containers,content,leases,namespaces,snapshots}/v1`.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use tonic::Code;

use crate::grpc::{Session, Silence, told};

/// How long a call may take: the last collects garbage.
const CALL: Duration = Duration::from_secs(30);
/// The lease whose end has containerd collect garbage at once.
const LEASE: &str = "uimgacc-lost-snapshots";

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct Namespaces {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Filters {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Containers {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "6")]
    snapshotter: String,
    #[prost(string, tag = "7")]
    snapshot_key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Contents {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Content>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Content {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(map = "string, string", tag = "5")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContentUpdate {
    #[prost(message, optional, tag = "1")]
    info: Option<Content>,
    #[prost(message, optional, tag = "2")]
    update_mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    paths: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotKey {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Lease {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseEnd {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bool, tag = "2")]
    sync: bool,
}

/// Has containerd forget the snapshots of this snapshotter that are lost, in all its namespaces.
/// Returns how many were named; those below them are not counted.
pub(crate) fn forget(socket: &Path, snapshotter: &str) -> Result<usize, Silence> {
    let session = Session::open(socket, CALL)?;
    let list = "/containerd.services.namespaces.v1.Namespaces/List";
    let namespaces: Namespaces = session.call(None, list, Empty {})?.map_err(told)?;
    let mut forgotten = 0;
    for namespace in namespaces.all {
        let node = Place {
            session: &session,
            namespace: &namespace.name,
            snapshotter,
        };
        forgotten += node.forget()?;
    }
    Ok(forgotten)
}

/// A snapshotter in one namespace.
struct Place<'p> {
    session: &'p Session,
    namespace: &'p str,
    snapshotter: &'p str,
}

impl Place<'_> {
    fn forget(&self) -> Result<usize, Silence> {
        let mut forgotten = 0;
        for key in self.of_containers()? {
            forgotten += usize::from(self.is_lost(&key)? && self.remove(&key)?);
        }
        // A layer that others lay on is not removed when it is asked for: containerd's collector
        // leaves their names in its record of it. The collector itself does not look at these.
        for (digest, key) in self.of_images()? {
            if self.is_lost(&key)? {
                self.unlabel(digest)?;
                forgotten += 1;
            }
        }
        if forgotten > 0 {
            self.collect_garbage()?;
        }
        Ok(forgotten)
    }

    /// The snapshots of containers.
    fn of_containers(&self) -> Result<BTreeSet<String>, Silence> {
        let method = "/containerd.services.containers.v1.Containers/List";
        let containers = self
            .session
            .call(Some(self.namespace), method, Filters::default())?;
        let containers: Containers = containers.map_err(told)?;
        let ours = containers
            .all
            .into_iter()
            .filter(|container| container.snapshotter == self.snapshotter)
            .map(|container| container.snapshot_key);
        Ok(ours.filter(|key| !key.is_empty()).collect())
    }

    /// The label of image configurations that keeps the snapshot of the whole image.
    fn label(&self) -> String {
        format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter)
    }

    /// Digests of image configurations with the snapshots of the whole images.
    fn of_images(&self) -> Result<Vec<(String, String)>, Silence> {
        let label = self.label();
        let with_label = Filters {
            filters: vec![format!("labels.\"{label}\"")],
        };
        let method = "/containerd.services.content.v1.Content/List";
        let contents = self
            .session
            .list(Some(self.namespace), method, with_label)?;
        let contents: Vec<Contents> = contents.map_err(told)?;
        let all = contents.into_iter().flat_map(|contents| contents.all);
        let labelled = all.filter_map(|mut content| {
            let chain = content.labels.remove(&label)?;
            Some((content.digest, chain))
        });
        Ok(labelled.collect())
    }

    /// Takes the label away: without it the snapshot is garbage.
    fn unlabel(&self, digest: String) -> Result<(), Silence> {
        let update = ContentUpdate {
            info: Some(Content {
                digest,
                labels: HashMap::new(),
            }),
            update_mask: Some(FieldMask {
                paths: vec![format!("labels.{}", self.label())],
            }),
        };
        // It may have gone with its image meanwhile.
        self.of_what_is_there("/containerd.services.content.v1.Content/Update", update)?;
        Ok(())
    }

    fn key(&self, key: &str) -> SnapshotKey {
        SnapshotKey {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
        }
    }

    /// Whether the daemon says so itself: where it does not answer nothing is lost.
    fn is_lost(&self, key: &str) -> Result<bool, Silence> {
        let stat = "/containerd.services.snapshots.v1.Snapshots/Stat";
        Ok(!self.of_what_is_there(stat, self.key(key))?)
    }

    /// Whether it was there to be removed.
    fn remove(&self, key: &str) -> Result<bool, Silence> {
        let remove = "/containerd.services.snapshots.v1.Snapshots/Remove";
        self.of_what_is_there(remove, self.key(key))
    }

    /// A call about something; whether that is there.
    fn of_what_is_there<Q>(&self, method: &'static str, question: Q) -> Result<bool, Silence>
    where
        Q: prost::Message + Default + 'static,
    {
        let answer: Result<Empty, _> = self.session.call(Some(self.namespace), method, question)?;
        match answer {
            Ok(Empty {}) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(told(status)),
        }
    }

    fn collect_garbage(&self) -> Result<(), Silence> {
        let (id, method) = (
            LEASE.to_owned(),
            "/containerd.services.leases.v1.Leases/Create",
        );
        let made: Result<Empty, _> =
            self.session
                .call(Some(self.namespace), method, Lease { id: id.clone() })?;
        // One that an earlier run has left is as good.
        if let Err(status) = made
            && status.code() != Code::AlreadyExists
        {
            return Err(told(status));
        }
        let method = "/containerd.services.leases.v1.Leases/Delete";
        let end = LeaseEnd { id, sync: true };
        let ended: Result<Empty, _> = self.session.call(Some(self.namespace), method, end)?;
        ended.map(|Empty {}| ()).map_err(told)
    }
}
