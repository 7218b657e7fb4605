//! Who stands still at any step and is taken for dead meanwhile changes nothing when it goes on.
//!
//! A session, a gc and deletes are each stopped before every single change to the store, with the
//! directories of that change already open; others then clear them away and do their own work; then
//! they go on.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use uimgacc_store::{
    DeleteError, Lease, Observer, Session, StoreReader, SweepOptions, delete, init, sweep,
    write_lease,
};
use uimgacc_testkit::Need;
use uimgacc_testkit::nfs_server::{self, NfsServer};
use uimgacc_testkit::uml::{self, Kernel};
use uimgacc_types::chain_ids;

use crate::support::{add_image, add_layers, age, assert_clean, diff_id, new_store, try_convert};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const LAYERS: [&[u8]; 2] = [&[1; 9000], &[2; 9000]];
const IMAGE: &str = "example.com/a:1";

/// Stops whoever has it before the change number `step` until it is let go.
fn stop_at(step: usize, events: Sender<(&'static str, PathBuf)>, go: Receiver<()>) -> Observer {
    let (count, go) = (AtomicUsize::new(0), Mutex::new(go));
    Arc::new(move |change, path: &Path| {
        if count.fetch_add(1, Ordering::SeqCst) == step {
            events.send((change, path.to_owned())).unwrap();
            go.lock().unwrap().recv().unwrap();
        }
    })
}

/// A store, as who stands still sees it, as others do, and as it is on the server's disk: three times
/// the same where it is on a local disk.
struct Views {
    own: StoreReader,
    others: StoreReader,
    disk: StoreReader,
    _folder: TempDir,
}

/// Where new stores are made, as these three see it.
#[derive(Clone, Copy)]
struct Place<'a> {
    own: &'a Path,
    others: &'a Path,
    disk: &'a Path,
}

impl Place<'_> {
    fn new_store(self) -> Views {
        let folder = TempDir::new_in(self.disk).unwrap();
        let name = Path::new(folder.path().file_name().unwrap()).join("store");
        let (own, is_new) = init(&self.own.join(&name)).unwrap();
        assert!(is_new);
        Views {
            own,
            others: StoreReader::open(self.others.join(&name)).unwrap(),
            disk: StoreReader::open(self.disk.join(&name)).unwrap(),
            _folder: folder,
        }
    }
}

/// Every file outside of `tmp/` and `leases/`, with its inode and content.
fn files(store: &StoreReader) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = BTreeMap::new();
    let root = store.layout().root();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap();
            if name == Path::new("tmp") || name == Path::new("leases") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let inode = path.metadata().unwrap().ino();
                let content = std::fs::read(&path).unwrap();
                found.insert(path, (inode, content));
            }
        }
    }
    found
}

/// The directory of whoever stands still, made to look as if another machine had left it long ago.
fn looks_dead(store: &StoreReader, known: &[PathBuf]) -> Option<PathBuf> {
    let dir = intents(store)
        .into_iter()
        .find(|dir| !known.contains(dir))?;
    let path = dir.join("intent.json");
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    if let Ok(text) = std::fs::read(&path) {
        // A partly written one is no record: it is as good as none.
        let mut record: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        if record.is_object() {
            record["host"] = "elsewhere".into();
            record["boot_id"] = "another".into();
        }
        // A file of its own: the living thread of the other must not renew it.
        let new = dir.with_extension("new");
        std::fs::write(&new, record.to_string()).unwrap();
        let file = std::fs::File::options().append(true).open(&new).unwrap();
        file.set_modified(long_ago).unwrap();
        std::fs::rename(new, path).unwrap();
    }
    let file = std::fs::File::open(&dir).unwrap();
    file.set_modified(long_ago).unwrap();
    Some(dir)
}

