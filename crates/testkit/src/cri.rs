//! A small client of containerd's CRI, because no Debian release has `crictl`.
//!
//! Calls block; each has a deadline of two minutes. Pods use the host's network, so no CNI plugin is needed.

mod messages;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use messages as msg;
pub use messages::{ContainerStatus, ExecSyncResponse, FilesystemUsage, Image};

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a failed call says.
pub type Result<T> = std::result::Result<T, Box<Status>>;

/// A client.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
    logs: PathBuf,
}

/// A running pod sandbox.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its ID.
    pub id: String,
    config: msg::PodSandboxConfig,
}

/// States of a container, by `ContainerState` of CRI's api.proto.
pub mod state {
    /// Made, not started.
    pub const CREATED: i32 = 0;
    /// Runs.
    pub const RUNNING: i32 = 1;
    /// Has ended.
    pub const EXITED: i32 = 2;
}

impl Cri {
    /// A client of the containerd at this socket; container logs go to the folder `logs`.
    ///
    /// # Panics
    /// Where the socket does not answer.
    #[must_use]
    pub fn connect(socket: &Path, logs: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a tokio runtime");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .expect("a socket path is an address");
        let channel = runtime.block_on(endpoint.timeout(DEADLINE).connect());
        let channel = channel.unwrap_or_else(|error| panic!("{}: {error:?}", socket.display()));
        Self {
            runtime,
            channel,
            logs: logs.to_owned(),
        }
    }

    fn call<Q, A>(&self, service: &str, method: &str, question: Q) -> Result<A>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let path: PathAndQuery = format!("/runtime.v1.{service}/{method}")
            .parse()
            .expect("a path");
        let mut grpc = Grpc::new(self.channel.clone());
        let answer = self.runtime.block_on(async {
            grpc.ready()
                .await
                .map_err(|error| Status::unavailable(format!("{error:?}")))?;
            grpc.unary(
                Request::new(question),
                path,
                tonic_prost::ProstCodec::default(),
            )
            .await
        });
        answer.map(tonic::Response::into_inner).map_err(Box::new)
    }

    fn on_runtime<Q, A>(&self, method: &str, question: Q) -> Result<A>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        self.call("RuntimeService", method, question)
    }

    fn on_images<Q, A>(&self, method: &str, question: Q) -> Result<A>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        self.call("ImageService", method, question)
    }

    /// Pulls an image and returns its ID.
    pub fn pull(&self, image: &str) -> Result<String> {
        let answer: msg::PullImageResponse =
            self.on_images("PullImage", msg::PullImageRequest { image: spec(image) })?;
        Ok(answer.image_ref)
    }

    /// An image, where it is there.
    pub fn image(&self, image: &str) -> Result<Option<Image>> {
        let answer: msg::ImageStatusResponse =
            self.on_images("ImageStatus", msg::ImageRequest { image: spec(image) })?;
        Ok(answer.image)
    }

    /// Removes an image; no error where it is not there.
    pub fn remove_image(&self, image: &str) -> Result<()> {
        let _empty: msg::Empty =
            self.on_images("RemoveImage", msg::ImageRequest { image: spec(image) })?;
        Ok(())
    }

    /// The file systems that hold images, with what they use.
    pub fn image_filesystems(&self) -> Result<Vec<FilesystemUsage>> {
        let answer: msg::ImageFsInfoResponse = self.on_images("ImageFsInfo", msg::Empty {})?;
        Ok(answer.image_filesystems)
    }

    /// Starts a pod sandbox with the host's network.
    pub fn run_pod(&self, name: &str) -> Result<Pod> {
        let namespaces = msg::NamespaceOption {
            network: msg::NAMESPACE_NODE,
            pid: msg::NAMESPACE_CONTAINER,
            ipc: 0,
        };
        let config = msg::PodSandboxConfig {
            metadata: Some(msg::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: self.logs.display().to_string(),
            linux: Some(msg::LinuxPodSandboxConfig {
                security_context: Some(msg::SecurityContext {
                    namespace_options: Some(namespaces),
                }),
            }),
        };
        let answer: msg::PodSandboxResponse = self.on_runtime(
            "RunPodSandbox",
            msg::RunPodSandboxRequest {
                config: Some(config.clone()),
                runtime_handler: String::new(),
            },
        )?;
        Ok(Pod {
            id: answer.pod_sandbox_id,
            config,
        })
    }

    /// Makes a container in a pod; `command` stands in for the image's entrypoint where it is not empty. Returns its ID.
    pub fn create_container(
        &self,
        pod: &Pod,
        name: &str,
        image: &str,
        command: &[&str],
    ) -> Result<String> {
        let sandbox = pod
            .config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref());
        let namespaces = sandbox.and_then(|context| context.namespace_options.clone());
        let config = msg::ContainerConfig {
            metadata: Some(msg::ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: spec(image),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(msg::LinuxContainerConfig {
                security_context: Some(msg::ContainerSecurityContext {
                    namespace_options: namespaces,
                }),
            }),
        };
        let question = msg::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let answer: msg::ContainerIdMessage = self.on_runtime("CreateContainer", question)?;
        Ok(answer.container_id)
    }

    /// Starts a container.
    pub fn start_container(&self, id: &str) -> Result<()> {
        let _empty: msg::Empty = self.on_runtime("StartContainer", container(id))?;
        Ok(())
    }

    /// The state of a container.
    pub fn container(&self, id: &str) -> Result<ContainerStatus> {
        let answer: msg::ContainerStatusResponse =
            self.on_runtime("ContainerStatus", container(id))?;
        Ok(answer.status.unwrap_or_default())
    }

    /// Waits until a container has ended and returns its exit code.
    ///
    /// # Panics
    /// Where it still runs after two minutes.
    pub fn wait(&self, id: &str) -> Result<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.container(id)?;
            if status.state == state::EXITED {
                return Ok(status.exit_code);
            }
            assert!(
                Instant::now() < deadline,
                "container {id} still runs after {DEADLINE:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a program in a container to its end.
    pub fn exec(&self, id: &str, command: &[&str]) -> Result<ExecSyncResponse> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        self.on_runtime(
            "ExecSync",
            msg::ExecSyncRequest {
                container_id: id.to_owned(),
                cmd,
                timeout: 60,
            },
        )
    }

    /// Kills a container at once.
    pub fn stop_container(&self, id: &str) -> Result<()> {
        let _empty: msg::Empty = self.on_runtime("StopContainer", container(id))?;
        Ok(())
    }

    /// Removes a container.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        let _empty: msg::Empty = self.on_runtime("RemoveContainer", container(id))?;
        Ok(())
    }

    /// Stops and removes a pod with its containers.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let _empty: msg::Empty = self.on_runtime(
                method,
                msg::PodSandboxResponse {
                    pod_sandbox_id: pod.id.clone(),
                },
            )?;
        }
        Ok(())
    }

    /// What a container has written, in CRI's log format (time, stream, tag, text).
    #[must_use]
    pub fn container_log(&self, name: &str) -> String {
        std::fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default()
    }
}

fn spec(image: &str) -> Option<msg::ImageSpec> {
    Some(msg::ImageSpec {
        image: image.to_owned(),
    })
}

fn container(id: &str) -> msg::ContainerIdMessage {
    msg::ContainerIdMessage {
        container_id: id.to_owned(),
    }
}
