//! `enable` through the HTTP API.

use uimgacc_api::Secret;
use uimgacc_console::Printer;
use uimgacc_control::DEFAULT_TIMEOUT;
use uimgacc_remote::{Error, Goal, PollOptions, Request, Setting, Settings, poll};

use super::{Enable, password};
use crate::exit::Refused;
use crate::remote::{Remote, RemoteProgress, refuse, run};

impl Enable {
    pub(super) fn run_remote(self, remote: &Remote, printer: Printer) -> anyhow::Result<()> {
        self.refuse_what_the_api_lacks()?;
        let within = self.wait.within(DEFAULT_TIMEOUT);
        let settings = remote.settings(printer)?;
        let request = self.remote_request(&settings, printer)?;
        warn_of_plain_http(&request, &settings, printer);
        let client = uimgacc_remote::Client::new(settings)?;
        let work = async {
            client.send(&request).await?;
            let Some(within) = within else {
                return Ok(None);
            };
            let talk = RemoteProgress::new(printer);
            let patience = PollOptions::new(within);
            let response = poll::wait(&client, Goal::Enabled, patience, &talk).await?;
            Ok(Some(response.answer))
        };
        let cluster = client.cluster();
        let text = match run(work, Refused::LeftRemote)? {
            None => format!(
                "image acceleration is being set up in {cluster}; `uimgacc get` shows how far it is"
            ),
            Some(answer) => {
                let problem = answer.problem();
                if !problem.is_empty() {
                    printer.say(&format!("{}: {problem}", answer.state().name()));
                }
                match answer.ready_nodes {
                    Some(count) => {
                        format!("image acceleration is ready on {count} nodes of {cluster}")
                    }
                    None => format!("image acceleration is ready in {cluster}"),
                }
            }
        };
        printer.data(&text)?;
        Ok(())
    }

    fn refuse_what_the_api_lacks(&self) -> anyhow::Result<()> {
        let paths = &self.paths;
        let registry = &self.registry;
        refuse(&[
            ("--node-selector", self.node_selector.is_some()),
            ("--image", self.image.is_some()),
            ("--fallback", self.fallback.is_some()),
            ("--originals", self.originals.is_some()),
            ("--max-conversions", self.max_conversions.is_some()),
            ("--max-unavailable", self.max_unavailable.is_some()),
            ("--force", self.force),
            ("--dry-run", self.dry_run.is_some()),
            ("--pvc", self.store.pvc.is_some()),
            ("--host-path", self.store.host_path.is_some()),
            ("--registry", registry.registry.is_some()),
            ("--registry-secret", registry.registry_secret.is_some()),
            ("--allow-target", registry.allow_target.is_some()),
            ("--credentials-for", registry.credentials_for.is_some()),
            (
                "--plain-http-registry",
                registry.plain_http_registry.is_some(),
            ),
            ("--containerd-config", paths.containerd_config.is_some()),
            ("--containerd-socket", paths.containerd_socket.is_some()),
            ("--containerd-binary", paths.containerd_binary.is_some()),
            ("--containerd-restart", paths.containerd_restart.is_some()),
            ("--bin-dir", paths.bin_dir.is_some()),
            ("--root-dir", paths.root_dir.is_some()),
            ("--run-dir", paths.run_dir.is_some()),
            ("--config-dir", paths.config_dir.is_some()),
        ])
    }

    /// What the command line says, else the settings.
    fn remote_request(self, settings: &Settings, printer: Printer) -> anyhow::Result<Request> {
        let of = |setting| settings.get(setting).map(str::to_owned);
        let login = match self.registry.username {
            Some(user) => Some((user, Secret::new(password(printer)?))),
            None => match (of(Setting::UhubUsername), of(Setting::UhubPassword)) {
                (Some(user), Some(password)) => Some((user, Secret::new(password))),
                (None, None) => None,
                (Some(_), None) => return Err(Error::NotSet(Setting::UhubPassword).into()),
                (None, Some(_)) => return Err(Error::NotSet(Setting::UhubUsername).into()),
            },
        };
        Ok(Request::Enable {
            nfs: self.store.nfs.or_else(|| of(Setting::NfsAddr)),
            subnet: self.subnet_id.or_else(|| of(Setting::SubnetId)),
            login,
        })
    }
}

/// The password goes over the wire as it is.
fn warn_of_plain_http(request: &Request, settings: &Settings, printer: Printer) {
    let url = settings.get(Setting::BaseUrl).unwrap_or_default();
    let has_password = matches!(request, Request::Enable { login: Some(_), .. });
    if let Some(rest) = url.strip_prefix("http://").filter(|_| has_password) {
        let host = rest.split('/').next().unwrap_or_default();
        if !uimgacc_registry::is_near(host) {
            printer.complain(&format!(
                "warning: the registry's password goes to {host} without TLS"
            ));
        }
    }
}
