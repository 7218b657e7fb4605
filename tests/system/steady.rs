//! Pods that read from an accelerated image all the time, and must never stop.

use std::time::Duration;

use serde_json::Value;

use crate::fixture::{ClusterFixture, LABELS, MINUTE, app, pod};

/// Reads all files and compares their checksums, counts, and notes the longest pause between two rounds.
const SCRIPT: &str = r#"cd /data || exit 1
busybox sha256sum noise-* >/sums || exit 1
n=0 longest=0 last=$(busybox date +%s)
while busybox sha256sum -c -s /sums; do
  n=$((n + 1)) now=$(busybox date +%s)
  [ $((now - last)) -le "$longest" ] || longest=$((now - last))
  last=$now
  echo "$n $longest" >/count.new
  busybox mv /count.new /count
  busybox sleep 0.1
done
exit 1
"#;

/// One such Pod on each node.
#[derive(Debug)]
pub(crate) struct Steady {
    /// Name and container ID of each.
    pods: Vec<(String, String)>,
}

impl Steady {
    /// Their image.
    pub(crate) const TARGET: &str = "steady:fast";

    /// Makes the image and starts the Pods.
    pub(crate) fn start(fixture: &ClusterFixture) -> Self {
        app(fixture, "steady:1", 99);
        fixture.create("steady:1", Self::TARGET);
        let image = fixture.reference(Self::TARGET);
        let nodes = fixture.cluster.nodes().iter();
        let names: Vec<String> = nodes
            .map(|node| {
                let name = format!("steady-{}", node.name());
                let on = Some(node.name());
                fixture
                    .cluster
                    .apply(&pod(&name, &image, Some(LABELS[0]), on, SCRIPT));
                name
            })
            .collect();
        let pods = names.into_iter().map(|name| {
            let pod = format!("pod/{name}");
            fixture.cluster.wait("condition=Ready", &[&pod], MINUTE);
            let id = container(fixture, &name)["containerID"].clone();
            (name, id.as_str().unwrap().to_owned())
        });
        Self {
            pods: pods.collect(),
        }
    }

    /// They are the same containers as at the start, and read on.
    pub(crate) fn check(&self, fixture: &ClusterFixture) {
        for (name, id) in &self.pods {
            let container = container(fixture, name);
            assert_eq!(container["restartCount"], 0, "{name}: {container}");
            assert_eq!(container["containerID"], *id, "{name}: {container}");
            assert!(container["state"]["running"].is_object(), "{container}");
            let mut before = None;
            fixture.wait_until(&format!("{name} reads on"), MINUTE, || {
                let Some((count, longest)) = count(fixture, name) else {
                    return false;
                };
                let is_moved = before.is_some_and(|before| count > before);
                before.get_or_insert(count);
                if is_moved {
                    println!("{name}: {count} rounds, the longest pause {longest:?}");
                    assert!(longest < Duration::from_secs(20), "{name}: {longest:?}");
                }
                is_moved
            });
        }
    }
}

fn container(fixture: &ClusterFixture, pod: &str) -> Value {
    fixture.cluster.get(&["pod", pod])["status"]["containerStatuses"][0].clone()
}

/// Rounds so far, and the longest pause.
fn count(fixture: &ClusterFixture, pod: &str) -> Option<(u64, Duration)> {
    let read = ["exec", pod, "--", "/bin/busybox", "cat", "/count"];
    let output = fixture.cluster.kubectl(&read);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (count, longest) = text.trim().split_once(' ')?;
    Some((
        count.parse().ok()?,
        Duration::from_secs(longest.parse().ok()?),
    ))
}
