//! What a package goes through: installed, set up, upgraded, removed, purged.

use crate::node::{FIRST, Node, SECOND};

const SERVICE: &str = "uimgacc-snapshotter.service";
const API: &str = "uimgacc-api.service";
const SOCKET: &str = "uimgacc-snapshotter.socket";

#[test]
fn a_life_on_bookworm() {
    life("bookworm");
}

#[test]
fn a_life_on_trixie() {
    life("trixie");
}

fn life(release: &str) {
    let Some(node) = Node::boot(release) else {
        return;
    };
    let first_containerd = node.pid("containerd");
    let as_it_was = Some(node.config.clone());

    // Installed, it has changed nothing and runs nothing.
    node.install(FIRST);
    assert_eq!(node.config_now(), as_it_was);
    assert_eq!(node.pid("containerd"), first_containerd);
    for unit in [SERVICE, SOCKET] {
        assert_eq!(node.show(unit, "ActiveState"), "inactive");
        assert_eq!(node.show(unit, "UnitFileState"), "disabled");
        // Started by mistake, it has nothing to work with and does not run, which is no failure.
        node.ok(&format!("systemctl start {unit}"));
        assert_eq!(node.show(unit, "ActiveState"), "inactive");
    }
    node.ok("uimgacc --version && uimgacc-snapshotter --version");
    node.ok("uimgacc-snapshotter check-config /usr/share/doc/uimgacc/examples/snapshotter.toml");
    node.ok("test -s /usr/share/man/man1/uimgacc-node-install.1.gz");

    // Set up, the unit of the package runs the program of the package.
    let image = node.set_up();
    assert_ne!(node.config_now(), as_it_was);
    let containerd = node.pid("containerd");
    assert_ne!(containerd, first_containerd);
    let daemon = node.pid(SERVICE);
    assert_eq!(node.show(SERVICE, "Type"), "notify");
    assert_eq!(node.show(SERVICE, "UnitFileState"), "enabled");
    // Of bookworm's two names for that folder systemd says the other one.
    let unit = node.show(SERVICE, "FragmentPath");
    assert_eq!(
        node.ok(&format!("realpath {unit}")),
        format!("/usr/lib/systemd/system/{SERVICE}")
    );
    assert_eq!(
        node.ok(&format!("readlink /proc/{daemon}/exe")),
        "/usr/bin/uimgacc-snapshotter"
    );
    assert_eq!(node.ok("ls /usr/local/bin"), "");
    let report = node.ok("uimgacc node check --store /srv/store");
    assert!(!report.contains("FAIL"), "{report}");
    let container = node.start_container(&image);

    // The server of the API waits for its configuration.
    node.ok(&format!("systemctl start {API}"));
    assert_eq!(node.show(API, "ActiveState"), "inactive");
    node.ok(&format!(
        "echo 'listen = \"127.0.0.1:0\"' > /etc/uimgacc/api.toml && systemctl start {API}"
    ));
    let api = node.pid(API);
    assert_eq!(node.show(API, "Type"), "notify");

    // Upgraded, only the daemon is another one. Its container goes on, and another one starts.
    node.install(SECOND);
    let upgraded = node.pid(SERVICE);
    assert_ne!(upgraded, daemon);
    assert_ne!(node.pid(API), api);
    assert_eq!(node.pid("containerd"), containerd);
    assert_eq!(node.container(), container);
    node.run("--rm", &image, "other /bin/busybox true");

    // Not removed under a container, and nothing is half done then.
    let edited = node.config_now();
    let said = node.refused("dpkg --remove uimgacc");
    assert!(said.contains("containers run from the store"), "{said}");
    assert_eq!(node.config_now(), edited);
    assert_eq!(node.pid(SERVICE), upgraded);
    assert_eq!(node.pid("containerd"), containerd);
    assert_eq!(node.container(), container);
    node.ok("dpkg --audit");

    // Removed, containerd is as it was.
    node.remove_container(&image);
    node.ok("dpkg --remove uimgacc");
    assert_eq!(node.config_now(), as_it_was);
    assert_ne!(node.pid("containerd"), containerd);
    assert_eq!(
        node.ok("ctr plugins list | grep uimgacc || true"),
        "",
        "containerd has forgotten the snapshotter"
    );
    assert_eq!(node.show(SERVICE, "LoadState"), "not-found");
    assert_eq!(node.show(API, "LoadState"), "not-found");
    assert_eq!(
        node.ok("ls -l /proc/[0-9]*/exe 2>/dev/null | grep uimgacc || true"),
        ""
    );
    node.ok("dpkg --purge uimgacc");
    node.is_as_before();
}

