//! `get` through the HTTP API.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::time::Duration;

use comfy_table::Table;
use uimgacc_console::{Printer, bytes};
use uimgacc_remote::answer::one_line;
use uimgacc_remote::wait::{State, whole};
use uimgacc_remote::{
    Answer, Change, Changes, Client, Error, Image, Json, Progress, Request, Response, Status, Task,
    poll,
};
use uimgacc_types::normalised;

use super::{Get, Line, show};
use crate::arguments::{TableFormat, print};
use crate::exit::Refused;
use crate::remote::{Remote, run};

/// Between two questions of a watch.
const PAUSE: Duration = Duration::from_secs(2);

impl Get {
    pub(super) fn run_remote(&self, remote: &Remote, printer: Printer) -> anyhow::Result<()> {
        let client = remote.client(printer)?;
        if self.watch {
            return self.watch_remote(&client, printer);
        }
        let work = async { Ok(client.send(&Request::Get).await?) };
        let mut response = run(work, Refused::Stopped)?;
        if let Some(image) = &self.image {
            keep(&mut response, image, client.cluster())?;
        }
        if self.output == TableFormat::Table {
            say(&response.answer, &client, printer);
        }
        print(printer, self.output, &response.json, || {
            table(&response.answer)
        })
    }

    /// The API does not tell changes, so it is asked again and again.
    fn watch_remote(&self, client: &Client, printer: Printer) -> anyhow::Result<()> {
        let changes = Changes::new(self.image.as_deref());
        let mut failure = None;
        let each = |change: &Change| {
            if self.output == TableFormat::Table && !change.is_other_state {
                return ControlFlow::Continue(());
            }
            let (image, error) = (&change.image, &change.error);
            let line = Line {
                image,
                state: &change.state,
                error,
                is_gone: change.is_gone,
            };
            show(printer, line.of(&change.json, self.output), &mut failure)
        };
        let talk = Headlines::new(printer);
        let work = async { Ok(poll::watch(client, changes, PAUSE, &talk, each).await?) };
        match run(work, Refused::Stopped) {
            // The usual end of a watch.
            Err(error) if error.is::<Refused>() => {}
            other => other?,
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Says how the cluster is each time that this changes.
struct Headlines {
    printer: Printer,
    last: RefCell<String>,
}

impl Headlines {
    fn new(printer: Printer) -> Self {
        let last = RefCell::default();
        Self { printer, last }
    }
}

impl Progress for Headlines {
    fn say(&self, line: &str) {
        self.printer.say(line);
    }

    fn state(&self, state: &State) {
        if self.last.replace(state.text.clone()) != state.text {
            self.printer.say(&state.text);
        }
    }
}

/// Leaves that image alone: that of the target, else those of the original.
fn keep(response: &mut Response, image: &str, cluster: &str) -> Result<(), Error> {
    let name = normalised(image);
    let answer = &mut response.answer;
    let is_meant = answer.is_meant(image);
    let images = answer.images.iter_mut();
    images.for_each(|all| all.retain(|one| is_meant(&one.original_image, &one.target_image)));
    let tasks = answer.tasks.iter_mut();
    tasks.for_each(|all| all.retain(|one| is_meant(&one.original_image, &one.target_image)));
    for key in ["Images", "Tasks"] {
        response.json.retain(key, |item| {
            let of = |key| item.get(key).and_then(Json::as_text).unwrap_or_default();
            is_meant(of("OriginalImage"), of("TargetImage"))
        });
    }
    let is_empty = answer.images.iter().flatten().next().is_none()
        && answer.tasks.iter().flatten().next().is_none();
    match answer.state() {
        _ if !is_empty => Ok(()),
        Status::Ready => Err(Error::NoImage {
            image: name,
            cluster: cluster.to_owned(),
        }),
        ref other => Err(Error::Hidden {
            image: name,
            status: other.name(),
        }),
    }
}

/// How the cluster is, in a line or two.
fn say(answer: &Answer, client: &Client, printer: Printer) {
    printer.say(&format!(
        "{} at {}: {}",
        client.cluster(),
        client.url(),
        whole(answer).text
    ));
    let has_images = answer.images.iter().flatten().next().is_some();
    let has_tasks = answer.tasks.iter().flatten().next().is_some();
    match answer.state() {
        _ if answer.enable == Some(false) || has_images => {}
        Status::Ready if !has_tasks => printer.say("no images; `uimgacc create` makes one"),
        Status::Ready => {}
        ref other => printer.say(&format!(
            "images that are ready are not told while the status is {}",
            other.name()
        )),
    }
}

fn table(answer: &Answer) -> String {
    let images: Vec<&Image> = answer.images.iter().flatten().collect();
    let tasks: Vec<&Task> = answer.tasks.iter().flatten().collect();
    if images.is_empty() && tasks.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "ORIGINAL IMAGE",
        "TARGET IMAGE",
        "SIZE",
        "LAYERS",
        "STATUS",
    ]);
    for image in images {
        table.add_row([
            one_line(&image.original_image),
            one_line(&image.target_image),
            image.size.map(bytes).unwrap_or_default(),
            image
                .layers
                .map(|count| count.to_string())
                .unwrap_or_default(),
            Status::Ready.name().to_owned(),
        ]);
    }
    for task in &tasks {
        table.add_row([
            one_line(&task.original_image),
            one_line(&task.target_image),
            String::new(),
            String::new(),
            task.state(),
        ]);
    }
    let mut text = table.trim_fmt();
    for task in tasks {
        let error = one_line(task.error.as_deref().unwrap_or_default());
        if !error.is_empty() {
            text.push_str(&format!("\n{}: {error}", one_line(&task.target_image)));
        }
    }
    text
}
