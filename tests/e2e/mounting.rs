//! `mount` and `umount`, by what the kernel has mounted.

use std::fs;
use std::path::Path;

use uimgacc_testkit::image::busybox;

use crate::support::{StoreFixture, failed, mounts_below, ok, ready, text, uimgacc};

#[test]
fn a_second_mount_on_the_same_folder_leaves_the_changes_alone() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    busybox().push(&fixture.registry, "app:1");
    ok(&fixture.create("app:1", "app:fast", &[]));
    let (target, state) = (fixture.path("dir"), text(&fixture.path("state")));
    let image = fixture.registry.reference("app:fast");
    let store = fixture.store();
    let mount = |more: &[&str]| {
        let target = text(&target);
        let fixed = [
            "mount", &image, &target, "--store", &store, "--state", &state,
        ];
        uimgacc(&[&fixed, more].concat())
    };
    ok(&mount(&["--read-write"]));
    fs::write(target.join("work"), "of days").unwrap();
    let mounted = mounts_below(&fixture.path(""));
    assert_eq!(mounted.len(), 2, "the image and the overlay: {mounted:?}");

    for more in [&["--read-write"][..], &[]] {
        let message = failed(&mount(more), 1);
        assert!(message.contains("is a mount already"), "{message}");
        assert_eq!(mounts_below(&fixture.path("")), mounted);
        let kept = fs::read_to_string(target.join("work")).unwrap();
        assert_eq!(kept, "of days");
    }
    let leases = || {
        fs::read_dir(Path::new(&store).join("leases"))
            .unwrap()
            .count()
    };
    assert_eq!(leases(), 1);

    // In use: nothing is taken away, and it says so.
    let open = fs::File::open(target.join("work")).unwrap();
    let umount = || uimgacc(&["umount", &text(&target), "--state", &state]);
    let message = failed(&umount(), 1);
    assert!(message.contains("cannot unmount"), "{message}");
    assert_eq!(mounts_below(&fixture.path("")), mounted);
    assert_eq!(leases(), 1);
    drop(open);

    // Something that somebody else mounted over it goes first, then ours.
    uimgacc_mount::bind_read_only(&fixture.path("store"), &target).unwrap();
    ok(&umount());
    assert_eq!(mounts_below(&fixture.path("")), Vec::<String>::new());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    assert_eq!(leases(), 0);
}