/// While an image of a machine is made, nothing runs and nothing is mounted; a package that is removed with containerd, or after it,
/// has nobody to restart.
#[test]
fn in_a_bare_root_and_after_containerd() {
    let Some(node) = Node::boot("trixie") else {
        return;
    };
    // The root alone, without `/proc`, `/run` and what else is mounted.
    node.ok(&format!(
        "mkdir /srv/bare && mount --bind / /srv/bare
         chroot /srv/bare dpkg --install /srv/uimgacc_{FIRST}_$(dpkg --print-architecture).deb
         chroot /srv/bare dpkg --purge uimgacc
         umount /srv/bare && rmdir /srv/bare"
    ));
    node.is_as_before();

    node.install(FIRST);
    node.set_up();
    node.ok("systemctl stop containerd && dpkg --remove --force-depends containerd");
    node.ok("dpkg --purge uimgacc");
    assert_eq!(node.config_now(), Some(node.config.clone()));
    assert_eq!(node.show(SERVICE, "LoadState"), "not-found");
    assert_eq!(
        node.ok("ls /etc/uimgacc /var/lib/uimgacc* 2>/dev/null || true"),
        ""
    );
}

/// Copies in `/usr/local/bin` and units in `/etc`, as made by an archive's program or by an agent of Kubernetes, are not the package's.
#[test]
fn beside_copies() {
    let Some(node) = Node::boot("bookworm") else {
        return;
    };
    let install = "install --store /srv/store";
    node.ok(&format!(
        "mkdir /srv/copy /srv/store
         dpkg --extract /srv/uimgacc_{FIRST}_*.deb /srv/copy
         /srv/copy/usr/bin/uimgacc store init --store /srv/store
         /srv/copy/usr/bin/uimgacc node {install}"
    ));
    let runs = |program: &str| {
        let daemon = node.pid(SERVICE);
        node.ok(&format!("readlink /proc/{daemon}/exe")) == program
    };
    assert!(runs("/usr/local/bin/uimgacc-snapshotter"));
    let edited = node.config_now();
    let containerd = node.pid("containerd");

    // The package comes and goes beside them.
    node.install(FIRST);
    assert!(runs("/usr/local/bin/uimgacc-snapshotter"));
    node.ok("dpkg --purge uimgacc");
    assert!(runs("/usr/local/bin/uimgacc-snapshotter"));
    assert_eq!(node.config_now(), edited);

    // An install from the package takes their place, and an install from outside takes its place again.
    node.install(SECOND);
    node.ok(&format!("uimgacc node {install}"));
    assert!(runs("/usr/bin/uimgacc-snapshotter"));
    assert_eq!(node.ok("ls /usr/local/bin"), "");
    assert_eq!(node.ok("ls /etc/systemd/system | grep uimgacc || true"), "");
    node.ok(&format!("/srv/copy/usr/bin/uimgacc node {install}"));
    assert!(runs("/usr/local/bin/uimgacc-snapshotter"));
    node.ok(&format!("uimgacc node {install}"));
    assert!(runs("/usr/bin/uimgacc-snapshotter"));
    assert_eq!(node.pid("containerd"), containerd, "it was not restarted");

    node.ok("dpkg --purge uimgacc && rm -r /srv/copy /srv/store");
    assert_eq!(node.config_now(), Some(node.config.clone()));
    node.is_as_before();
}
