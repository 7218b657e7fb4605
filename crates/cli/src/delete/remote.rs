//! `delete` through the HTTP API.

use anyhow::Context as _;
use uimgacc_console::Printer;
use uimgacc_remote::{Goal, PollOptions, Request, poll};
use uimgacc_types::ImageReference;

use super::{Delete, PATIENCE};
use crate::exit::Refused;
use crate::remote::{Remote, RemoteProgress, refuse, run};

impl Delete {
    pub(super) fn run_remote(&self, remote: &Remote, printer: Printer) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.no_gc,
            "--no-gc is for local stores: the agent frees the space"
        );
        refuse(&[("--force", self.force)])?;
        self.image
            .parse::<ImageReference>()
            .context("cannot understand the image's name")?;
        let client = remote.client(printer)?;
        let within = self.wait.within(PATIENCE);
        let work = async {
            // Answers tell images by their targets.
            let image = client
                .send(&Request::Get)
                .await?
                .answer
                .target_of(&self.image);
            let request = Request::Delete {
                image: image.clone(),
            };
            client.send(&request).await?;
            let Some(within) = within else {
                return Ok(format!("{image} is being deleted"));
            };
            let talk = RemoteProgress::new(printer);
            let goal = Goal::Deleted(image.clone());
            poll::wait(&client, goal, PollOptions::new(within), &talk).await?;
            Ok(format!("{image} is deleted"))
        };
        let text = run(work, Refused::LeftRemote)?;
        printer.data(&text)?;
        Ok(())
    }
}
