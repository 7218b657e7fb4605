//! Requests to the daemon as containerd sends them, one by one.

use std::collections::HashMap;
use std::path::Path;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use uimgacc_containerd_api::snapshots::snapshots_client::SnapshotsClient;
use uimgacc_containerd_api::snapshots::{
    CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest,
};
use uimgacc_containerd_api::types::Mount;

/// A connection.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    inner: SnapshotsClient<Channel>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = format!("unix:{}", socket.display());
        let channel = runtime
            .block_on(Endpoint::from_shared(address).unwrap().connect())
            .unwrap();
        Self {
            runtime,
            inner: SnapshotsClient::new(channel),
        }
    }

    pub(crate) fn prepare_with(
        &self,
        key: &str,
        parent: &str,
        labels: &[(&str, &str)],
    ) -> Result<Vec<Mount>, Status> {
        let labels = labels.iter();
        let request = PrepareSnapshotRequest {
            snapshotter: "uimgacc".to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<HashMap<_, _>>(),
        };
        let mut client = self.inner.clone();
        let answer = self.runtime.block_on(client.prepare(request));
        answer.map(|answer| answer.into_inner().mounts)
    }

    pub(crate) fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        self.prepare_with(key, parent, &[])
    }

    /// Asks as for a layer that could be left out; whether it can.
    pub(crate) fn has_layer(&self, chain: &str, parent: &str, more: &[(&str, &str)]) -> bool {
        let key = format!("extract {chain} {parent}");
        let mut labels = vec![("containerd.io/snapshot.ref", chain)];
        labels.extend(more);
        match self.prepare_with(&key, parent, &labels) {
            Err(status) if status.code() == Code::AlreadyExists => true,
            Err(status) => panic!("{status}"),
            Ok(_) => {
                self.remove(&key).unwrap();
                false
            }
        }
    }

    pub(crate) fn commit(&self, name: &str, key: &str) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            name: name.to_owned(),
            key: key.to_owned(),
            ..CommitSnapshotRequest::default()
        };
        let mut client = self.inner.clone();
        self.runtime.block_on(client.commit(request)).map(|_| ())
    }

    pub(crate) fn remove(&self, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest {
            key: key.to_owned(),
            ..RemoveSnapshotRequest::default()
        };
        let mut client = self.inner.clone();
        self.runtime.block_on(client.remove(request)).map(|_| ())
    }

    pub(crate) fn cleanup(&self) -> Result<(), Status> {
        let mut client = self.inner.clone();
        let answer = client.cleanup(CleanupRequest::default());
        self.runtime.block_on(answer).map(|_| ())
    }

    /// The names of all snapshots, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut client = self.inner.clone();
        let mut names = self.runtime.block_on(async {
            let answer = client.list(ListSnapshotsRequest::default()).await.unwrap();
            let mut stream = answer.into_inner();
            let mut names = Vec::new();
            while let Some(block) = stream.message().await.unwrap() {
                names.extend(block.info.into_iter().map(|info| info.name));
            }
            names
        });
        names.sort();
        names
    }
}
