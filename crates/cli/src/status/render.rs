//! The status of a cluster as text. Pure.

use comfy_table::Table;
use uimgacc_console::bytes;
use uimgacc_control::Status;

use crate::colour::{Colour, paint};

pub(super) fn render(status: &Status, colours: bool) -> String {
    let mark = |is_good: bool, good: &str, bad: &str| {
        if is_good {
            paint(Colour::Green, good, colours)
        } else {
            paint(Colour::Red, bad, colours)
        }
    };
    let mut rows = vec![(
        "Kubernetes",
        format!("{} at {}", status.kubernetes, status.server),
    )];
    let overall = if status.disabling {
        paint(Colour::Yellow, "being disabled", colours)
    } else if status.enable {
        mark(status.ready, "ready", "not ready")
    } else {
        paint(Colour::Yellow, "not enabled", colours)
    };
    rows.push(("Acceleration", overall));
    for component in &status.components {
        let title = match component.name.as_str() {
            "agent" => "Agent",
            _ => "Nodes",
        };
        let count = format!("{} of {} ready", component.ready, component.wanted);
        let is_good = component.ready == component.wanted && component.wanted > 0;
        rows.push((
            title,
            format!("{}, {}", mark(is_good, &count, &count), component.image),
        ));
    }
    if status.enable {
        let mut store = format!(
            "{}, {}",
            mark(status.store_ready, "ready", "not ready"),
            status.store
        );
        if let Some(count) = status.store_bytes {
            store.push_str(&format!(", {}", bytes(count)));
        }
        if let Some(time) = &status.last_sweep {
            store.push_str(&format!(", swept {time}"));
        }
        rows.push(("Store", store));
        let images = &status.images;
        let counts: Vec<String> = [
            (images.ready, "ready"),
            (images.creating, "being made"),
            (images.deleting, "being deleted"),
            (images.failed, "failed"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        rows.push((
            "Images",
            if counts.is_empty() {
                "none".to_owned()
            } else {
                counts.join(", ")
            },
        ));
    }
    let mut text = String::new();
    for (title, value) in rows {
        text.push_str(&format!("{title:>12}  {value}\n"));
    }
    if !status.nodes.is_empty() {
        text.push('\n');
        text.push_str(&nodes(status));
        text.push('\n');
    }
    if !status.errors.is_empty() {
        text.push('\n');
        for error in &status.errors {
            text.push_str(&format!("{} {error}\n", paint(Colour::Red, "×", colours)));
        }
    }
    text
}

fn nodes(status: &Status) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "NODE",
        "READY",
        "VERSION",
        "KERNEL",
        "CONTAINERD",
        "MOUNT",
        "IMAGES",
        "CONTAINERS",
    ]);
    for node in &status.nodes {
        let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        table.add_row([
            node.name.clone(),
            if node.ready { "yes" } else { "no" }.to_owned(),
            or_dash(&node.version),
            or_dash(&node.kernel),
            or_dash(&node.containerd),
            or_dash(&node.mount_method),
            node.images.to_string(),
            node.containers.to_string(),
        ]);
    }
    table.trim_fmt()
}
