//! Snapshots that containerd's own records have and the daemon does not: its data were removed by an
//! uninstall, or lost.
//!
//! containerd never mends this by itself: a container on a lost layer fails, and unpacking the image
//! again finds the layer "already there". So its records of them are removed. They are not in its
//! lists, which ask the daemon for each, but containers name theirs, and a label of an image's
//! configuration keeps those of its layers, which go as garbage where that label is gone.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tonic::{Code, Response, Status};
use uimgacc_containerd_api::containers::ListContainersRequest;
use uimgacc_containerd_api::containers::containers_client::ContainersClient;
use uimgacc_containerd_api::content::content_client::ContentClient;
use uimgacc_containerd_api::content::{Info, ListContentRequest, UpdateRequest};
use uimgacc_containerd_api::leases::leases_client::LeasesClient;
use uimgacc_containerd_api::leases::{CreateRequest, DeleteRequest};
use uimgacc_containerd_api::namespaces::ListNamespacesRequest;
use uimgacc_containerd_api::namespaces::namespaces_client::NamespacesClient;
use uimgacc_containerd_api::snapshots::snapshots_client::SnapshotsClient;
use uimgacc_containerd_api::snapshots::{RemoveSnapshotRequest, StatSnapshotRequest};

use crate::grpc::{Session, Silence, in_namespace, told};

/// How long a call may take: the last collects garbage.
const CALL: Duration = Duration::from_secs(30);
/// The lease whose end has containerd collect garbage at once.
const LEASE: &str = "uimgacc-lost-snapshots";

/// Has containerd forget the snapshots of this snapshotter that are lost, in all its namespaces.
/// Returns how many were named; those below them are not counted.
pub(crate) fn forget(socket: &Path, snapshotter: &str) -> Result<usize, Silence> {
    let session = Session::open(socket, CALL)?;
    let mut client = NamespacesClient::new(session.channel());
    let namespaces = session.call(client.list(ListNamespacesRequest::default()))?;
    let mut forgotten = 0;
    for namespace in namespaces.map_err(told)?.namespaces {
        let namespace = Namespace {
            session: &session,
            name: &namespace.name,
            snapshotter,
        };
        forgotten += namespace.forget()?;
    }
    Ok(forgotten)
}

/// A namespace of containerd, as one snapshotter sees it.
struct Namespace<'n> {
    session: &'n Session,
    name: &'n str,
    snapshotter: &'n str,
}

impl Namespace<'_> {
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
        let mut client = ContainersClient::new(self.session.channel());
        let request = in_namespace(self.name, ListContainersRequest::default())?;
        let containers = self.session.call(client.list(request))?.map_err(told)?;
        let ours = containers
            .containers
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
        let with_label = ListContentRequest {
            filters: vec![format!("labels.\"{label}\"")],
        };
        let request = in_namespace(self.name, with_label)?;
        let mut client = ContentClient::new(self.session.channel());
        let all = self.session.call(async {
            let mut answers = client.list(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(answer) = answers.message().await? {
                all.extend(answer.info);
            }
            Ok(Response::new(all))
        })?;
        let all = all.map_err(told)?.into_iter();
        let labelled = all.filter_map(|mut content| {
            let chain = content.labels.remove(&label)?;
            Some((content.digest, chain))
        });
        Ok(labelled.collect())
    }

    /// Takes the label away: without it the snapshot is garbage.
    fn unlabel(&self, digest: String) -> Result<(), Silence> {
        let update = UpdateRequest {
            info: Some(Info {
                digest,
                ..Info::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec![format!("labels.{}", self.label())],
            }),
        };
        let request = in_namespace(self.name, update)?;
        let mut client = ContentClient::new(self.session.channel());
        // It may have gone with its image meanwhile.
        is_there(self.session.call(client.update(request))?)?;
        Ok(())
    }

    /// Whether the daemon says so itself: where it does not answer nothing is lost.
    fn is_lost(&self, key: &str) -> Result<bool, Silence> {
        let snapshot = StatSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
        };
        let request = in_namespace(self.name, snapshot)?;
        let mut client = SnapshotsClient::new(self.session.channel());
        Ok(!is_there(self.session.call(client.stat(request))?)?)
    }

    /// Whether it was there to be removed.
    fn remove(&self, key: &str) -> Result<bool, Silence> {
        let snapshot = RemoveSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
        };
        let request = in_namespace(self.name, snapshot)?;
        let mut client = SnapshotsClient::new(self.session.channel());
        is_there(self.session.call(client.remove(request))?)
    }

    fn collect_garbage(&self) -> Result<(), Silence> {
        let mut client = LeasesClient::new(self.session.channel());
        let id = LEASE.to_owned();
        let lease = in_namespace(self.name, CreateRequest { id: id.clone() })?;
        let made = self.session.call(client.create(lease))?;
        // One that an earlier run has left is as good.
        if let Err(status) = made
            && status.code() != Code::AlreadyExists
        {
            return Err(told(status));
        }
        let end = in_namespace(self.name, DeleteRequest { id, sync: true })?;
        self.session.call(client.delete(end))?.map_err(told)
    }
}

/// Whether what a call was about is there.
fn is_there<A>(answer: Result<A, Status>) -> Result<bool, Silence> {
    match answer {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(told(status)),
    }
}