fn intents(store: &StoreReader) -> Vec<PathBuf> {
    let is_intent = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        ["create-", "gc-", "new-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let entries = std::fs::read_dir(store.layout().tmp().on_host()).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(is_intent)
        .collect()
}

/// One who stands still, and what goes on meanwhile.
struct Case<B, W, M, O> {
    /// Prepares a store; what it gives is kept until the end.
    begin: B,
    /// Stands still at one of its changes.
    work: W,
    /// Called before each change of `work`.
    meanwhile: M,
    /// What others do once they took it for dead.
    others: O,
}

impl<G, B, W, M, O> Case<B, W, M, O>
where
    B: Fn(&StoreReader) -> G + Sync,
    W: Fn(&StoreReader) -> Outcome + Sync,
    M: Fn(&StoreReader, &'static str, &Path) + Send + Sync + Copy + 'static,
    O: Fn(&StoreReader) + Sync,
{
    fn stops_everywhere(&self) {
        let local = &std::env::temp_dir();
        self.stops_everywhere_in(Place {
            own: local,
            others: local,
            disk: local,
        });
    }

    fn stops_everywhere_in(&self, place: Place<'_>) {
        let steps = self.steps(place);
        assert!(steps > 5);
        let (next, fenced) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let step = next.fetch_add(1, Ordering::SeqCst)
                        && step < steps
                    {
                        fenced.fetch_add(usize::from(self.stops_at(step, place)), Ordering::SeqCst);
                    }
                });
            }
        });
        let fenced = fenced.into_inner();
        assert!(fenced > 5, "only {fenced} of {steps} were fenced");
    }

    /// How many changes the work makes when nothing stops it.
    fn steps(&self, place: Place<'_>) -> usize {
        let views = place.new_store();
        let store = &views.own;
        let _kept = (self.begin)(store);
        let steps = Arc::new(AtomicUsize::new(0));
        let (counted, meanwhile, plain) = (steps.clone(), self.meanwhile, store.clone());
        let observed = store
            .clone()
            .observed_by(Arc::new(move |change, path: &Path| {
                meanwhile(&plain, change, path);
                counted.fetch_add(1, Ordering::SeqCst);
            }));
        (self.work)(&observed).unwrap();
        assert_clean(&views.disk);
        steps.load(Ordering::SeqCst)
    }

    /// Whether it was kept from doing anything more.
    fn stops_at(&self, step: usize, place: Place<'_>) -> bool {
        let views = place.new_store();
        let Views {
            own, others, disk, ..
        } = &views;
        let _kept = (self.begin)(own);
        let known = intents(disk);
        let (events, stops) = mpsc::channel();
        let (go, going) = mpsc::channel();
        let stop = stop_at(step, events, going);
        let (meanwhile, plain) = (self.meanwhile, own.clone());
        let observed = own
            .clone()
            .observed_by(Arc::new(move |change, path: &Path| {
                meanwhile(&plain, change, path);
                stop(change, path);
            }));
        std::thread::scope(|scope| {
            let working = scope.spawn(|| (self.work)(&observed));
            let (change, path) = stops.recv_timeout(Duration::from_secs(60)).unwrap();
            let at = format!("step {step}: {change} {}", path.display());
            let dir = looks_dead(disk, &known);
            (self.others)(others);
            let before = files(disk);
            go.send(()).unwrap();
            let outcome = working.join().unwrap();
            assert_clean(disk);
            let Some(dir) = dir else {
                // It had not yet said that it lives, or was over.
                assert!(outcome.is_ok(), "{at}: {outcome:?}");
                return false;
            };
            assert!(files(disk) == before, "{at}: the store has changed");
            assert!(!dir.exists(), "{at}: {} stands", dir.display());
            match outcome {
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("was cleared away"), "{at}: {error:?}");
                    true
                }
                // What it had come for was done: it was about to clean up.
                Ok(()) => {
                    let dir = dir.strip_prefix(disk.layout().root()).unwrap();
                    let dir = own.layout().root().join(dir);
                    assert!(path.starts_with(dir) && change != "create", "{at}");
                    false
                }
            }
        })
    }
}

