//! The few calls of containerd's CRI that we make. Messages are written by hand, with the fields that
//! are used; numbers are those of Kubernetes' `cri-api/pkg/apis/runtime/v1/api.proto`.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::host::socket_path;

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct ImagesResponse {
    #[prost(message, repeated, tag = "1")]
    images: Vec<Image>,
}

/// An image.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) repo_tags: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(super) repo_digests: Vec<String>,
    /// It is never to be removed: the image of sandboxes.
    #[prost(bool, tag = "8")]
    pub(super) pinned: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub(super) image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
    /// Of `ImageStatus` alone.
    #[prost(bool, tag = "2")]
    verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusResponse {
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

/// A client.
#[derive(Debug)]
pub(super) struct Cri {
    channel: Channel,
    // The channel connects by way of it, and again where the connection is lost.
    _socket: OwnedFd,
}

impl Cri {
    pub(super) async fn connect(socket: io::Result<OwnedFd>) -> anyhow::Result<Self> {
        let socket = socket?;
        let address = format!("unix://{}", socket_path(&socket).display());
        let endpoint = Endpoint::from_shared(address)?
            .connect_timeout(DEADLINE)
            .timeout(DEADLINE);
        Ok(Self {
            channel: endpoint.connect().await?,
            _socket: socket,
        })
    }

    async fn call<Q, A>(&self, method: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(method);
        let answer = grpc.unary(Request::new(question), path, codec).await?;
        Ok(answer.into_inner())
    }

    /// All images.
    pub(super) async fn images(&self) -> Result<Vec<Image>, Status> {
        let method = "/runtime.v1.ImageService/ListImages";
        let answer: ImagesResponse = self.call(method, Empty {}).await?;
        Ok(answer.images)
    }

    /// What containerd knows of an image, as JSON; empty where the image is gone.
    pub(super) async fn image_info(&self, id: &str) -> Result<String, Status> {
        let question = ImageRequest {
            image: spec(id),
            verbose: true,
        };
        let method = "/runtime.v1.ImageService/ImageStatus";
        let mut answer: ImageStatusResponse = self.call(method, question).await?;
        Ok(answer.info.remove("info").unwrap_or_default())
    }

    /// Removes an image with all its references.
    pub(super) async fn remove_image(&self, id: &str) -> Result<(), Status> {
        let question = ImageRequest {
            image: spec(id),
            verbose: false,
        };
        let method = "/runtime.v1.ImageService/RemoveImage";
        let _empty: Empty = self.call(method, question).await?;
        Ok(())
    }
}

fn spec(id: &str) -> Option<ImageSpec> {
    Some(ImageSpec {
        image: id.to_owned(),
    })
}
