//! Calls to containerd and to a snapshotter: its version and plugins, whether a snapshotter answers,
//! and what other modules ask by [`Session`].
//!
//! Messages are written by hand, with the fields that are used; numbers are those of containerd's
//! `api/services/{version,introspection,snapshots}/v1`.

use std::path::Path;
use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct VersionResponse {
    #[prost(string, tag = "1")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PluginsResponse {
    #[prost(message, repeated, tag = "1")]
    plugins: Vec<PluginMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PluginMessage {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(message, optional, tag = "7")]
    error: Option<ErrorMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ErrorMessage {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatRequest {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
}

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
    let answer: Result<VersionResponse, Status> = call(
        socket,
        deadline,
        "/containerd.services.version.v1.Version/Version",
        Empty {},
    )?;
    answer.map(|answer| answer.version).map_err(told)
}

/// Its plugins.
pub(crate) fn plugins(socket: &Path, deadline: Duration) -> Result<Vec<Plugin>, Silence> {
    let answer: Result<PluginsResponse, Status> = call(
        socket,
        deadline,
        "/containerd.services.introspection.v1.Introspection/Plugins",
        Empty {},
    )?;
    let plugins = answer.map_err(told)?.plugins;
    Ok(plugins
        .into_iter()
        .map(|plugin| Plugin {
            kind: plugin.kind,
            id: plugin.id,
            error: plugin.error.map(|error| error.message),
        })
        .collect())
}

/// Asks a snapshotter for a snapshot that is not there.
pub(crate) fn snapshotter_answers(socket: &Path, deadline: Duration) -> Result<(), Silence> {
    let question = StatRequest {
        snapshotter: String::new(),
        key: "uimgacc-node-check".to_owned(),
    };
    let answer: Result<Empty, Status> = call(
        socket,
        deadline,
        "/containerd.services.snapshots.v1.Snapshots/Stat",
        question,
    )?;
    match answer {
        Err(status) if status.code() != Code::NotFound => Err(told(status)),
        _ => Ok(()),
    }
}

pub(crate) fn told(status: Status) -> Silence {
    format!("{}: {}", status.code(), status.message())
}

fn call<Q, A>(
    socket: &Path,
    deadline: Duration,
    method: &'static str,
    question: Q,
) -> Result<Result<A, Status>, Silence>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    Session::open(socket, deadline)?.call(None, method, question)
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
            channel.map_err(|error| last_cause(&error))
        };
        let channel = within(&runtime, deadline, connect)?;
        Ok(Self {
            runtime,
            channel,
            deadline,
        })
    }

    /// A call with one answer, in a namespace of containerd where it needs one.
    pub(crate) fn call<Q, A>(
        &self,
        namespace: Option<&str>,
        method: &'static str,
        question: Q,
    ) -> Result<Result<A, Status>, Silence>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let answers = self.list(namespace, method, question)?;
        let first = |all: Vec<A>| all.into_iter().next();
        Ok(answers.and_then(|all| first(all).ok_or_else(|| Status::internal("no answer"))))
    }

    /// A call with many answers.
    pub(crate) fn list<Q, A>(
        &self,
        namespace: Option<&str>,
        method: &'static str,
        question: Q,
    ) -> Result<Result<Vec<A>, Status>, Silence>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let request = request(namespace, question)?;
        let talk = async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|error| last_cause(&error))?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            let path = PathAndQuery::from_static(method);
            Ok(async {
                let mut answers = grpc
                    .server_streaming(request, path, codec)
                    .await?
                    .into_inner();
                let mut all = Vec::new();
                while let Some(answer) = answers.message().await? {
                    all.push(answer);
                }
                Ok(all)
            }
            .await)
        };
        within(&self.runtime, self.deadline, talk)
    }
}

fn request<Q>(namespace: Option<&str>, question: Q) -> Result<Request<Q>, Silence> {
    let mut request = Request::new(question);
    if let Some(namespace) = namespace {
        let value = namespace
            .parse()
            .map_err(|_| format!("{namespace:?} cannot be the name of a namespace"))?;
        request.metadata_mut().insert("containerd-namespace", value);
    }
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

fn last_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
