//! `create` on a cluster.

use std::time::{Duration, Instant};

use anyhow::ensure;
use uimgacc_console::{Printer, bytes, duration};
use uimgacc_control::{Connect, CreateRequest, ImageView};

use super::{Create, PATIENCE};
use crate::arguments::print;
use crate::cluster::{ClusterProgress, reference, run};

impl Create {
    pub(super) fn run_cluster(&self, connect: &Connect, printer: Printer) -> anyhow::Result<()> {
        let local = &self.local;
        ensure!(
            local.registry.username.is_none(),
            "--username is for local stores: on a cluster `uimgacc enable --username` stores the password, \
             or --pull-secret names a Secret"
        );
        ensure!(
            !local.registry.plain_http && local.registry.plain_http_registry.is_empty(),
            "--plain-http and --plain-http-registry are for local stores: on a cluster `uimgacc enable --plain-http-registry` names such registries"
        );
        ensure!(
            !local.no_push
                && local.jobs.is_none()
                && local.max_expansion.is_none()
                && local.profile_from.is_none(),
            "--no-push, --jobs, --max-expansion and --profile-from are for local stores (--store)"
        );
        let request = CreateRequest {
            original: reference(&self.original)?,
            target: reference(&self.target)?,
            platform: self
                .platform
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            pull_secret: self.pull_secret.clone(),
            profile: self.command()?,
        };
        let within = self.wait.within(PATIENCE);
        let started = Instant::now();
        let image = run(connect, |cluster| async move {
            let created = cluster.create(&request).await?;
            match within {
                Some(within) => {
                    let talk = ClusterProgress::new(printer);
                    Ok(cluster.wait_ready(&created, within, &talk).await?)
                }
                None => Ok(created.image),
            }
        })?;
        print(printer, self.output, &image, || {
            summary(&image, within.map(|_| started.elapsed()))
        })
    }
}

fn summary(image: &ImageView, took: Option<Duration>) -> String {
    let Some(took) = took else {
        return format!(
            "{} is being made; `uimgacc get -w` shows how far it is",
            image.target_image
        );
    };
    format!(
        "{} is ready: {} in {} layers, took {}",
        image.target_image,
        bytes(image.size.unwrap_or(0)),
        image.layers.unwrap_or(0),
        duration(took)
    )
}
