//! `SIGKILL` for every part, at random moments of creates and deletes: all converges, nothing is lost or left, no Pod stops.
//!
//! The moments follow from a seed, which is printed; `UIMGACC_SEED` sets it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant, SystemTime};

use uimgacc_testkit::cluster::{Component, Service};
use uimgacc_testkit::containerd::ContainerdVersion;

use crate::fixture::{ClusterFixture, LABELS, MINUTE, app_of, pod, ready, succeeded};
use crate::parts::{Part, Process};
use crate::steady::Steady;

/// Bytes of each of the three layers of an image: a conversion takes a second or two.
const LAYER_BYTES: u32 = 8 << 20;
/// Images, in two halves that are worked with at once.
const IMAGES: u32 = 6;
/// How often each part is killed.
const ROUNDS: usize = 2;
/// How long a Job's work is waited for.
const WORK: Duration = Duration::from_secs(8);

#[test]
fn all_converges_whatever_is_killed() {
    if !ready() {
        return;
    }
    let seed = std::env::var("UIMGACC_SEED").ok();
    let seed = seed.map_or_else(clock, |text| text.parse().unwrap());
    println!("UIMGACC_SEED={seed}");
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1, ContainerdVersion::V1_7]);
    fixture.enable(&[]);
    let steady = Steady::start(&fixture);
    for number in 0..IMAGES {
        let name = format!("app-{number}:1");
        app_of(fixture.cluster.registry(), &name, number, LAYER_BYTES);
    }

    let started = Instant::now();
    let over = AtomicBool::new(false);
    let wanted = scope(|threads| {
        let killer = threads.spawn(|| {
            // Also where this thread panics, so that the other ends.
            let _over = SetOnDrop(&over);
            kill_all(&fixture, &mut Random(seed));
        });
        let halves = [0..IMAGES / 2, IMAGES / 2..IMAGES].map(|half| {
            let mut random = Random(seed ^ u64::from(half.end));
            let (fixture, over) = (&fixture, &over);
            threads.spawn(move || work(fixture, &mut random, over, half))
        });
        let wanted = halves.into_iter().flat_map(|half| half.join().unwrap());
        let wanted: BTreeMap<u32, bool> = wanted.collect();
        killer.join().unwrap();
        wanted
    });
    println!("killed for {:?}", started.elapsed());

    let started = Instant::now();
    converges(&fixture, &wanted);
    println!("converged after {:?}", started.elapsed());
    steady.check(&fixture);
    nothing_is_left(&fixture);
    for (number, node) in fixture.cluster.nodes().iter().enumerate() {
        let image = fixture.reference("app-0:fast");
        let name = format!("after-{number}");
        let (label, script) = (Some(LABELS[0]), "cat /data/name-1");
        fixture
            .cluster
            .apply(&pod(&name, &image, label, Some(node.name()), script));
        assert_eq!(succeeded(&fixture, &name), "app-0:1\n");
    }
    steady.check(&fixture);
}

fn clock() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_millis()).unwrap()
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// SplitMix64: any seed will do.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn pause(&mut self, least: u64, most: u64) {
        sleep(Duration::from_millis(least + self.below(most - least)));
    }
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Ours(Part),
    ApiServer,
    Service(Service),
}

const VICTIMS: [Victim; 10] = [
    Victim::Ours(Part::Leader),
    Victim::Ours(Part::Work),
    Victim::ApiServer,
    Victim::Ours(Part::Work),
    Victim::Ours(Part::Daemon),
    Victim::Service(Service::Kubelet),
    Victim::Service(Service::Containerd),
    Victim::Ours(Part::Work),
    Victim::Ours(Part::Supervisor),
    Victim::Ours(Part::Installer),
];

