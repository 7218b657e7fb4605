//! `uimgacc config init`.

use clap::Args;
use uimgacc_console::Printer;
use uimgacc_remote::{Client, Config, Error, Request, Setting, config, file, wait};

use super::ask::{Terminal, ask};
use super::path::path;
use crate::arguments::ConfigArgument;
use crate::exit::Refused;
use crate::remote::{resolve, run};

/// Ask for each setting and write the configuration file, which only you can read.
///
/// Without a terminal the answers are lines of standard input: region, project_id, public_key,
/// private_key, cluster_id, subnet_id, nfs_addr, uhub_username, uhub_password, base_url. An empty line
/// keeps what is there, `-` takes it away. At the end the service is asked once, to see whether all
/// fits.
#[derive(Debug, Args)]
#[command(after_help = super::VARIABLES)]
pub(crate) struct Init {
    /// Start over, whatever stands in the file.
    #[arg(long)]
    force: bool,
    /// Do not ask the service whether the settings fit.
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

impl Init {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let path = path(&self.config)?;
        let wrong = |source| Error::Config {
            path: path.clone(),
            source,
        };
        let text = match file::read(&path)? {
            Some((text, _)) if !self.force => text,
            _ => String::new(),
        };
        let old = Config::parse(&text).map_err(wrong)?;

        let terminal = Terminal::new();
        let is_terminal = terminal.is_one();
        // Reading cannot be interrupted, so it is left alone where a signal comes.
        let asking =
            async { tokio::task::spawn_blocking(move || ask(&old, is_terminal, printer)).await? };
        let changes = run(asking, Refused::NothingWritten)?;
        drop(terminal);
        // An empty file would only turn the verbs from the cluster to the API.
        anyhow::ensure!(
            !changes.is_empty() || path.exists(),
            "nothing was set, so nothing was written"
        );

        let changes = changes.iter();
        let text = config::edited(
            &text,
            changes.map(|(setting, value)| (*setting, value.as_deref())),
        );
        let text = text.map_err(wrong)?;
        let new = Config::parse(&text).map_err(wrong)?;
        file::write(&path, &text)?;
        printer.say(&format!("written to {}", path.display()));
        if self.no_check {
            return Ok(());
        }
        check(&new, printer)
    }
}

/// Asks the service with what is in effect now, where that is enough to ask.
fn check(config: &Config, printer: Printer) -> anyhow::Result<()> {
    let settings = resolve(config)?;
    let needed = [Setting::PublicKey, Setting::PrivateKey, Setting::ClusterId];
    let missing = needed.into_iter().find(|one| settings.get(*one).is_none());
    if let Some(missing) = missing {
        printer.say(&format!(
            "not tried: {} is not set ({} can set it, too)",
            missing.key(),
            missing.variable()
        ));
        return Ok(());
    }
    let client = Client::new(settings)?;
    let asked = run(
        async { Ok(client.send(&Request::Get).await?) },
        Refused::Stopped,
    );
    match asked {
        Ok(response) => {
            printer.say(&format!(
                "it works: {} answers for {}: {}",
                client.url(),
                client.cluster(),
                wait::whole(&response.answer).text
            ));
            Ok(())
        }
        Err(error) => {
            printer.complain("it does not work yet:");
            Err(error)
        }
    }
}
