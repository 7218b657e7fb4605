//! Real mounts, as root, on this machine's kernel.

mod starts;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use uimgacc_erofs::tree::{
    ChunkAddress, ChunkedContents, Contents, Device, DeviceNumber, Inode, Kind, Tree,
};
use uimgacc_types::PackId;

use super::*;

/// Whether this kernel can mount EROFS by that method; says so and fails under `UIMGACC_CI=1`.
fn supported(result: &Result<Mounted, MountError>, method: Method) -> bool {
    let Err(error) = result else { return true };
    eprintln!("SKIPPED: method {method} does not work on this kernel: {error}");
    assert!(
        std::env::var_os("UIMGACC_CI").is_none(),
        "skipped a method under UIMGACC_CI"
    );
    false
}

pub(crate) fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from((n / 7 + usize::from(seed)) % 253).unwrap())
        .collect()
}

pub(crate) fn pack_id(seed: u8) -> PackId {
    PackId::from_bytes([seed; 32])
}

fn add(tree: &mut Tree, name: &str, inode: Inode) {
    let id = tree.add(inode).unwrap();
    tree.inode_mut(Tree::ROOT)
        .entries_mut()
        .unwrap()
        .insert(name.as_bytes().into(), id);
}

/// A tree of some files over `packs` packs, each of which holds one content of 3 blocks.
pub(crate) fn sample_tree(packs: u8) -> Tree {
    let mut tree = Tree::new();
    for pack in 0..packs {
        let mut tag = [0; 64];
        tag.copy_from_slice(pack_id(pack).hex().as_bytes());
        tree.devices.push(Device { tag, blocks: 3 });
        add(
            &mut tree,
            &format!("file{pack}"),
            Inode {
                permissions: 0o4755,
                uid: 7,
                gid: 8,
                kind: Kind::Regular(Contents::Chunks(ChunkedContents {
                    size_bytes: 9000,
                    chunk_log2: 14,
                    chunks: vec![Some(ChunkAddress {
                        device: u16::from(pack),
                        start_block: 0,
                    })],
                })),
                ..Inode::empty_directory()
            },
        );
    }
    add(
        &mut tree,
        "null",
        Inode {
            permissions: 0o666,
            kind: Kind::CharacterDevice(DeviceNumber { major: 1, minor: 3 }),
            ..Inode::empty_directory()
        },
    );
    tree
}

/// Writes the sample's index and packs into `folder`.
fn sample(folder: &Path, packs: u8) -> (PathBuf, Vec<StoreFile>) {
    let index = folder.join("index.erofs");
    let mut file = fs::File::create(&index).unwrap();
    uimgacc_erofs::write(&sample_tree(packs), &mut file).unwrap();
    let paths = (0..packs).map(|pack| {
        let path = folder.join(format!("{pack}.pack"));
        let mut bytes = content(pack, 9000);
        bytes.resize(3 * 4096, 0);
        fs::write(&path, bytes).unwrap();
        StoreFile::of_this_machine(&path).unwrap()
    });
    (index, paths.collect())
}

fn request(folder: &Path, packs: u8, methods: Methods) -> MountRequest {
    let (index, packs) = sample(folder, packs);
    let target = folder.join("mnt");
    fs::create_dir(&target).unwrap();
    MountRequest {
        index,
        packs,
        target,
        methods,
        read_ahead_kb: Some(64),
    }
}

fn read_ahead_of(target: &Path) -> Option<String> {
    let device = fs::metadata(target).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb")).ok()
}

#[test]
fn each_method_shows_the_image() {
    for method in Method::ALL {
        let folder = tempfile::tempdir().unwrap();
        let request = request(folder.path(), 3, Methods::new([method]));
        assert!(!is_mounted(&request.target).unwrap());
        let mounted = mount_image(&request);
        if !supported(&mounted, method) {
            continue;
        }
        assert_eq!(mounted.unwrap().method, method);
        assert!(is_mounted(&request.target).unwrap());
        for pack in 0..3u8 {
            let path = request.target.join(format!("file{pack}"));
            assert_eq!(fs::read(&path).unwrap(), content(pack, 9000), "{method}");
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (7, 8));
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o4755);
        }
        let null = request.target.join("null");
        assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
        assert!(fs::write(request.target.join("new"), "x").is_err());
        let options = rustix::fs::statvfs(&request.target).unwrap().f_flag;
        let careful = rustix::fs::StatVfsMountFlags::NOSUID | rustix::fs::StatVfsMountFlags::NODEV;
        assert!(options.contains(careful));
        assert!(fs::write(&null, "x").is_err());
        works_as_an_image(folder.path(), &request.target);
        if method == Method::Loop {
            assert_eq!(read_ahead_of(&request.target).as_deref(), Some("64\n"));
        }
        unmount(&request.target, false).unwrap();
        assert!(!is_mounted(&request.target).unwrap());
        unmount(&request.target, false).unwrap();
    }
}

