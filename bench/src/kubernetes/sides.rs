//! The sides of the comparison, measured in turns.

use std::path::Path;
use std::time::Duration;

use uimgacc_testkit::cluster::Node;
use uimgacc_testkit::cri::Cri;

use super::start::{Pod, Start};
use super::{LABELS, Options, World, phases};
use crate::samples::Samples;
use crate::show::{Show, megabytes, seconds};

/// How long containerd may take to let a removed image go.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Sides {
    on_node: Vec<Start>,
    store: Vec<Start>,
    pull: Vec<Start>,
}

/// Where Pods are started.
struct Starter<'a> {
    world: &'a World<'a>,
    options: &'a Options,
    original: &'a str,
    target: &'a str,
    fast: Cri,
    plain: Cri,
}

impl Sides {
    /// Measures all sides in turns. Each round starts one Pod of the original image on the node without the plugin, where that image
    /// lies, and one of the target image on the other node, which has to pull it. Pulls of the original are spread over the rounds.
    pub(super) fn measure(
        world: &World<'_>,
        options: &Options,
        original: &str,
        target: &str,
        rounds: u32,
        show: Show,
    ) -> anyhow::Result<Self> {
        let [fast, plain] = [0, 1].map(|index| {
            let socket = world.cluster.node(index).containerd_socket();
            Cri::connect(&socket, Path::new("/var/log/pods"))
        });
        let starter = Starter {
            world,
            options,
            original,
            target,
            fast,
            plain,
        };
        let mut sides = Self::default();
        for round in 0..=rounds {
            if sides.pull.len() < options.pulls as usize
                && round * options.pulls >= rounds * u32::try_from(sides.pull.len())?
            {
                sides.pull.push(starter.pull(round)?);
            }
            let (on_node, store) = if round % 2 == 0 {
                let store = starter.store(round)?;
                (starter.on_node(round)?, store)
            } else {
                (starter.on_node(round)?, starter.store(round)?)
            };
            // The first round finds what the later ones do not: parts that have never run.
            if round > 0 {
                show.line(&format!(
                    "  round {round:>2}: image on the node {:>8}, store {:>8}",
                    seconds(on_node.took),
                    seconds(store.took)
                ))?;
                sides.on_node.push(on_node);
                sides.store.push(store);
            }
        }
        Ok(sides)
    }

    /// Prints medians and ratios.
    pub(super) fn tell(&self, show: Show) -> anyhow::Result<()> {
        let all = [&self.on_node, &self.store, &self.pull];
        let row = |name: &str, column: &dyn Fn(&[Start]) -> String| {
            show.row(name, &all.map(|starts| column(starts)))
        };
        show.heading("Medians")?;
        show.row(
            "",
            &["on the node", "from the store", "pulled"].map(str::to_owned),
        )?;
        row("Pods", &|starts| starts.len().to_string())?;
        row("to the first line", &|starts| seconds(took(starts, 50)))?;
        row("p10", &|starts| seconds(took(starts, 10)))?;
        row("p90", &|starts| seconds(took(starts, 90)))?;
        row("sent by the registry", &|starts| {
            megabytes(median(starts, |start| start.sent_bytes))
        })?;
        row("read from the disk, by all processes", &|starts| {
            megabytes(median(starts, |start| start.read_bytes))
        })?;
        for (place, name) in phases::names().enumerate() {
            row(&format!("  {name}"), &|starts| {
                let median = median(starts, |start| {
                    start.phases.get(place).copied().unwrap_or_default()
                });
                format!("{:.3} s", median.as_seconds_f64())
            })?;
        }
        let [on_node, store, pull] = all.map(|starts| took(starts, 50).as_secs_f64());
        // Less moved by what else the machine does: both of a round had much the same of it.
        let rounds = self.store.iter().zip(&self.on_node);
        let mut ratios: Vec<f64> = rounds
            .map(|(store, on_node)| store.took.as_secs_f64() / on_node.took.as_secs_f64())
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let paired = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
        show.line(&format!(
            "\n  from the store / on the node: {:.2} (by rounds {paired:.2}), pulled / from the store: {:.1}",
            store / on_node,
            pull / store
        ))
    }
}

fn took(starts: &[Start], percent: usize) -> Duration {
    let mut samples = Samples::default();
    for start in starts {
        samples.add(start.took);
    }
    samples.percentile(percent)
}

fn median<T: Ord + Copy + Default>(starts: &[Start], value: impl Fn(&Start) -> T) -> T {
    let mut values: Vec<T> = starts.iter().map(value).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Starter<'_> {
    fn fast_node(&self) -> &Node {
        self.world.cluster.node(0)
    }

    fn plain_node(&self) -> &Node {
        self.world.cluster.node(1)
    }

    fn start(
        &self,
        name: String,
        image: &str,
        label: Option<&str>,
        node: &Node,
    ) -> anyhow::Result<Start> {
        let pod = Pod {
            name,
            image,
            label,
            expected: &self.options.expect,
        };
        pod.start(&self.world.cluster, node, self.world.interrupt)
    }

    /// The original image, which lies on the node.
    fn on_node(&self, round: u32) -> anyhow::Result<Start> {
        self.start(
            format!("on-node-{round}"),
            self.original,
            None,
            self.plain_node(),
        )
    }

    /// The original image, which has to be pulled.
    fn pull(&self, round: u32) -> anyhow::Result<Start> {
        self.plain.remove_image(self.original)?;
        self.start(
            format!("pull-{round}"),
            self.original,
            None,
            self.plain_node(),
        )
    }

    /// The target image, of which the node has nothing.
    fn store(&self, round: u32) -> anyhow::Result<Start> {
        self.fast.remove_image(self.target)?;
        let node = self.fast_node();
        self.world
            .interrupt
            .wait("the image is unmounted", PATIENCE, || {
                Ok((!node.mounts().contains(" - erofs ")).then_some(()))
            })?;
        let label = LABELS[round as usize % LABELS.len()];
        self.start(format!("store-{round}"), self.target, Some(label), node)
    }
}
