//! A small client of containerd's CRI, because no Debian release has `crictl`.
//!
//! Calls block; each has a deadline of two minutes. Pods use the host's network, so no CNI plugin is needed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use uimgacc_containerd_api::cri as api;
use uimgacc_containerd_api::cri::image_service_client::ImageServiceClient;
use uimgacc_containerd_api::cri::runtime_service_client::RuntimeServiceClient;
pub use uimgacc_containerd_api::cri::{
    ContainerState, ContainerStatus, ExecSyncResponse, FilesystemUsage, Image,
};

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
    config: api::PodSandboxConfig,
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

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
    }

    fn containers(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
    }

    fn call<A>(
        &self,
        call: impl Future<Output = std::result::Result<Response<A>, Status>>,
    ) -> Result<A> {
        let answer = self.runtime.block_on(call);
        answer.map(Response::into_inner).map_err(Box::new)
    }

    /// Pulls an image and returns its ID.
    pub fn pull(&self, image: &str) -> Result<String> {
        let request = api::PullImageRequest { image: spec(image) };
        Ok(self.call(self.images().pull_image(request))?.image_ref)
    }

    /// An image, where it is there.
    pub fn image(&self, image: &str) -> Result<Option<Image>> {
        let request = api::ImageStatusRequest {
            image: spec(image),
            verbose: false,
        };
        Ok(self.call(self.images().image_status(request))?.image)
    }

    /// Removes an image; no error where it is not there.
    pub fn remove_image(&self, image: &str) -> Result<()> {
        let request = api::RemoveImageRequest { image: spec(image) };
        self.call(self.images().remove_image(request))?;
        Ok(())
    }

    /// The file systems that hold images, with what they use.
    pub fn image_filesystems(&self) -> Result<Vec<FilesystemUsage>> {
        let request = api::ImageFsInfoRequest {};
        let answer = self.call(self.images().image_fs_info(request))?;
        Ok(answer.image_filesystems)
    }

    /// Starts a pod sandbox with the host's network.
    pub fn run_pod(&self, name: &str) -> Result<Pod> {
        let namespaces = api::NamespaceOption {
            network: api::NamespaceMode::Node.into(),
            pid: api::NamespaceMode::Container.into(),
            ipc: api::NamespaceMode::Pod.into(),
        };
        let config = api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: self.logs.display().to_string(),
            linux: Some(api::LinuxPodSandboxConfig {
                security_context: Some(api::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                }),
            }),
        };
        let request = api::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let answer = self.call(self.containers().run_pod_sandbox(request))?;
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
        let namespaces = sandbox.and_then(|context| context.namespace_options);
        let config = api::ContainerConfig {
            metadata: Some(api::ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: spec(image),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(api::LinuxContainerConfig {
                security_context: Some(api::LinuxContainerSecurityContext {
                    namespace_options: namespaces,
                }),
            }),
        };
        let request = api::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let answer = self.call(self.containers().create_container(request))?;
        Ok(answer.container_id)
    }

    /// Starts a container.
    pub fn start_container(&self, id: &str) -> Result<()> {
        let container_id = id.to_owned();
        let request = api::StartContainerRequest { container_id };
        self.call(self.containers().start_container(request))?;
        Ok(())
    }

    /// The state of a container.
    pub fn container(&self, id: &str) -> Result<ContainerStatus> {
        let container_id = id.to_owned();
        let request = api::ContainerStatusRequest { container_id };
        let answer = self.call(self.containers().container_status(request))?;
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
            if status.state() == ContainerState::ContainerExited {
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
        let request = api::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 60,
        };
        self.call(self.containers().exec_sync(request))
    }

    /// Kills a container at once.
    pub fn stop_container(&self, id: &str) -> Result<()> {
        let container_id = id.to_owned();
        let request = api::StopContainerRequest { container_id };
        self.call(self.containers().stop_container(request))?;
        Ok(())
    }

    /// Removes a container.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        let container_id = id.to_owned();
        let request = api::RemoveContainerRequest { container_id };
        self.call(self.containers().remove_container(request))?;
        Ok(())
    }

    /// Stops and removes a pod with its containers.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        let pod_sandbox_id = pod.id.clone();
        let request = api::StopPodSandboxRequest { pod_sandbox_id };
        self.call(self.containers().stop_pod_sandbox(request))?;
        let pod_sandbox_id = pod.id.clone();
        let request = api::RemovePodSandboxRequest { pod_sandbox_id };
        self.call(self.containers().remove_pod_sandbox(request))?;
        Ok(())
    }

    /// What a container has written, in CRI's log format (time, stream, tag, text).
    #[must_use]
    pub fn container_log(&self, name: &str) -> String {
        std::fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default()
    }
}

fn spec(image: &str) -> Option<api::ImageSpec> {
    Some(api::ImageSpec {
        image: image.to_owned(),
    })
}
