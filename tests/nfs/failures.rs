//! Servers that are wrong, refuse, hang or go away: errors that say what to do, in bounded time, and a daemon that goes on answering.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use uimgacc_testkit::process::run;
use uimgacc_testkit::uml::Kernel;

use crate::support::{NfsFixture, Node, inside, source, visible};

/// A look into the store may take 5 s by default; the rest is the pull that follows.
const BOUND: Duration = Duration::from_secs(12);

/// A pull that finds no store: it takes the layers from the registry, soon.
fn falls_back(node: &Node, fixture: &NfsFixture) {
    let started = Instant::now();
    let pulled = node.pull(fixture, "app:fast");
    assert!(pulled.status.success(), "{pulled:?}\n{}", node.log());
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    assert!(node.files_unpacked() > 0, "{}", node.log());
    forget(node, fixture);
}

fn forget(node: &Node, fixture: &NfsFixture) {
    let reference = fixture.registry.reference("app:fast");
    node.containerd
        .ctr_ok(&["images", "rm", "--sync", &reference]);
    assert_eq!(node.files_unpacked(), 0);
}

/// The daemon answers at once, whatever its store does.
fn answers(node: &Node) {
    let started = Instant::now();
    node.containerd
        .ctr_ok(&["snapshots", "--snapshotter", "uimgacc", "ls"]);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[track_caller]
fn says(node: &Node, parts: &[&str]) {
    let log = node.log();
    for part in parts {
        assert!(log.contains(part), "{part}\n{log}");
    }
}

fn wait_for(node: &Node, part: &str) {
    let started = Instant::now();
    while !node.log().contains(part) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{part}\n{}",
            node.log()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Changes the store by a reload and waits until it is taken.
fn change(node: &Node, config: &str) {
    node.configure(config);
    node.reload();
    let store = config.split('"').nth(1).unwrap();
    wait_for(node, &format!("configuration read again store={store}"));
}

#[test]
fn wrong_addresses_and_a_reload() {
    inside(
        Kernel::V7_2,
        "failures::wrong_addresses_and_a_reload",
        || {
            let fixture = NfsFixture::new();
            // Nobody there: packets to it vanish.
            run(Command::new("ip").args(["route", "add", "192.0.2.0/24", "dev", "lo"]));
            let node = Node::start("wrong", &source("127.0.0.1:2050", "4.2"));
            falls_back(&node, &fixture);
            says(
                &node,
                &[
                    "127.0.0.1:2050: no connection to 127.0.0.1:2050",
                    "refused",
                    "is this the NFS server's address",
                ],
            );
            for (servers, path, version, part) in [
                ("192.0.2.7", "/", "4.2", "192.0.2.7: no "),
                (
                    "no-such-host.invalid",
                    "/",
                    "4.2",
                    "its name cannot be resolved",
                ),
                (
                    "127.0.0.1",
                    "/nowhere",
                    "4.2",
                    "the server exports no such path",
                ),
                (
                    "127.0.0.1",
                    "/nowhere",
                    "3",
                    "does not export that path to this node",
                ),
            ] {
                change(
                    &node,
                    &format!("store = \"nfs://{servers}{path}?vers={version}\"\n"),
                );
                falls_back(&node, &fixture);
                says(&node, &[part]);
                answers(&node);
            }
            // The right address is among them, and not the first: it is found.
            change(&node, &source("192.0.2.7,127.0.0.1:2050,127.0.0.1", "4.2"));
            let pulled = node.pull(&fixture, "app:fast");
            assert!(pulled.status.success(), "{pulled:?}");
            assert_eq!(node.files_unpacked(), 0, "{}", node.log());
            let root = node.mount(&fixture, "app:fast");
            // A wrong file changes nothing, and a new address is for new mounts: this one stays.
            node.configure("store = 7\n");
            node.reload();
            wait_for(&node, "the old one stays");
            change(&node, &source("127.0.0.1", "3"));
            says(
                &node,
                &[
                    "the configuration is wrong; the old one stays",
                    "line 3: invalid type",
                ],
            );
            let text = std::fs::read_to_string(root.join("data/small")).unwrap();
            assert_eq!(text, "small\n");
            assert_eq!(visible(), Vec::<String>::new());
            println!("{}", node.log());
        },
    );
}

#[test]
fn a_server_that_takes_connections_and_says_nothing() {
    let name = "failures::a_server_that_takes_connections_and_says_nothing";
    inside(Kernel::V7_2, name, || {
        let fixture = NfsFixture::new();
        let silent = TcpListener::bind("127.0.0.1:3049").unwrap();
        let node = Node::start("silent", &source("127.0.0.1:3049", "4.0"));
        // By this pull, or by the daemon's own look at its store.
        falls_back(&node, &fixture);
        says(&node, &["did not answer in 5 s"]);
        answers(&node);
        // The next one does not wait again.
        let started = Instant::now();
        falls_back(&node, &fixture);
        assert!(
            started.elapsed() < Duration::from_secs(4),
            "{:?}",
            started.elapsed()
        );
        // The mount that hangs does not keep a good address from being taken.
        change(&node, &source("127.0.0.1", "4.0"));
        let pulled = node.pull(&fixture, "app:fast");
        assert!(pulled.status.success(), "{pulled:?}");
        assert_eq!(node.files_unpacked(), 0, "{}", node.log());
        drop(silent);
    });
}

#[test]
fn the_server_stops_and_comes_back() {
    inside(
        Kernel::V7_2,
        "failures::the_server_stops_and_comes_back",
        || {
            let fixture = NfsFixture::new();
            let config = source("127.0.0.1", "4.2") + "store_timeout = 2\nmount_timeout = 4\n";
            let mut node = Node::start("stops", &config);
            let pulled = node.pull(&fixture, "app:fast");
            assert!(pulled.status.success(), "{pulled:?}");
            assert_eq!(node.files_unpacked(), 0);
            fixture.server.stop();

            // Not mounted yet, and the store does not answer: an error in time.
            let target = node.folder.join("root");
            std::fs::create_dir_all(&target).unwrap();
            let reference = fixture.registry.reference("app:fast");
            let path = target.to_str().unwrap().to_owned();
            let arguments = [
                "images",
                "mount",
                "--rw",
                "--snapshotter",
                "uimgacc",
                &reference,
                &path,
            ];
            let started = Instant::now();
            let failed = node.containerd.ctr(&arguments);
            let text = String::from_utf8_lossy(&failed.stderr).into_owned();
            assert!(!failed.status.success(), "{text}");
            assert!(
                started.elapsed() < Duration::from_secs(7),
                "{:?}",
                started.elapsed()
            );
            assert!(text.contains("did not answer"), "{text}");
            answers(&node);
            // Killed and started with the store away: it serves at once.
            let started = Instant::now();
            node.kill_and_restart();
            assert!(
                started.elapsed() < Duration::from_secs(3),
                "{:?}",
                started.elapsed()
            );
            answers(&node);
            let refused = node.containerd.ctr(&arguments);
            let text = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(text.contains("no connection to 127.0.0.1:2049"), "{text}");

            fixture.server.resume();
            let started = Instant::now();
            loop {
                let mounted = node.containerd.ctr(&arguments);
                if mounted.status.success() {
                    break;
                }
                let text = String::from_utf8_lossy(&mounted.stderr).into_owned();
                assert!(
                    started.elapsed() < Duration::from_secs(40),
                    "{text}\n{}",
                    node.log()
                );
                std::thread::sleep(Duration::from_millis(500));
            }
            println!("usable {:?} after the server was back", started.elapsed());
            assert_eq!(
                std::fs::read_to_string(target.join("data/small")).unwrap(),
                "small\n"
            );
            assert_eq!(visible(), Vec::<String>::new());
        },
    );
}