fn kill_all(fixture: &ClusterFixture, random: &mut Random) {
    let cluster = &fixture.cluster;
    let begun = Instant::now();
    for _round in 0..ROUNDS {
        let mut victims = VICTIMS.to_vec();
        while !victims.is_empty() {
            let place = random.below(victims.len() as u64);
            let victim = victims.swap_remove(usize::try_from(place).unwrap());
            let node = cluster.node(usize::try_from(random.below(2)).unwrap());
            random.pause(300, 2000);
            let hit = match victim {
                Victim::ApiServer => {
                    cluster.kill9(Component::ApiServer);
                    random.pause(100, 3000);
                    cluster.start_component(Component::ApiServer);
                    Component::ApiServer.program().to_owned()
                }
                Victim::Service(service) => {
                    node.kill9(service);
                    format!("{} of {}", service.name(), node.name())
                }
                Victim::Ours(Part::Work) => {
                    let work = wait_for(WORK, || Process::find_on_any(fixture, Part::Work));
                    random.pause(1, 500);
                    told(work, Part::Work)
                }
                Victim::Ours(Part::Leader) => {
                    told(wait_for(MINUTE, || Process::leader(fixture)), Part::Leader)
                }
                Victim::Ours(part) => told(wait_for(MINUTE, || Process::find(node, part)), part),
            };
            println!("{:6.1} s: kill -9: {hit}", begun.elapsed().as_secs_f64());
            // What Pods read from now on comes from the store again.
            uimgacc_testkit::page_cache::dropped(1);
        }
    }
}

/// A part that was killed a moment ago may not be back yet.
fn wait_for<'a>(patience: Duration, find: impl Fn() -> Option<Process<'a>>) -> Option<Process<'a>> {
    let deadline = Instant::now() + patience;
    loop {
        match find() {
            None if Instant::now() < deadline => sleep(Duration::from_millis(20)),
            found => return found,
        }
    }
}

fn told(process: Option<Process<'_>>, part: Part) -> String {
    let Some(process) = process else {
        return format!("{part:?}: there was none");
    };
    let hit = if process.kill9() {
        ""
    } else {
        ", which had just ended"
    };
    format!("{part:?} on {}{hit}", process.node())
}

/// Creates and deletes images until it is `over`; returns which are to be there.
fn work(
    fixture: &ClusterFixture,
    random: &mut Random,
    over: &AtomicBool,
    images: Range<u32>,
) -> BTreeMap<u32, bool> {
    let mut wanted: BTreeMap<u32, bool> = images.clone().map(|number| (number, false)).collect();
    let mut done = [0, 0];
    while !over.load(Ordering::Relaxed) {
        let count = u64::from(images.end - images.start);
        let number = images.start + u32::try_from(random.below(count)).unwrap();
        let is_wanted = wanted.get_mut(&number).unwrap();
        *is_wanted = !*is_wanted;
        if *is_wanted {
            create(fixture, number, random.below(2) == 0);
        } else {
            delete(fixture, number);
        }
        done[usize::from(*is_wanted)] += 1;
        random.pause(200, 2500);
    }
    println!("{} creates and {} deletes", done[1], done[0]);
    for (number, is_wanted) in &mut wanted {
        cluster_takes(
            fixture,
            &["delete", "pod", &user(*number), "--ignore-not-found"],
        );
        // One that is there at the end, for the last Pods.
        if *number == 0 && !*is_wanted {
            create(fixture, 0, false);
            *is_wanted = true;
        }
    }
    wanted
}

fn user(number: u32) -> String {
    format!("user-{number}")
}

fn target(fixture: &ClusterFixture, number: u32) -> String {
    fixture.reference(&format!("app-{number}:fast"))
}

fn create(fixture: &ClusterFixture, number: u32, used: bool) {
    let original = fixture.reference(&format!("app-{number}:1"));
    let target = target(fixture, number);
    insist(
        fixture,
        "create",
        |_| true,
        || fixture.uimgacc(&["create", &original, &target, "--no-wait"]),
    );
    if used {
        let script = "cat /data/noise-*";
        let yaml = pod(&user(number), &target, Some(LABELS[1]), None, script);
        let file = fixture.cluster.dir().join(format!("{}.yaml", user(number)));
        std::fs::write(&file, yaml).unwrap();
        cluster_takes(fixture, &["apply", "-f", file.to_str().unwrap()]);
    }
}

