//! The gRPC service: requests into calls of [`Node`], errors into codes.

use std::collections::HashMap;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};
use uimgacc_types::with_causes;

use crate::chains::Busy;
use crate::error::Error;
use crate::node::Node;
use crate::promise::Labels;
use crate::state::{Kind, Snapshot, Time};
use uimgacc_containerd_api::snapshots::snapshots_server::Snapshots;
use uimgacc_containerd_api::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind as ApiKind, ListSnapshotsRequest,
    ListSnapshotsResponse, MountsRequest, MountsResponse, PrepareSnapshotRequest,
    PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse,
    UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest, UsageResponse,
    ViewSnapshotRequest, ViewSnapshotResponse,
};

/// Snapshots in one message of a list, as containerd sends them.
const LIST_BLOCK: usize = 100;

/// The service of a node.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    node: Arc<Node>,
}

impl Service {
    /// The service of that node.
    #[must_use]
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// The answer of a call: counted, and with failures that are not the caller's in the log.
    async fn answer<T>(
        &self,
        call: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Status> {
        use tonic::Code::{FailedPrecondition, Internal, Unavailable};
        let started = Instant::now();
        let result = work.await.map_err(|error| {
            if matches!(error, Error::InStore(_)) {
                // Not a failure but the answer that containerd asked for.
            } else if matches!(error.code(), Internal | Unavailable | FailedPrecondition) {
                tracing::warn!(call, key, error = with_causes(&error), "request failed");
            } else {
                tracing::debug!(call, key, error = with_causes(&error), "request refused");
            }
            let status = Status::from(error);
            match (call, status.code()) {
                // The word by which containerd's garbage collection goes on with the next one.
                ("remove", Internal | Unavailable) => {
                    Status::new(FailedPrecondition, status.message())
                }
                _ => status,
            }
        });
        let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let metrics = self.node.metrics();
        metrics.answered(call, code, started.elapsed());
        result
    }
}

fn labels(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}

fn optional(name: String) -> Option<String> {
    (!name.is_empty()).then_some(name)
}

fn timestamp(time: Time) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.seconds,
        nanos: time.nanoseconds,
    }
}

fn info(name: String, snapshot: &Snapshot) -> Info {
    let kind = match snapshot.kind {
        Kind::View => ApiKind::View,
        Kind::Active => ApiKind::Active,
        Kind::Committed => ApiKind::Committed,
    };
    Info {
        name,
        parent: snapshot.parent.clone().unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(timestamp(snapshot.created)),
        updated_at: Some(timestamp(snapshot.updated)),
        labels: snapshot.labels.clone().into_iter().collect(),
    }
}

#[tonic::async_trait]
impl Snapshots for Service {
    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let request = request.into_inner();
        let key = request.key.clone();
        let parent = optional(request.parent);
        let result = self
            .node
            .prepare(request.key, parent, labels(request.labels));
        let mounts = self.answer("prepare", &key, result).await?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let request = request.into_inner();
        let key = request.key.clone();
        let parent = optional(request.parent);
        let result = self.node.view(request.key, parent, labels(request.labels));
        let mounts = self.answer("view", &key, result).await?;
        Ok(Response::new(ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let key = request.into_inner().key;
        let mounts = self.answer("mounts", &key, self.node.mounts(&key)).await?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let key = request.key.clone();
        let result = self
            .node
            .commit(request.name, request.key, labels(request.labels));
        self.answer("commit", &key, result).await?;
        Ok(Response::new(()))
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let key = request.into_inner().key;
        self.answer("remove", &key, self.node.remove(key.clone()))
            .await?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let key = request.into_inner().key;
        let snapshot = self
            .answer("stat", &key, ready(self.node.stat(&key)))
            .await?;
        let info = Some(info(key, &snapshot));
        Ok(Response::new(StatSnapshotResponse { info }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let Some(new) = request.info else {
            return Err(Error::Invalid("the request has no snapshot".to_owned()).into());
        };
        let fields = request.update_mask.map_or(Vec::new(), |mask| mask.paths);
        let name = new.name;
        let result = self.node.update(name.clone(), labels(new.labels), fields);
        let snapshot = self.answer("update", &name, result).await?;
        let info = Some(info(name, &snapshot));
        Ok(Response::new(UpdateSnapshotResponse { info }))
    }

    type ListStream = Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send>>;

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = request.into_inner().filters;
        let found = self
            .answer("list", "", ready(self.node.list(&filters)))
            .await?;
        let blocks: Vec<_> = found
            .chunks(LIST_BLOCK)
            .map(|block| {
                let infos = block.iter().map(|(name, found)| info(name.clone(), found));
                Ok(ListSnapshotsResponse {
                    info: infos.collect(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(blocks))))
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let key = request.into_inner().key;
        let usage = self.answer("usage", &key, self.node.usage(&key)).await?;
        Ok(Response::new(UsageResponse {
            size: usage.size_bytes,
            inodes: usage.inodes,
        }))
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        self.answer("cleanup", "", self.node.cleanup(Busy::Skip))
            .await?;
        Ok(Response::new(()))
    }
}
