//! What goes wrong: the command, its exit code and `kubectl describe` say why and what to do, and once that is done it goes on.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Instant;

use uimgacc_testkit::Registry;
use uimgacc_testkit::containerd::ContainerdVersion;

use crate::fixture::{ClusterFixture, MINUTE, app, app_in, ready};

const USER: &str = "anna";
const PASSWORD: &str = "s3cret";

#[test]
fn each_failure_says_what_to_do_and_is_mended() {
    if !ready() {
        return;
    }
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1]);
    let mut private = Registry::start_with_htpasswd_on(fixture.cluster.address(), USER, PASSWORD);
    // A store with little space, which only the node sees.
    let store = fixture.store();
    let store = store.to_str().unwrap();
    let node = fixture.cluster.node(0);
    node.run(&["mount", "-t", "tmpfs", "-o", "size=2m", "small", store]);

    the_address_of_the_store(&fixture);
    fixture.enable(&["--plain-http-registry", &private.address()]);
    no_space(&fixture, store);
    an_original_that_is_not_there(&fixture);
    the_password(&fixture, &private);
    a_target_that_takes_no_writes(&fixture, &mut private);
    a_target_that_nobody_serves(&fixture);
    fixture.ok(&["check"]);
}

fn the_address_of_the_store(fixture: &ClusterFixture) {
    let address = fixture.cluster.address().to_string();
    let started = Instant::now();
    let message = fixture.failed(
        &[
            "enable",
            "--nfs",
            &address,
            "--image",
            fixture.image(),
            "--plain-http-registry",
            &fixture.cluster.registry().address(),
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
    let described = fixture.cluster.kubectl_ok(&["describe", "imgaccel"]);
    for part in ["StoreFailed", &cause, "is this the NFS server's address"] {
        assert!(described.contains(part), "{part}: {described}");
    }
    let state = fixture.json(&["get"]);
    assert_eq!(state["NfsReady"], false, "{state}");
    println!("a wrong address of the store: {message}");
}

fn no_space(fixture: &ClusterFixture, store: &str) {
    let bigger = format!("remount,size={}", 256 << 20);
    let original = || drop(app(fixture, "large:1", 1));
    let mend = || {
        drop(
            fixture
                .cluster
                .node(0)
                .run(&["mount", "-o", &bigger, store]),
        )
    };
    let message = Failing {
        original: fixture.reference("large:1"),
        target: fixture.reference("large:fast"),
        says: &["space", "make room", "the next follows"],
    }
    .fails_then_works(fixture, original, mend);
    println!("no space: {message}");
}

fn an_original_that_is_not_there(fixture: &ClusterFixture) {
    let message = Failing {
        original: fixture.reference("late:1"),
        target: fixture.reference("late:fast"),
        says: &["late:1", "check the name"],
    }
    .fails_then_works(fixture, || (), || drop(app(fixture, "late:1", 2)));
    println!("no original: {message}");
}

fn the_password(fixture: &ClusterFixture, private: &Registry) {
    let login = |password: &str| {
        let registry = private.address();
        let words = ["enable", "--registry", &registry, "--username", USER];
        // Also a target that nobody serves: the password is not what is missing there.
        let nobody = format!("{}:1", fixture.cluster.address());
        let allowed = format!("{registry},{nobody}");
        let more = ["--allow-target", &allowed, "--password-stdin"];
        let mut command = fixture.command(&[&words[..], &more].concat());
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
        fixture,
        || drop(app_in(private, "locked:1", 3)),
        || login(PASSWORD),
    );
    assert!(!message.contains("wrong"), "a password is told: {message}");
    println!("a wrong password: {message}");
}

fn a_target_that_takes_no_writes(fixture: &ClusterFixture, private: &mut Registry) {
    let original = fixture.reference("large:1");
    let target = private.reference("frozen:fast");
    private.set_read_only(true);
    let message = Failing {
        original,
        target,
        says: &["frozen", "405", "it takes no pushes"],
    }
    .fails_then_works(fixture, || (), || private.set_read_only(false));
    println!("a target that takes no writes: {message}");
}

fn a_target_that_nobody_serves(fixture: &ClusterFixture) {
    let target = format!("{}:1/nobody:fast", fixture.cluster.address());
    let failing = Failing {
        original: fixture.reference("large:1"),
        target,
        says: &["no connection", "check"],
    };
    println!("a target that nobody serves: {}", failing.fails(fixture));
    // Nothing mends that: it is given up.
    fixture.ok(&["delete", &failing.target, "--wait"]);
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
        fixture: &ClusterFixture,
        before: impl FnOnce(),
        mend: impl FnOnce(),
    ) -> String {
        before();
        let message = self.fails(fixture);
        mend();
        let started = Instant::now();
        fixture.ok(&["create", &self.original, &self.target, "--wait"]);
        println!(
            "{} after it was mended: {:?}",
            self.target,
            started.elapsed()
        );
        message
    }

    /// Everybody who asks is told.
    fn fails(&self, fixture: &ClusterFixture) -> String {
        let started = Instant::now();
        let words = ["create", &self.original, &self.target, "--wait"];
        let message = fixture.failed(&words, 1);
        assert!(started.elapsed() < 2 * MINUTE, "{:?}", started.elapsed());
        for part in self.says {
            assert!(message.contains(part), "{part}: {message}");
        }
        let images = fixture.cluster.get(&["acceleratedimages"]);
        let images = images["items"].as_array().unwrap();
        let image = images
            .iter()
            .find(|image| image["spec"]["targetImage"] == self.target)
            .unwrap();
        assert_eq!(image["status"]["phase"], "CreateError", "{image}");
        let error = image["status"]["error"].as_str().unwrap();
        let name = image["metadata"]["name"].as_str().unwrap();
        let described = fixture.cluster.kubectl_ok(&["describe", "accimg", name]);
        // The text is wrapped nowhere, and stands in the status and in an event.
        assert!(
            described.matches(error).count() >= 2,
            "{error}\n{described}"
        );
        let state = fixture.json(&["get"]);
        assert_eq!(state["Status"], "CreateError", "{state}");
        message
    }
}