fn delete(fixture: &ClusterFixture, number: u32) {
    let target = target(fixture, number);
    cluster_takes(
        fixture,
        &["delete", "pod", &user(number), "--ignore-not-found"],
    );
    // Killed while it answered, the API may have done it.
    insist(
        fixture,
        "delete",
        |error| !error.contains("there is no accelerated image"),
        || fixture.uimgacc(&["delete", &target, "--no-wait"]),
    );
}

fn cluster_takes(fixture: &ClusterFixture, arguments: &[&str]) {
    insist(
        fixture,
        arguments[0],
        |_| true,
        || fixture.cluster.kubectl(arguments),
    );
}

/// Says the same again until it is taken: the API may be away, or the image on its way out.
fn insist(
    fixture: &ClusterFixture,
    what: &str,
    is_failure: impl Fn(&str) -> bool,
    say: impl Fn() -> std::process::Output,
) {
    let deadline = Instant::now() + 6 * MINUTE;
    loop {
        let output = say();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || !is_failure(&error) {
            return;
        }
        assert!(!error.contains("panicked"), "{error}");
        let late = Instant::now() >= deadline;
        assert!(!late, "{what}: {error}\n{}", fixture.dump());
        sleep(Duration::from_millis(200));
    }
}

/// Every image asked for is ready, and no other is there; no Job and no label is missing or left.
fn converges(fixture: &ClusterFixture, wanted: &BTreeMap<u32, bool>) {
    let cluster = &fixture.cluster;
    let mut all: Vec<(String, String)> = wanted
        .iter()
        .filter(|(_, is_wanted)| **is_wanted)
        .map(|(number, _)| (target(fixture, *number), "Ready".to_owned()))
        .collect();
    all.push((fixture.reference(Steady::TARGET), "Ready".to_owned()));
    all.sort();
    let mut found = Vec::new();
    fixture.wait_until("the images that were asked for", 4 * MINUTE, || {
        let images = cluster.get(&["acceleratedimages"]);
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        found = images["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|image| {
                (
                    text(&image["spec"]["targetImage"]),
                    text(&image["status"]["phase"]),
                )
            })
            .collect();
        found.sort();
        found == all
    });
    for node in cluster.nodes() {
        fixture.wait_until("labels", MINUTE, || fixture.labels(node.name()) == LABELS);
    }
    fixture.wait_until("the end of the Jobs", 3 * MINUTE, || {
        let jobs = cluster.kubectl_ok(&["get", "jobs", "-n", "kube-system", "-o", "name"]);
        !jobs.contains("uimgacc-convert") && !jobs.contains("uimgacc-delete")
    });
}

/// Nothing in the store is lost, and after a sweep by the agent nothing is left.
fn nothing_is_left(fixture: &ClusterFixture) {
    fixture.assert_clean();
    let cluster = &fixture.cluster;
    let sweep = r#"{"spec": {"sweep": {"intervalMinutes": 1, "graceMinutes": 0}}}"#;
    cluster.kubectl_ok(&["patch", "imgaccel", "default", "--type=merge", "-p", sweep]);
    let store = fixture.store();
    let left = || -> Vec<_> {
        let entries = std::fs::read_dir(store.join("tmp")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let swept = || cluster.get(&["imgaccel", "default"])["status"]["lastSweep"].clone();
    let before = swept();
    let started = Instant::now();
    let mut told = Vec::new();
    fixture.wait_until("a sweep", 3 * MINUTE, || {
        let left = left();
        if left != told {
            println!("{:?}: left in tmp: {left:?}", started.elapsed());
            told.clone_from(&left);
        }
        swept() != before && left.is_empty()
    });
    println!("swept after {:?}", started.elapsed());
    let stat = fixture.json(&["store", "stat", "--store", store.to_str().unwrap()]);
    println!("the store: {stat}");
    assert_eq!(stat["unreferenced_pack_bytes"], 0, "{stat}");
    fixture.assert_clean();
}
