//! Who writes to the export puts links and pipes where files were: no node follows or waits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use uimgacc_testkit::process::run;
use uimgacc_testkit::uml::Kernel;

use crate::support::{NfsFixture, Node, inside, source};

fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let found = run(Command::new("find")
        .arg(folder)
        .args(["-name", &format!("*.{suffix}")]));
    let found = String::from_utf8(found.stdout).unwrap();
    found.lines().map(PathBuf::from).collect()
}

#[test]
fn links_and_pipes_on_the_export_are_refused() {
    inside(
        Kernel::V7_2,
        "links::links_and_pipes_on_the_export_are_refused",
        || {
            let fixture = NfsFixture::new();
            let store = Path::new("/tmp/store");
            fs::write("/tmp/secret", [b's'; 4096]).unwrap();
            for (number, version) in ["3", "4.2"].into_iter().enumerate() {
                // A server's file is what it was; here it only changes its name and comes back.
                fixture.server.mount(version, store);
                let packs = files(&store.join("packs"), "pack");
                assert!(!packs.is_empty());
                let aside = |path: &Path| path.with_extension("aside");
                let bad = |pack: &Path, is_pipe: bool| {
                    if is_pipe {
                        run(Command::new("mkfifo").arg(pack));
                    } else {
                        std::os::unix::fs::symlink("/tmp/secret", pack).unwrap();
                    }
                };
                for is_pipe in [false, true] {
                    for pack in &packs {
                        fs::rename(pack, aside(pack)).unwrap();
                        bad(pack, is_pipe);
                    }
                    let name = format!("node-{number}-{is_pipe}");
                    let node = Node::start(&name, &source("127.0.0.1", version));
                    let started = Instant::now();
                    let pulled = node.pull(&fixture, "app:fast");
                    assert!(pulled.status.success(), "{pulled:?}\n{}", node.log());
                    assert!(started.elapsed() < Duration::from_secs(30));
                    assert!(node.files_unpacked() > 0, "{}", node.log());
                    let what = if is_pipe {
                        "named pipe"
                    } else {
                        "symbolic link"
                    };
                    assert!(node.log().contains(what), "{}", node.log());
                    for pack in &packs {
                        fs::remove_file(pack).unwrap();
                        fs::rename(aside(pack), pack).unwrap();
                    }
                }
                run(Command::new("umount").arg(store));
                // Honest again: taken from the store.
                let node = Node::start(&format!("good-{number}"), &source("127.0.0.1", version));
                let pulled = node.pull(&fixture, "app:fast");
                assert!(pulled.status.success(), "{pulled:?}\n{}", node.log());
                assert_eq!(node.files_unpacked(), 0, "{}", node.log());
                let root = node.mount(&fixture, "app:fast");
                let text = fs::read_to_string(root.join("data/small")).unwrap();
                assert_eq!(text, "small\n");
            }
        },
    );
}
