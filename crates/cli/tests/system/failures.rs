//! What goes wrong: the command, its exit code and `kubectl describe` say why and what to do, and once that is done it goes on.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Instant;

use uimgacc_testkit::Registry;
use uimgacc_testkit::containerd::ContainerdVersion;

use crate::world::{MINUTE, World, app, app_in, ready};

const USER: &str = "anna";
const PASSWORD: &str = "s3cret";

#[test]
fn each_failure_says_what_to_do_and_is_mended() {
    if !ready() {
        return;
    }
    let world = World::start(&[ContainerdVersion::V2_1]);
    let mut private = Registry::start_with_htpasswd_on(world.cluster.address(), USER, PASSWORD);
    // A store with little space, which only the node sees.
    let store = world.store();
    let store = store.to_str().unwrap();
    let node = world.cluster.node(0);
    node.run(&["mount", "-t", "tmpfs", "-o", "size=2m", "small", store]);

    the_address_of_the_store(&world);
    world.enable(&["--plain-http-registry", &private.address()]);
    no_space(&world, store);
    an_original_that_is_not_there(&world);
    the_password(&world, &private);
    a_target_that_takes_no_writes(&world, &mut private);
    a_target_that_nobody_serves(&world);
    world.ok(&["check"]);
}

fn the_address_of_the_store(world: &World) {
    let address = world.cluster.address().to_string();
    let started = Instant::now();
    let message = world.failed(
        &[
            "enable",
            "--nfs",
            &address,
            "--image",
            world.image(),
            "--plain-http-registry",
            &world.cluster.registry().address(),
            "--timeout",
            "60",
        ],
        5,
    );
    assert!(started.elapsed() < 2 * MINUTE, "{:?}", started.elapsed());
    let cause = format!("{address}:2049");
    for part in [&cause, "store"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let described = world.cluster.kubectl_ok(&["describe", "imgaccel"]);
    for part in ["StoreFailed", &cause, "is this the NFS server's address"] {
        assert!(described.contains(part), "{part}: {described}");
    }
    let state = world.json(&["get"]);
    assert_eq!(state["NfsReady"], false, "{state}");
    println!("a wrong address of the store: {message}");
}

fn no_space(world: &World, store: &str) {
    let bigger = format!("remount,size={}", 256 << 20);
    let original = || drop(app(world, "large:1", 1));
    let mend = || drop(world.cluster.node(0).run(&["mount", "-o", &bigger, store]));
    let message = Failing {
        original: world.reference("large:1"),
        target: world.reference("large:fast"),
        says: &["space", "make room", "the next follows"],
    }
    .fails_then_works(world, original, mend);
    println!("no space: {message}");
}

fn an_original_that_is_not_there(world: &World) {
    let message = Failing {
        original: world.reference("late:1"),
        target: world.reference("late:fast"),
        says: &["late:1", "check the name"],
    }
    .fails_then_works(world, || (), || drop(app(world, "late:1", 2)));
    println!("no original: {message}");
}

fn the_password(world: &World, private: &Registry) {
    let login = |password: &str| {
        let registry = private.address();
        let words = ["enable", "--registry", &registry, "--username", USER];
        // Also a target that nobody serves: the password is not what is missing there.
        let nobody = format!("{}:1", world.cluster.address());
        let allowed = format!("{registry},{nobody}");
        let more = ["--allow-target", &allowed, "--password-stdin"];
        let mut command = world.command(&[&words[..], &more].concat());
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(password.as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
    };
    login("wrong");
    let message = Failing {
        original: private.reference("locked:1"),
        target: private.reference("locked:fast"),
        says: &["401", "--password-stdin"],
    }
    .fails_then_works(
        world,
        || drop(app_in(private, "locked:1", 3)),
        || login(PASSWORD),
    );
    assert!(!message.contains("wrong"), "a password is told: {message}");
    println!("a wrong password: {message}");
}

fn a_target_that_takes_no_writes(world: &World, private: &mut Registry) {
    let original = world.reference("large:1");
    let target = private.reference("frozen:fast");
    private.set_read_only(true);
    let message = Failing {
        original,
        target,
        says: &["frozen", "405", "it takes no pushes"],
    }
    .fails_then_works(world, || (), || private.set_read_only(false));
    println!("a target that takes no writes: {message}");
}

fn a_target_that_nobody_serves(world: &World) {
    let target = format!("{}:1/nobody:fast", world.cluster.address());
    let failing = Failing {
        original: world.reference("large:1"),
        target,
        says: &["no connection", "check"],
    };
    println!("a target that nobody serves: {}", failing.fails(world));
    // Nothing mends that: it is given up.
    world.ok(&["delete", &failing.target, "--wait"]);
}

/// A `create` that fails.
struct Failing<'a> {
    original: String,
    target: String,
    /// What the message has in it: why, and what to do.
    says: &'a [&'a str],
}

impl Failing<'_> {
    fn fails_then_works(
        &self,
        world: &World,
        before: impl FnOnce(),
        mend: impl FnOnce(),
    ) -> String {
        before();
        let message = self.fails(world);
        mend();
        let started = Instant::now();
        world.ok(&["create", &self.original, &self.target, "--wait"]);
        println!(
            "{} after it was mended: {:?}",
            self.target,
            started.elapsed()
        );
        message
    }

    /// Everybody who asks is told.
    fn fails(&self, world: &World) -> String {
        let started = Instant::now();
        let words = ["create", &self.original, &self.target, "--wait"];
        let message = world.failed(&words, 1);
        assert!(started.elapsed() < 2 * MINUTE, "{:?}", started.elapsed());
        for part in self.says {
            assert!(message.contains(part), "{part}: {message}");
        }
        let images = world.cluster.get(&["acceleratedimages"]);
        let images = images["items"].as_array().unwrap();
        let image = images
            .iter()
            .find(|image| image["spec"]["targetImage"] == self.target)
            .unwrap();
        assert_eq!(image["status"]["phase"], "CreateError", "{image}");
        let error = image["status"]["error"].as_str().unwrap();
        let name = image["metadata"]["name"].as_str().unwrap();
        let described = world.cluster.kubectl_ok(&["describe", "accimg", name]);
        // The text is wrapped nowhere, and stands in the status and in an event.
        assert!(
            described.matches(error).count() >= 2,
            "{error}\n{described}"
        );
        let state = world.json(&["get"]);
        assert_eq!(state["Status"], "CreateError", "{state}");
        message
    }
}
