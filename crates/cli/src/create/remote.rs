//! `create` through the HTTP API.

use std::time::{Duration, Instant};

use uimgacc_console::{Printer, bytes, duration};
use uimgacc_remote::{Client, Goal, Json, PollOptions, Request, Response, poll};
use uimgacc_types::normalised;

use super::{Create, PATIENCE};
use crate::arguments::print;
use crate::exit::Refused;
use crate::remote::{Remote, RemoteProgress, refuse, run};

impl Create {
    pub(super) fn run_remote(&self, remote: &Remote, printer: Printer) -> anyhow::Result<()> {
        let local = &self.local;
        anyhow::ensure!(
            !local.is_given(),
            "--plain-http, --plain-http-registry, --username, --no-push, --profile-from, --jobs and \
             --max-expansion are for local stores (--store)"
        );
        refuse(&[
            ("--platform", self.platform.is_some()),
            ("--pull-secret", self.pull_secret.is_some()),
            ("--profile", self.profile.is_some()),
        ])?;
        // A name that is none is told here better than by the service.
        self.request()?;
        let client = remote.client(printer)?;
        let within = self.wait.within(PATIENCE);
        let started = Instant::now();
        let response = run(
            self.create_remotely(&client, within, printer),
            Refused::LeftRemote,
        )?;
        match response {
            Some(response) => {
                let image = entry(&response.json, &self.target);
                print(printer, self.output, &image, || {
                    self.summary(&response, started.elapsed())
                })
            }
            None => {
                let image = serde_json::json!({
                    "OriginalImage": self.original, "TargetImage": self.target, "Status": "Creating",
                });
                print(printer, self.output, &image, || {
                    format!(
                        "{} is being made; `uimgacc get` shows how far it is",
                        self.target
                    )
                })
            }
        }
    }

    /// The answer that shows that it is ready, where that is waited for.
    async fn create_remotely(
        &self,
        client: &Client,
        within: Option<Duration>,
        printer: Printer,
    ) -> anyhow::Result<Option<Response>> {
        let request = Request::Create {
            original: self.original.clone(),
            target: self.target.clone(),
        };
        client.send(&request).await?;
        let Some(within) = within else {
            return Ok(None);
        };
        let goal = Goal::Created(self.target.clone());
        let talk = RemoteProgress::new(printer);
        let response = poll::wait(client, goal, PollOptions::new(within), &talk).await?;
        Ok(Some(response))
    }

    fn summary(&self, response: &Response, took: Duration) -> String {
        let mut text = format!("{} is ready", self.target);
        let image = response.answer.image(&self.target);
        if let Some((size, layers)) = image.and_then(|image| image.size.zip(image.layers)) {
            text.push_str(&format!(": {} in {layers} layers", bytes(size)));
        }
        text.push_str(&format!(", took {}", duration(took)));
        text
    }
}

/// What an answer says of a target, as it came.
fn entry(json: &Json, target: &str) -> Json {
    let target = normalised(target);
    let lists = ["Images", "Tasks"]
        .into_iter()
        .filter_map(|key| json.get(key));
    let mut all = lists.flat_map(Json::items);
    let found = all.find(|item| {
        let name = item.get("TargetImage").and_then(Json::as_text);
        name.is_some_and(|name| normalised(name) == target)
    });
    found.cloned().unwrap_or(Json::Null)
}
