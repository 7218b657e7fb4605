//! Two controllers: one leads, and a leader that was stopped writes nothing more.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use uimgacc_testkit::ready;

use super::audit::{Audit, Request};
use super::stage::{Agent, NEEDS, Stage, condition, http};

fn leads(agent: &Agent) -> bool {
    http(agent.port, "/readyz") == (200, "ok: leader\n".to_owned())
}

fn holder(stage: &Stage) -> String {
    let lease = stage.object(&["lease", "-n", "kube-system", "uimgacc-agent"]);
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    holder.split('_').next().unwrap_or_default().to_owned()
}

#[test]
fn a_leader_that_was_stopped_writes_nothing_more() {
    if !ready(&NEEDS) {
        return;
    }
    let audit = Audit::new();
    let stage = Stage::start_with(audit.args());
    let mut one = stage.agent("one");
    stage.wait("one", "one leads", || leads(&one));
    let two = stage.agent("two");
    stage.wait("two", "two is ready", || {
        http(two.port, "/readyz").1 == "ok: follower\n"
    });
    assert_eq!(holder(&stage), "one");
    stage.enable("one");

    // Stopped in the middle of much work: hundreds of statuses are still to be written.
    let images: Vec<Value> = (0..200)
        .map(|index| {
            json!({"apiVersion": "uimgacc.io/v1", "kind": "AcceleratedImage",
                "metadata": {"name": format!("image-{index}")},
                "spec": {"originalImage": "r.example/a:1", "targetImage": format!("r.example/a:fast-{index}")}})
        })
        .collect();
    let images = json!({"apiVersion": "v1", "kind": "List", "items": images}).to_string();
    let create = std::thread::scope(|scope| {
        let apply = scope.spawn(|| stage.cluster.apply(&images));
        stage.wait("one", "it works", || {
            let first = stage.image("image-3");
            !first["status"]["conditions"].is_null()
        });
        one.process.send(Signal::STOP);
        let stopped = Instant::now();
        apply.join().unwrap();
        stopped
    });
    stage.wait("two", "two leads", || leads(&two));
    println!("two leads {:?} after one was stopped", create.elapsed());
    stage.wait("two", "two does the work", || {
        let images = stage.object(&["accimg"]);
        let images = images["items"].as_array().unwrap();
        images.len() == 200
            && images
                .iter()
                .all(|one| !condition(one, "Ready").1.is_empty())
    });
    assert_eq!(holder(&stage), "two");

    // It goes on, and finds that it leads no more.
    one.process.send(Signal::CONT);
    stage.wait("one", "one follows", || {
        http(one.port, "/readyz").1 == "ok: follower\n"
    });
    // Something changes that both see; only the leader writes.
    let begun = Instant::now();
    stage.create_image("later", "r.example/a:later");
    stage.wait("two", "two sees to it", || {
        !condition(&stage.image("later"), "Ready").1.is_empty()
    });
    println!("a new image had a status after {:?}", begun.elapsed());
    std::thread::sleep(Duration::from_secs(2));
    let writes: Vec<_> = audit
        .requests()
        .into_iter()
        .filter(Request::writes)
        .collect();
    let credential = &writes.first().unwrap().credential;
    let led = writes
        .iter()
        .find(|write| write.credential != *credential)
        .unwrap();
    let of_one = writes
        .iter()
        .filter(|write| write.credential == *credential);
    let (early, late): (Vec<_>, Vec<_>) = of_one.partition(|write| write.received < led.received);
    let of_two = writes.len() - early.len() - late.len();
    // Those that the API server refused, for another had written, wrote nothing; the Lease's own
    // writes are among them, because they do not go through the fence.
    let (refused, late): (Vec<_>, Vec<_>) = late.into_iter().partition(|write| write.is_refused());
    println!(
        "one wrote {} times, then two {of_two} times; refused later: {refused:?}",
        early.len()
    );
    assert!(early.len() > 10 && of_two > 100);
    assert!(
        late.is_empty(),
        "one wrote after two led since {}: {late:?}",
        led.received
    );

    // The lease is given back by one that ends, so the other need not wait until it expires.
    let mut two = two;
    let begun = Instant::now();
    two.process.stop();
    assert!(
        stage.log("two").contains("the lease was given back"),
        "{}",
        stage.log("two")
    );
    assert_ne!(holder(&stage), "two");
    stage.wait("one", "one leads again", || leads(&one));
    println!("one leads {:?} after two was told to end", begun.elapsed());
    stage.create_image("last", "r.example/a:last");
    stage.wait("one", "one works", || {
        !condition(&stage.image("last"), "Ready").1.is_empty()
    });
}