fn nothing(_: &StoreReader, _: &'static str, _: &Path) {}

/// A whole create, delete and gc of others, of the same contents.
fn work_of_others(store: &StoreReader) {
    add_image(store, "example.com/others:1", &[LAYERS[1], &[3; 9000]]);
    add_image(store, "example.com/others:2", &LAYERS);
    delete(store, "example.com/others:1", false).unwrap();
    let swept = sweep(store, &SweepOptions::default()).unwrap();
    assert_eq!(swept.waiting_for, Vec::<String>::new());
}

type Of<T> = fn(&StoreReader) -> T;
type Meanwhile = fn(&StoreReader, &'static str, &Path);

fn session() -> Case<Of<()>, Of<Outcome>, Meanwhile, Of<()>> {
    Case {
        begin: |_| (),
        work: |store| {
            let session = Session::begin(store.clone())?;
            let record = try_convert(&session, IMAGE, &LAYERS)?;
            Ok(session.publish_image(&record)?)
        },
        meanwhile: nothing,
        others: |store| {
            sweep(store, &SweepOptions::default()).unwrap();
            work_of_others(store);
            // Also what these made is gone again: all that the session ever found.
            delete(store, "example.com/others:2", false).unwrap();
            sweep(store, &SweepOptions::default()).unwrap();
        },
    }
}

fn gc() -> Case<Of<()>, Of<Outcome>, Meanwhile, Of<()>> {
    Case {
        begin: |store| {
            add_image(store, "example.com/kept:1", &[LAYERS[0]]);
            // Chains to retire, and files that nothing names.
            let image = add_image(store, IMAGE, &LAYERS);
            let layout = store.layout();
            std::fs::remove_file(layout.image(&image.target).on_host()).unwrap();
            let loose = layout.tmp().join("record-0").on_host();
            std::fs::write(&loose, "x").unwrap();
            age(&loose, Duration::from_secs(7200));
        },
        work: |store| {
            sweep(store, &SweepOptions::default())?;
            Ok(())
        },
        meanwhile: nothing,
        others: work_of_others,
    }
}

/// Half of what it finds in a pack is dead.
fn freeing() -> Case<Of<()>, Of<Outcome>, Meanwhile, Of<()>> {
    Case {
        begin: |store| {
            let image = add_layers(store, IMAGE, &[vec![&LAYERS[0], &LAYERS[1]]]);
            add_image(store, "example.com/kept:1", &[LAYERS[0]]);
            std::fs::remove_file(store.layout().image(&image.target).on_host()).unwrap();
        },
        ..gc()
    }
}

#[test]
fn a_gc_that_gives_back_space_and_stood_still() {
    freeing().stops_everywhere();
}

#[test]
fn a_session_that_stood_still() {
    session().stops_everywhere();
}

#[test]
fn a_gc_that_stood_still() {
    gc().stops_everywhere();
}

/// The two on different mounts know nothing of each other's changes but what the server tells them.
fn on_nfs(name: &str, run: impl Fn(Place<'_>)) {
    if !uimgacc_testkit::ready(&[Need::Root, Need::Parts, Need::Uml]) {
        return;
    }
    uml::inside(Kernel::V7_2, name, Duration::from_secs(300), || {
        let server = NfsServer::start();
        for version in ["3", "4.2"] {
            let [own, others] =
                ["own", "others"].map(|who| Path::new("/tmp").join(format!("{who}-{version}")));
            server.mount(version, &own);
            server.mount(version, &others);
            run(Place {
                own: &own,
                others: &others,
                disk: Path::new(nfs_server::EXPORT),
            });
        }
    });
}

#[test]
fn a_session_that_stood_still_on_nfs() {
    on_nfs("fencing::a_session_that_stood_still_on_nfs", |place| {
        session().stops_everywhere_in(place);
    });
}

#[test]
fn a_gc_that_stood_still_on_nfs() {
    on_nfs("fencing::a_gc_that_stood_still_on_nfs", |place| {
        gc().stops_everywhere_in(place);
    });
}

/// One that comes after the image is gone has nothing to do.
fn deleted(store: &StoreReader, force: bool) -> Outcome {
    match delete(store, IMAGE, force) {
        Ok(_) | Err(DeleteError::NoImage(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn the_image(store: &StoreReader) {
    add_image(store, IMAGE, &LAYERS);
}

fn image_again(store: &StoreReader) {
    work_of_others(store);
    the_image(store);
}

#[test]
fn a_delete_that_stood_still() {
    for force in [false, true] {
        let case = Case {
            begin: the_image,
            work: |store: &StoreReader| deleted(store, force),
            meanwhile: nothing,
            others: image_again,
        };
        case.stops_everywhere();
    }
}

#[test]
fn a_delete_beside_a_session_that_stood_still() {
    let case = Case {
        begin: |store: &StoreReader| {
            the_image(store);
            Session::begin(store.clone()).unwrap()
        },
        work: |store: &StoreReader| deleted(store, false),
        meanwhile: nothing,
        others: |store: &StoreReader| {
            add_image(store, "example.com/others:2", &LAYERS);
            the_image(store);
        },
    };
    case.stops_everywhere();
}

#[test]
fn a_delete_that_puts_everything_back_and_stood_still() {
    let case = Case {
        begin: the_image,
        work: |store: &StoreReader| match delete(store, IMAGE, false) {
            Err(DeleteError::InUse { .. }) => Ok(()),
            Ok(_) => Err("the lease was passed over".into()),
            Err(error) => Err(error.into()),
        },
        // A node takes a lease just before the record goes.
        meanwhile: |store: &StoreReader, change: &'static str, path: &Path| {
            if change == "rename" && path.starts_with(store.layout().root().join("images")) {
                let chain = chain_ids(&LAYERS.map(diff_id))[1];
                let lease = Lease::of_this_machine("node one".to_owned(), vec![chain]);
                write_lease(store.layout(), "one", &lease).unwrap();
            }
        },
        others: |store: &StoreReader| {
            image_again(store);
            // The chain is the image's alone again.
            delete(store, "example.com/others:2", false).unwrap();
        },
    };
    case.stops_everywhere();
    let (_folder, store) = new_store();
    (case.begin)(&store);
    let (plain, meanwhile) = (store.clone(), case.meanwhile);
    let observed = store
        .clone()
        .observed_by(Arc::new(move |change, path: &Path| {
            meanwhile(&plain, change, path);
        }));
    (case.work)(&observed).unwrap();
    assert!(store.image(IMAGE).unwrap().is_some());
    assert_clean(&store);
}
