//! `get` on a cluster.

use comfy_table::Table;
use uimgacc_console::{Printer, bytes};
use uimgacc_control::{ClusterImages, Connect, ImageView};
use uimgacc_types::ImageReference;

use super::{Get, Line, profile, show};
use crate::arguments::{TableFormat, print};
use crate::cluster::{reference, run, state};

impl Get {
    pub(super) fn run_cluster(&self, connect: &Connect, printer: Printer) -> anyhow::Result<()> {
        if self.watch {
            return self.watch_cluster(connect, printer);
        }
        let image = self.reference()?;
        let all = run(connect, |cluster| async move {
            Ok(cluster.get(image.as_ref()).await?)
        })?;
        if self.output == TableFormat::Table {
            printer.say(&headline(&all));
            if all.images.is_empty() && all.enable {
                printer.say("no images; `uimgacc create` makes one");
            }
        }
        print(printer, self.output, &all, || table(&all.images))
    }

    fn reference(&self) -> anyhow::Result<Option<ImageReference>> {
        self.image.as_deref().map(reference).transpose()
    }

    fn watch_cluster(&self, connect: &Connect, printer: Printer) -> anyhow::Result<()> {
        let image = self.reference()?;
        let output = self.output;
        let watched = run(connect, |cluster| async move {
            let mut failure = None;
            let each = |view: &ImageView, is_gone: bool| {
                let (image, error) = (&view.target_image, &view.error);
                let line = Line {
                    image,
                    state: &state(view),
                    error,
                    is_gone,
                };
                show(printer, line.of(view, output), &mut failure)
            };
            cluster.watch(image.as_ref(), each).await?;
            failure.map_or(Ok(()), Err)
        });
        match watched {
            // The usual end of a watch.
            Err(error) if error.is::<crate::exit::Refused>() => Ok(()),
            other => other,
        }
    }
}

/// How the cluster is, in a line.
fn headline(all: &ClusterImages) -> String {
    if !all.enable {
        return "image acceleration is not enabled; `uimgacc enable --nfs ADDR` enables it"
            .to_owned();
    }
    let is = |ready: bool| if ready { "ready" } else { "not ready" };
    let mut text = format!(
        "store {}, agent {}, {} of {} nodes ready",
        is(all.nfs_ready),
        is(all.agent_ready),
        all.ready_nodes,
        all.nodes
    );
    if !all.nfs_ready || !all.agent_ready {
        text.push_str("; `uimgacc status` says why");
    }
    text
}

fn table(images: &[ImageView]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "ORIGINAL IMAGE",
        "TARGET IMAGE",
        "SIZE",
        "LAYERS",
        "PROFILE",
        "STATUS",
        "CREATED",
    ]);
    for image in images {
        table.add_row([
            image.original_image.clone(),
            image.target_image.clone(),
            image.size.map(bytes).unwrap_or_default(),
            image
                .layers
                .map(|count| count.to_string())
                .unwrap_or_default(),
            profile(image.profile.as_ref()),
            state(image),
            image.created.clone(),
        ]);
    }
    let mut text = table.trim_fmt();
    for image in images.iter().filter(|image| !image.error.is_empty()) {
        text.push_str(&format!("\n{}: {}", image.target_image, image.error));
    }
    text
}