/// What lies on the mount goes by flags of its own: set-user-id programs and devices work there.
fn works_as_an_image(folder: &Path, image: &Path) {
    let [upper, work, overlay, bind] = ["upper", "work", "overlay", "bind"].map(|name| {
        let path = folder.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    });
    let request = OverlayRequest {
        lower: image.to_owned(),
        upper,
        work,
        target: overlay.clone(),
    };
    mount_overlay(&request).unwrap();
    bind_read_only(image, &bind).unwrap();
    for target in [overlay, bind] {
        fs::write(target.join("null"), "devices work").unwrap();
        let options = rustix::fs::statvfs(&target).unwrap().f_flag;
        assert!(!options.contains(rustix::fs::StatVfsMountFlags::NOSUID));
        unmount(&target, false).unwrap();
    }
}

#[test]
fn paths_longer_than_the_kernels_strings() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    let request = request(&deep, 2, Methods::default());
    mount_image(&request).unwrap();
    assert_eq!(
        fs::read(request.target.join("file1")).unwrap(),
        content(1, 9000)
    );
    let (upper, work) = (deep.join("up:per"), deep.join("work"));
    let target = deep.join("merged");
    for path in [&upper, &work, &target] {
        fs::create_dir(path).unwrap();
    }
    mount_overlay(&OverlayRequest {
        lower: request.target.clone(),
        upper: upper.clone(),
        work,
        target: target.clone(),
    })
    .unwrap();
    fs::write(target.join("file0"), "changed").unwrap();
    assert_eq!(fs::read(upper.join("file0")).unwrap(), b"changed");
    // The overlay keeps the image alive, so its mount can go first.
    unmount(&request.target, false).unwrap();
    assert_eq!(fs::read(target.join("file1")).unwrap(), content(1, 9000));
    unmount(&target, false).unwrap();
}

#[test]
fn a_refusal_carries_what_the_kernel_said_of_each_method() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = request(folder.path(), 2, Methods::default());
    request.packs.pop();
    let text = mount_image(&request).unwrap_err().to_string();
    for method in Method::ALL {
        assert!(text.contains(method.name()), "{text}");
    }
    assert!(!is_mounted(&request.target).unwrap());
    request.methods = Methods::new([]);
    let text = mount_image(&request).unwrap_err().to_string();
    assert!(text.contains("no method is allowed"), "{text}");
}

#[test]
fn a_busy_mount_goes_only_when_detached() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path(), 1, Methods::default());
    mount_image(&request).unwrap();
    let open = fs::File::open(request.target.join("file0")).unwrap();
    assert!(unmount(&request.target, false).is_err());
    assert!(is_mounted(&request.target).unwrap());
    unmount(&request.target, true).unwrap();
    assert!(!is_mounted(&request.target).unwrap());
    drop(open);
}

#[test]
fn a_bind_is_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("a"), folder.path().join("b"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(source.join("f"), "x").unwrap();
    bind_read_only(&source, &target).unwrap();
    assert_eq!(fs::read(target.join("f")).unwrap(), b"x");
    assert!(fs::write(target.join("f"), "y").is_err());
    fs::write(source.join("f"), "z").unwrap();
    unmount(&target, false).unwrap();
}

#[test]
fn lists_of_methods_read_back() {
    let methods: Methods = "loop,file".parse().unwrap();
    assert_eq!(methods, Methods::new([Method::Loop, Method::File]));
    assert_eq!(methods.to_string(), "loop,file");
    assert_eq!(
        methods.starting_with(Some(Method::File)),
        [Method::File, Method::Loop]
    );
    assert_eq!(
        methods.starting_with(Some(Method::FileDirectio)),
        [Method::Loop, Method::File]
    );
    for bad in ["", "loop,", "fuse"] {
        assert!(bad.parse::<Methods>().is_err(), "{bad}");
    }
}
