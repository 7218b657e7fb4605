//! What the verbs of a cluster share: the runtime, interruption, progress.

use std::future::Future;
use std::time::Duration;

use uimgacc_console::{ImageProgress, Printer};
use uimgacc_control::{Cluster, Connect, ImageView, Progress};
use uimgacc_types::ImageReference;

use crate::exit::Refused;

/// Connects and runs `work`, until it ends or a signal comes.
pub(crate) fn run<T, F>(connect: &Connect, work: impl FnOnce(Cluster) -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = async { work(Cluster::connect(connect).await?).await } => result,
            () = interrupted() => Err(Refused::Left.into()),
        }
    });
    // Connections need no farewell.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// The image that a name means, or the error of a name that is not valid, with its exit code.
pub(crate) fn reference(name: &str) -> anyhow::Result<ImageReference> {
    let parsed = name.parse::<ImageReference>();
    parsed.map_err(|error| uimgacc_control::Error::from(error).into())
}

/// Ends with Ctrl-C or a request to terminate.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => {
            if result.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Tells what a verb does.
#[derive(Debug)]
pub(crate) struct ClusterProgress {
    printer: Printer,
    image: ImageProgress,
}

impl ClusterProgress {
    pub(crate) fn new(printer: Printer) -> Self {
        Self {
            printer,
            image: ImageProgress::new(printer),
        }
    }
}

impl Progress for ClusterProgress {
    fn say(&self, line: &str) {
        self.printer.say(line);
    }

    fn image(&self, image: &ImageView) {
        match &image.progress {
            Some(progress) => {
                self.image
                    .update(&progress.stage, progress.done_bytes, progress.total_bytes);
            }
            None => self.image.update(&state(image), 0, 0),
        }
    }
}

/// Where an image stands, in a word or three: `Creating 45 %`.
pub(crate) fn state(image: &ImageView) -> String {
    match &image.progress {
        Some(progress) => format!("{:?} {} %", image.status, progress.percent),
        None => format!("{:?}", image.status),
    }
}
