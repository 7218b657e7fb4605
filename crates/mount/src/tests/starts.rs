//! What is opened and read of a mount, and reading it ahead.

use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use uimgacc_erofs::tree::Bytes;
use uimgacc_profile::{FileReads, Profile, Run, VERSION};
use uimgacc_types::ChainId;

use super::*;

/// Length of the large file in pages.
const PAGES: u32 = 2048;

const SETTINGS: FetchSettings = FetchSettings {
    readers: 8,
    bytes_per_second: None,
    deadline: Duration::from_secs(30),
    is_coarse: false,
};

/// A mount of an image with a large file, a small one, and a link.
struct Image {
    _folder: tempfile::TempDir,
    mount: PathBuf,
    overlay: PathBuf,
    read_ahead: Option<ReadAhead>,
}

impl Drop for Image {
    fn drop(&mut self) {
        unmount(&self.overlay, true).unwrap();
        unmount(&self.mount, true).unwrap();
    }
}

fn file(pages: u32, start_block: u32, size_bytes: u64) -> Inode {
    // One chunk of 2^24 bytes holds all of it.
    assert!(u64::from(pages) * 4096 <= 1 << 24);
    Inode {
        permissions: 0o644,
        kind: Kind::Regular(Contents::Chunks(ChunkedContents {
            size_bytes,
            chunk_log2: 24,
            chunks: vec![Some(ChunkAddress {
                device: 0,
                start_block,
            })],
        })),
        ..Inode::empty_directory()
    }
}

fn image(method: Method) -> Image {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut tree = Tree::new();
    let mut tag = [0; 64];
    tag.copy_from_slice(pack_id(1).hex().as_bytes());
    tree.devices.push(Device {
        tag,
        blocks: PAGES + 3,
    });
    add(&mut tree, "large", file(PAGES, 0, u64::from(PAGES) * 4096));
    add(&mut tree, "small", file(3, PAGES, 9000));
    let target: Bytes = b"large".as_slice().into();
    add(
        &mut tree,
        "link",
        Inode {
            kind: Kind::Symlink(target),
            ..Inode::empty_directory()
        },
    );
    let path = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let index = folder.path().join("index.erofs");
    uimgacc_erofs::write(&tree, &mut fs::File::create(&index).unwrap()).unwrap();
    let pack = folder.path().join("1.pack");
    let bytes = content(1, usize::try_from(PAGES + 3).unwrap() * 4096);
    fs::write(&pack, &bytes).unwrap();
    let mount = path("mnt");
    let mounted = mount_image(&MountRequest {
        index,
        packs: vec![StoreFile::of_this_machine(&pack).unwrap()],
        target: mount.clone(),
        methods: Methods::new([method]),
        read_ahead_kb: Some(16),
    })
    .unwrap();
    let overlay = path("overlay");
    mount_overlay(&OverlayRequest {
        lower: mount.clone(),
        upper: path("upper"),
        work: path("work"),
        target: overlay.clone(),
    })
    .unwrap();
    Image {
        _folder: folder,
        mount,
        overlay,
        read_ahead: mounted.read_ahead,
    }
}

fn reads(path: &str, runs: &[(u32, u32)]) -> FileReads {
    FileReads {
        path: path.to_owned(),
        content: None,
        starts: 1,
        runs: runs.iter().copied().map(Run::from).collect(),
    }
}

fn profile(files: Vec<FileReads>) -> Profile {
    Profile {
        version: VERSION,
        chain_id: ChainId::from_bytes([1; 32]),
        platform: "linux/amd64".to_owned(),
        recorded: String::new(),
        origin: String::new(),
        read_ahead_kb: 16,
        starts: 1,
        files,
    }
}

/// Pages of a file that are in the page cache.
fn cached(path: &Path) -> Vec<u64> {
    let ranges = uimgacc_sys::resident(&fs::File::open(path).unwrap()).unwrap();
    let pages = |range: std::ops::Range<u64>| range.start / 4096..range.end / 4096;
    ranges.into_iter().flat_map(pages).collect()
}

