//! Calls to containerd and to a snapshotter: its version and plugins, whether a snapshotter answers,
//! and what other modules ask by [`Session`].

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use uimgacc_containerd_api::introspection::PluginsRequest;
use uimgacc_containerd_api::introspection::introspection_client::IntrospectionClient;
use uimgacc_containerd_api::snapshots::StatSnapshotRequest;
use uimgacc_containerd_api::snapshots::snapshots_client::SnapshotsClient;
use uimgacc_containerd_api::version::version_client::VersionClient;
use uimgacc_types::root_cause;

/// A plugin of a running containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plugin {
    pub(crate) kind: String,
    pub(crate) id: String,
    /// Why it does not run.
    pub(crate) error: Option<String>,
}

/// Why there is no answer, in a line.
pub(crate) type Silence = String;

/// The version that a containerd says it has.
pub(crate) fn version(socket: &Path, deadline: Duration) -> Result<String, Silence> {
    let session = Session::open(socket, deadline)?;
    let mut client = VersionClient::new(session.channel());
    let answer = session.call(client.version(()))?;
    answer.map(|answer| answer.version).map_err(told)
}

/// Its plugins.
pub(crate) fn plugins(socket: &Path, deadline: Duration) -> Result<Vec<Plugin>, Silence> {
    let session = Session::open(socket, deadline)?;
    let mut client = IntrospectionClient::new(session.channel());
    let answer = session.call(client.plugins(PluginsRequest::default()))?;
    let plugins = answer.map_err(told)?.plugins;
    Ok(plugins
        .into_iter()
        .map(|plugin| Plugin {
            kind: plugin.r#type,
            id: plugin.id,
            error: plugin.init_err.map(|error| error.message),
        })
        .collect())
}

/// Asks a snapshotter for a snapshot that is not there.
pub(crate) fn snapshotter_answers(socket: &Path, deadline: Duration) -> Result<(), Silence> {
    let session = Session::open(socket, deadline)?;
    let mut client = SnapshotsClient::new(session.channel());
    let question = StatSnapshotRequest {
        key: "uimgacc-node-check".to_owned(),
        ..StatSnapshotRequest::default()
    };
    match session.call(client.stat(question))? {
        Err(status) if status.code() != Code::NotFound => Err(told(status)),
        _ => Ok(()),
    }
}

pub(crate) fn told(status: Status) -> Silence {
    format!("{}: {}", status.code(), status.message())
}

/// A connection for several calls.
pub(crate) struct Session {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    /// For each call.
    deadline: Duration,
}

impl Session {
    pub(crate) fn open(socket: &Path, deadline: Duration) -> Result<Self, Silence> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let connect = async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
                .map_err(|error| error.to_string())?;
            // Its own text is "transport error"; what happened is the last of its causes.
            let channel = endpoint.connect().await;
            channel.map_err(|error| root_cause(&error))
        };
        let channel = within(&runtime, deadline, connect)?;
        Ok(Self {
            runtime,
            channel,
            deadline,
        })
    }

    /// For the clients of services.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Waits for the answer to one call.
    pub(crate) fn call<A>(
        &self,
        call: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<Result<A, Status>, Silence> {
        let answer = async { Ok(call.await.map(Response::into_inner)) };
        within(&self.runtime, self.deadline, answer)
    }
}

/// A request in a namespace of containerd.
pub(crate) fn in_namespace<Q>(namespace: &str, question: Q) -> Result<Request<Q>, Silence> {
    let value = namespace
        .parse()
        .map_err(|_| format!("{namespace:?} cannot be the name of a namespace"))?;
    let mut request = Request::new(question);
    request.metadata_mut().insert("containerd-namespace", value);
    Ok(request)
}

fn within<T>(
    runtime: &tokio::runtime::Runtime,
    deadline: Duration,
    talk: impl Future<Output = Result<T, Silence>>,
) -> Result<T, Silence> {
    let answer = runtime.block_on(async { tokio::time::timeout(deadline, talk).await });
    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", deadline.as_secs())))
}
