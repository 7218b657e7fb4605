//! What stands in place of files of the store, and what comes of it.

use std::io::Read as _;
use std::os::unix::fs::symlink;

use rustix::fs::{FileType, Mode, mknodat};

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    root: Arc<Path>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("store/packs/aa")).unwrap();
        std::fs::create_dir_all(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        let root = dir.path().join("store").into();
        Self { dir, root }
    }

    fn at(&self, relative: &str) -> StorePath {
        StorePath::new(self.root.clone(), relative)
    }

    fn outside(&self, relative: &str) -> PathBuf {
        self.dir.path().join("outside").join(relative)
    }
}

fn refused<T: fmt::Debug>(result: io::Result<T>, what: &str) {
    let error = result.unwrap_err();
    assert!(is_foreign(&error), "{error}");
    assert!(error.to_string().contains(what), "{error}");
}

#[test]
fn a_link_is_refused_wherever_it_stands() {
    let fixture = Fixture::new();
    symlink(
        fixture.outside("secret"),
        fixture.at("packs/aa/x").on_host(),
    )
    .unwrap();
    symlink(fixture.outside(""), fixture.at("packs/bb").on_host()).unwrap();
    // Also one that stays inside, and one that leads nowhere.
    symlink("aa", fixture.at("packs/cc").on_host()).unwrap();
    symlink("nowhere", fixture.at("packs/dd").on_host()).unwrap();
    std::fs::write(fixture.at("packs/aa/y").on_host(), "y").unwrap();
    assert_eq!(fixture.at("packs/aa/y").read(9).unwrap(), b"y");
    for path in ["packs/aa/x", "packs/bb/secret", "packs/cc/y", "packs/dd"] {
        refused(fixture.at(path).open(), "symbolic link");
        refused(fixture.at(path).handle(), "symbolic link");
        assert!(fixture.at(path).exists().unwrap(), "{path}");
    }
    for path in ["packs/bb", "packs/cc", "packs/dd"] {
        refused(fixture.at(path).list(), "symbolic link");
        refused(fixture.at(path).sync_directory(), "symbolic link");
        refused(fixture.at(path).join("new").create_new(), "symbolic link");
        refused(
            fixture.at(path).join("new").create_directory(),
            "symbolic link",
        );
        refused(
            fixture.at(path).join("secret").remove_file(),
            "symbolic link",
        );
        refused(
            fixture.at(path).join("secret").remove_tree(),
            "symbolic link",
        );
        let from = fixture.at("packs/aa/y");
        refused(from.rename(&fixture.at(path).join("new")), "symbolic link");
        refused(
            from.hard_link(&fixture.at(path).join("new")),
            "symbolic link",
        );
    }
    assert!(fixture.at("packs/aa/x").create_new().is_err());
    assert_eq!(std::fs::read(fixture.outside("secret")).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(fixture.outside("")).unwrap().count(), 1);
}

#[test]
fn links_are_removed_and_not_followed() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.at("tmp").on_host()).unwrap();
    symlink(fixture.outside(""), fixture.at("tmp/all").on_host()).unwrap();
    symlink(fixture.outside("secret"), fixture.at("tmp/one").on_host()).unwrap();
    fixture.at("tmp/one").remove_file().unwrap();
    fixture.at("tmp").remove_tree().unwrap();
    assert!(fixture.outside("secret").exists() && !fixture.at("tmp").exists().unwrap());
}

#[test]
fn nothing_leads_out_of_the_root() {
    let fixture = Fixture::new();
    let root: &Path = &fixture.root;
    assert!(root.join("../outside/secret").exists());
    for path in [
        "../outside/secret",
        "packs/../../outside/secret",
        "/etc/passwd",
    ] {
        assert!(fixture.at(path).open().is_err(), "{path}");
        assert!(fixture.at(path).facts().is_err(), "{path}");
    }
}

#[test]
fn pipes_sockets_devices_and_directories_are_no_files() {
    let fixture = Fixture::new();
    let make = |name: &str, kind, device| {
        let path = fixture.at("packs/aa").join(name);
        mknodat(
            CWD,
            path.on_host(),
            kind,
            Mode::from_raw_mode(0o600),
            device,
        )
        .unwrap();
        path
    };
    let null = rustix::fs::makedev(1, 3);
    let fifo = make("fifo", FileType::Fifo, 0);
    let device = make("device", FileType::CharacterDevice, null);
    let socket = make("socket", FileType::Socket, 0);
    // None of these waits for anybody.
    refused(fifo.open(), "named pipe");
    refused(fifo.read(9), "named pipe");
    refused(device.open(), "device");
    refused(socket.open(), "socket");
    refused(fixture.at("packs").open(), "directory");
    assert!(!fifo.facts().unwrap().is_file);
    assert!(fixture.at("packs").facts().unwrap().is_directory);
}

#[test]
fn the_root_itself_may_be_reached_by_links_and_descriptors() {
    let fixture = Fixture::new();
    std::fs::write(fixture.at("packs/aa/y").on_host(), "y").unwrap();
    let link = fixture.dir.path().join("link");
    symlink(&fixture.root, &link).unwrap();
    let fd = rustix::fs::open(&*fixture.root, OFlags::PATH, Mode::empty()).unwrap();
    for root in [link, in_proc(&fd)] {
        let path = StorePath::new(Arc::<Path>::from(root), "packs/aa/y");
        assert_eq!(path.read(1).unwrap(), b"y");
        assert_eq!(path.parent().unwrap().list().unwrap(), vec![path]);
    }
}

#[test]
fn a_handle_leads_to_the_file_that_was_found() {
    let fixture = Fixture::new();
    let path = fixture.at("packs/aa/y");
    std::fs::write(path.on_host(), "first").unwrap();
    let handle = path.handle().unwrap();
    std::fs::remove_file(path.on_host()).unwrap();
    symlink(fixture.outside("secret"), path.on_host()).unwrap();
    let mut text = String::new();
    handle.open().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), handle.len_bytes()), ("first", 5));
    assert_eq!(std::fs::read_to_string(handle.as_path()).unwrap(), "first");
}

#[test]
fn what_is_longer_than_asked_for_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.at("packs/aa/y");
    std::fs::write(path.on_host(), "12345").unwrap();
    assert_eq!(path.read(5).unwrap().len(), 5);
    let error = path.read(4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}
