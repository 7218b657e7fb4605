//! The few calls of containerd's CRI that we make.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use uimgacc_containerd_api::cri::image_service_client::ImageServiceClient;
use uimgacc_containerd_api::cri::{
    Image, ImageSpec, ImageStatusRequest, ListImagesRequest, RemoveImageRequest,
};

use super::host::socket_path;

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of one answer, as the kubelet has it.
const LARGEST: usize = 16 << 20;

/// A client.
#[derive(Debug)]
pub(super) struct Cri {
    images: ImageServiceClient<Channel>,
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
        let images = ImageServiceClient::new(endpoint.connect().await?);
        Ok(Self {
            images: images.max_decoding_message_size(LARGEST),
            _socket: socket,
        })
    }

    /// All images.
    pub(super) async fn images(&self) -> Result<Vec<Image>, Status> {
        let answer = self
            .images
            .clone()
            .list_images(ListImagesRequest {})
            .await?;
        Ok(answer.into_inner().images)
    }

    /// What containerd knows of an image, as JSON; empty where the image is gone.
    pub(super) async fn image_info(&self, id: &str) -> Result<String, Status> {
        let question = ImageStatusRequest {
            image: spec(id),
            verbose: true,
        };
        let answer = self.images.clone().image_status(question).await?;
        let mut info = answer.into_inner().info;
        Ok(info.remove("info").unwrap_or_default())
    }

    /// Removes an image with all its references.
    pub(super) async fn remove_image(&self, id: &str) -> Result<(), Status> {
        let question = RemoveImageRequest { image: spec(id) };
        self.images.clone().remove_image(question).await?;
        Ok(())
    }
}

fn spec(id: &str) -> Option<ImageSpec> {
    Some(ImageSpec {
        image: id.to_owned(),
    })
}