#[test]
fn what_others_open_and_read_is_recorded() {
    for method in Method::ALL {
        let image = image(method);
        let mut opens = Opens::listen(&image.mount).unwrap();
        assert!(!opens.wait(Duration::from_millis(50)).unwrap());
        // This process is not listened to.
        fs::read(image.mount.join("link")).unwrap();
        assert!(!opens.wait(Duration::from_millis(50)).unwrap());
        let image = self::image(method);
        let mut opens = Opens::listen(&image.mount).unwrap();
        let dd = |path: &Path, skip: u32, count: u32| {
            let done = Command::new("dd")
                .arg(format!("if={}", path.display()))
                .args(["of=/dev/null", "bs=4096"])
                .args([format!("skip={skip}"), format!("count={count}")])
                .output()
                .unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        dd(&image.overlay.join("link"), 1000, 1);
        dd(&image.mount.join("small"), 0, 1);
        while opens.len() < 2 {
            assert!(opens.wait(Duration::from_secs(5)).unwrap());
        }
        let files = opens.pages().unwrap();
        assert_eq!(files[0].path, "large", "{method}");
        assert_eq!(files[1].path, "small");
        assert!(
            files[0]
                .runs
                .iter()
                .any(|run| run.first <= 1000 && run.end() > 1000)
        );
        assert!(files[0].len_bytes() <= 128 << 10, "{:?}", files[0]);
    }
}

#[test]
fn what_is_listed_is_read_and_nothing_else() {
    for method in Method::ALL {
        let image = image(method);
        let listed = profile(vec![
            reads("small", &[(0, 3)]),
            reads("large", &[(7, 1), (100, 3), (512, 600)]),
        ]);
        let fetch = Fetch::prepare(&image.mount, &listed, u64::MAX).unwrap();
        assert_eq!(fetch.len_bytes(), 607 * 4096);
        let fetched = fetch.run(&SETTINGS, &Lead::default(), &AtomicBool::new(false));
        assert!(fetched.is_whole && fetched.failed == 0, "{fetched:?}");
        // The small file ends in its last page.
        assert_eq!(fetched.bytes, 604 * 4096 + 9000);
        let wanted: Vec<u64> = [7, 100, 101, 102].into_iter().chain(512..1112).collect();
        assert_eq!(cached(&image.mount.join("large")), wanted, "{method}");
        assert_eq!(cached(&image.overlay.join("small")), [0, 1, 2], "{method}");
    }
}

#[test]
fn what_cannot_be_read_is_passed_over() {
    let image = image(Method::File);
    let listed = profile(vec![
        reads("gone", &[(0, 1)]),
        reads("link", &[(0, 1)]),
        reads("large/below", &[(0, 1)]),
        reads("large", &[(3, 1), (PAGES + 9, 700)]),
    ]);
    let fetch = Fetch::prepare(&image.mount, &listed, u64::MAX).unwrap();
    let fetched = fetch.run(&SETTINGS, &Lead::default(), &AtomicBool::new(false));
    assert!(fetched.is_whole, "{fetched:?}");
    assert_eq!((fetched.failed, fetched.bytes), (3, 4096));
}

#[test]
fn the_list_goes_no_further_than_it_may() {
    let image = image(Method::File);
    let listed = profile(vec![
        reads("small", &[(0, 3)]),
        reads("large", &[(7, 1), (100, 3)]),
    ]);
    let fetch = Fetch::prepare(&image.mount, &listed, u64::MAX).unwrap();
    let expected = [("small", 3 * 4096), ("large", 4 * 4096)];
    assert_eq!(
        fetch.files(),
        expected.map(|(path, bytes)| (path.to_owned(), bytes))
    );
    let lead = Lead::default();
    lead.set(Some(3 * 4096 + 1));
    let fetched = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| fetch.run(&SETTINGS, &lead, &AtomicBool::new(false)));
        let wait = |cached_pages: usize| {
            let began = std::time::Instant::now();
            let large = image.mount.join("large");
            while cached(&large).len() < cached_pages || !lead.is_waited_for() {
                assert!(began.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(10));
            }
            cached(&large)
        };
        assert_eq!(wait(1), [7]);
        lead.end();
        fetching.join().unwrap()
    });
    assert!(!fetched.is_whole, "{fetched:?}");
    assert_eq!(cached(&image.mount.join("small")), [0, 1, 2]);
    assert_eq!(cached(&image.mount.join("large")), [7]);
}

#[test]
fn its_bounds_are_kept() {
    let image = image(Method::File);
    let listed = profile(vec![reads("large", &[(0, PAGES)])]);
    let run = |max_bytes, settings: FetchSettings, stop| {
        let fetch = Fetch::prepare(&image.mount, &listed, max_bytes).unwrap();
        fetch.run(&settings, &Lead::default(), &AtomicBool::new(stop))
    };
    let stopped = run(u64::MAX, SETTINGS, true);
    assert!(!stopped.is_whole && stopped.bytes == 0, "{stopped:?}");
    let short = run(10 * 4096, SETTINGS, false);
    assert!(short.is_whole && short.bytes == 10 * 4096, "{short:?}");
    let slow = FetchSettings {
        bytes_per_second: Some(4 << 20),
        deadline: Duration::from_secs(1),
        ..SETTINGS
    };
    let slow = run(u64::MAX, slow, false);
    assert!(!slow.is_whole, "{slow:?}");
    assert!(slow.took < Duration::from_secs(3), "{slow:?}");
    assert!(slow.bytes <= 6 << 20, "{slow:?}");
    // Nothing of it holds the mount any more.
    unmount(&image.overlay, false).unwrap();
    unmount(&image.mount, false).unwrap();
}

#[test]
fn read_ahead_is_found_and_changed() {
    for method in Method::ALL {
        // Where another process mounts at the same moment it is not known; so several tries.
        let found = (0..20).find_map(|_| {
            let image = image(method);
            image.read_ahead.clone().map(|found| (image, found))
        });
        let (image, found) = found.unwrap();
        assert_eq!(found.get().unwrap(), 16, "{method}");
        found.set(512).unwrap();
        assert_eq!(found.get().unwrap(), 512);
        let text = serde_json::to_string(&found).unwrap();
        let read_back: ReadAhead = serde_json::from_str(&text).unwrap();
        assert_eq!(read_back, found);
        drop(image);
        for hostile in ["\"../../block/vda/queue\"", "\"\"", "\"a/b\""] {
            let hostile: ReadAhead = serde_json::from_str(hostile).unwrap();
            assert!(hostile.set(1).is_err());
        }
    }
}
