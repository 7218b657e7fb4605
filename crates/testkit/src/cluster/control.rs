//! The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, each a process of the machine.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::{Mutex, MutexGuard};

use super::addresses::Block;
use super::pki::Pki;
use crate::parts;
use crate::process::Daemon;

/// A part of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The store of all objects.
    Etcd,
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
}

impl Component {
    /// All of them, in the order of their start.
    pub const ALL: [Self; 4] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
    ];

    /// The name of its program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// The user it signs in as.
    fn user(self) -> String {
        format!("system:{}", self.program())
    }
}

/// The users of the control plane's parts.
pub(super) fn users() -> [(String, &'static str); 2] {
    [
        (Component::ControllerManager.user(), ""),
        (Component::Scheduler.user(), ""),
    ]
}

/// What the parts are started with.
#[derive(Debug)]
pub(super) struct ControlPlane {
    dir: PathBuf,
    api: Ipv4Addr,
    services: String,
    extra: Vec<String>,
    // In the order of their drop: those that need the others first.
    running: Mutex<Vec<(Component, Daemon)>>,
}

impl ControlPlane {
    pub(super) fn new(dir: &Path, block: &Block, extra: &[String]) -> Self {
        Self {
            dir: dir.to_owned(),
            api: block.api(),
            services: block.services(),
            extra: extra.to_vec(),
            running: Mutex::default(),
        }
    }

    /// Starts a part that does not run. Does not wait.
    pub(super) fn spawn(&self, component: Component, pki: &Pki) {
        let program = component.program();
        let mut command = Command::new(parts::dir().join(match component {
            Component::Etcd => "etcd/bin/etcd".to_owned(),
            _ => format!("kubernetes/bin/{program}"),
        }));
        match component {
            Component::Etcd => self.etcd(&mut command),
            Component::ApiServer => self.api_server(&mut command, pki),
            Component::ControllerManager => self.controller_manager(&mut command, pki),
            Component::Scheduler => self.scheduler(&mut command, pki),
        }
        command.current_dir(&self.dir);
        let daemon = Daemon::spawn(
            program,
            &mut command,
            &self.dir.join(format!("{program}.log")),
        );
        self.running().insert(0, (component, daemon));
    }

    /// `SIGKILL`, and waits for the end.
    pub(super) fn kill9(&self, component: Component) {
        if let Some(mut daemon) = self.take(component) {
            daemon.kill();
        }
    }

    /// `SIGTERM`, and waits for the end.
    pub(super) fn stop(&self, component: Component) {
        if let Some(mut daemon) = self.take(component) {
            daemon.stop();
        }
    }

    /// Whether it has been started and not ended.
    pub(super) fn runs(&self, component: Component) -> bool {
        self.running()
            .iter_mut()
            .any(|(one, daemon)| *one == component && daemon.exit_status().is_none())
    }

    /// The process ID of a part that was started.
    pub(super) fn pid(&self, component: Component) -> Option<u32> {
        let running = self.running();
        let found = running.iter().find(|(one, _)| *one == component);
        found.map(|(_, daemon)| daemon.pid())
    }

    /// The ends of all logs.
    pub(super) fn log_tails(&self) -> String {
        let running = self.running();
        let tails = running.iter().map(|(component, daemon)| {
            format!("--- {}\n{}\n", component.program(), daemon.log_tail())
        });
        tails.collect()
    }

    fn take(&self, component: Component) -> Option<Daemon> {
        let mut running = self.running();
        let place = running.iter().position(|(one, _)| *one == component)?;
        Some(running.remove(place).1)
    }

    fn running(&self) -> MutexGuard<'_, Vec<(Component, Daemon)>> {
        self.running.lock()
    }

    fn etcd(&self, command: &mut Command) {
        let (client, peer) = (self.etcd_url(2379), self.etcd_url(2380));
        command
            .args(["--name=test", "--unsafe-no-fsync", "--logger=zap"])
            .arg(format!("--data-dir={}/etcd", self.dir.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=test={peer}"));
    }

    fn etcd_url(&self, port: u16) -> String {
        format!("http://{}:{port}", self.api)
    }

    fn api_server(&self, command: &mut Command, pki: &Pki) {
        let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name).display());
        command
            .arg(format!("--etcd-servers={}", self.etcd_url(2379)))
            .arg(format!("--bind-address={}", self.api))
            .arg(format!("--advertise-address={}", self.api))
            .arg(format!("--service-cluster-ip-range={}", self.services))
            .arg("--secure-port=443")
            .arg("--allow-privileged=true")
            .arg("--authorization-mode=Node,RBAC")
            .arg("--enable-admission-plugins=NodeRestriction")
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(file("service-account-key-file", "service-accounts.pub"))
            .arg(file(
                "service-account-signing-key-file",
                "service-accounts.key",
            ))
            .arg(file("tls-cert-file", "apiserver.crt"))
            .arg(file("tls-private-key-file", "apiserver.key"))
            .arg(file("client-ca-file", "ca.crt"))
            .arg(file("token-auth-file", "tokens.csv"))
            .arg(file(
                "kubelet-client-certificate",
                "apiserver-kubelet-client.crt",
            ))
            .arg(file("kubelet-client-key", "apiserver-kubelet-client.key"))
            .args(&self.extra);
    }

    fn controller_manager(&self, command: &mut Command, pki: &Pki) {
        let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name).display());
        self.client(command, pki, Component::ControllerManager);
        command
            .arg("--use-service-account-credentials=true")
            // It makes a token for each of its controllers, and would take five seconds for that.
            .args(["--kube-api-qps=1000", "--kube-api-burst=1000"])
            .arg(file("root-ca-file", "ca.crt"))
            .arg(file(
                "service-account-private-key-file",
                "service-accounts.key",
            ));
    }

    fn scheduler(&self, command: &mut Command, pki: &Pki) {
        self.client(command, pki, Component::Scheduler);
    }

    fn client(&self, command: &mut Command, pki: &Pki, component: Component) {
        let kubeconfig = pki.kubeconfig(&component.user());
        for flag in [
            "kubeconfig",
            "authentication-kubeconfig",
            "authorization-kubeconfig",
        ] {
            command.arg(format!("--{flag}={}", kubeconfig.display()));
        }
        command
            .arg("--leader-elect=false")
            .arg(format!("--bind-address={}", self.api))
            .arg(format!(
                "--cert-dir={}/certs-{}",
                self.dir.display(),
                component.program()
            ));
    }
}
