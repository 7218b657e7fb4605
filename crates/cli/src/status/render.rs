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

#[cfg(test)]
mod tests {
    use super::*;
    use uimgacc_control::{ComponentStatus, ImageTotals, NodeStatus};

    fn node(name: &str, error: &str) -> NodeStatus {
        NodeStatus {
            name: name.to_owned(),
            ready: error.is_empty(),
            version: "0.1.0".to_owned(),
            kernel: "6.8.0-31-generic".to_owned(),
            containerd: "2.1.9".to_owned(),
            mount_method: if error.is_empty() { "loop" } else { "" }.to_owned(),
            images: 3,
            containers: 12,
            error: error.to_owned(),
        }
    }

    fn status() -> Status {
        Status {
            kubernetes: "v1.30.2".to_owned(),
            server: "https://10.0.0.9:6443".to_owned(),
            enable: true,
            disabling: false,
            ready: false,
            store: "NFS 10.0.0.1:/x".to_owned(),
            store_ready: true,
            store_id: None,
            store_bytes: Some(34_560_000_000),
            last_sweep: Some("2026-11-25T14:00:00Z".to_owned()),
            components: vec![
                ComponentStatus {
                    name: "agent".to_owned(),
                    ready: 2,
                    wanted: 2,
                    image: "uimgacc/uimgacc:0.1.0".to_owned(),
                },
                ComponentStatus {
                    name: "nodes".to_owned(),
                    ready: 1,
                    wanted: 2,
                    image: "uimgacc/uimgacc:0.1.0".to_owned(),
                },
            ],
            nodes: vec![node("a", ""), node("b", "no room")],
            images: ImageTotals {
                total: 5,
                ready: 4,
                creating: 1,
                ..ImageTotals::default()
            },
            errors: vec!["node b: no room".to_owned()],
        }
    }

    #[test]
    fn as_people_see_it() {
        let expected = "  \
  Kubernetes  v1.30.2 at https://10.0.0.9:6443
Acceleration  not ready
       Agent  2 of 2 ready, uimgacc/uimgacc:0.1.0
       Nodes  1 of 2 ready, uimgacc/uimgacc:0.1.0
       Store  ready, NFS 10.0.0.1:/x, 34.5 GB, swept 2026-11-25T14:00:00Z
      Images  4 ready, 1 being made

 NODE  READY  VERSION  KERNEL            CONTAINERD  MOUNT  IMAGES  CONTAINERS
 a     yes    0.1.0    6.8.0-31-generic  2.1.9       loop   3       12
 b     no     0.1.0    6.8.0-31-generic  2.1.9       -      3       12

× node b: no room
";
        assert_eq!(render(&status(), false), expected);
    }

    #[test]
    fn colours_where_they_are_wanted() {
        let text = render(&status(), true);
        assert!(text.contains("\u{1b}[31mnot ready\u{1b}[0m"), "{text}");
        assert!(text.contains("\u{1b}[32m2 of 2 ready\u{1b}[0m"), "{text}");
        let mut off = status();
        off.enable = false;
        assert!(!render(&off, false).contains("Store"));
    }
}
