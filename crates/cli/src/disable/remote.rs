//! `disable` through the HTTP API.

use uimgacc_console::Printer;
use uimgacc_remote::{Goal, PollOptions, Request, poll};

use super::Disable;
use crate::exit::Refused;
use crate::remote::{Remote, RemoteProgress, refuse, run};

impl Disable {
    pub(super) fn run_remote(&self, remote: &Remote, printer: Printer) -> anyhow::Result<()> {
        refuse(&[("--force", self.force), ("--purge", self.purge)])?;
        let client = remote.client(printer)?;
        let work = async {
            client.send(&Request::Disable).await?;
            let talk = RemoteProgress::new(printer);
            let patience = PollOptions::new(self.timeout);
            poll::wait(&client, Goal::Disabled, patience, &talk).await?;
            Ok(())
        };
        run(work, Refused::LeftRemote)?;
        printer.data(&format!(
            "image acceleration is disabled in {}",
            client.cluster()
        ))?;
        Ok(())
    }
}
