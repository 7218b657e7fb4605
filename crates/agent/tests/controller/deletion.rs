//! The Jobs' own program, without a Pod: what it deletes, and for whom it waits.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use uimgacc_testkit::{Registry, image, ready};

use super::stage::{NEEDS, Stage};

struct Work {
    stage: Stage,
    store: TempDir,
}

impl Work {
    fn start(&self, arguments: &[&str], uid: Option<&str>) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uimgacc-agent"));
        command
            .arg("work")
            .args(arguments)
            .arg("--store")
            .arg(self.store.path())
            .arg("--termination-log")
            .arg(self.stage.cluster.dir().join("termination-log"))
            .env("KUBECONFIG", self.stage.cluster.kubeconfig())
            .stdin(Stdio::null());
        if let Some(uid) = uid {
            command.env("UIMGACC_IMAGE_UID", uid);
        }
        command.spawn().unwrap()
    }

    fn run(&self, arguments: &[&str], uid: Option<&str>) {
        let status = self.start(arguments, uid).wait().unwrap();
        assert!(status.success(), "{arguments:?}: {status}");
    }

    fn images(&self) -> usize {
        let reader = uimgacc_store::StoreReader::open(self.store.path()).unwrap();
        reader.images().unwrap().len()
    }
}

#[test]
fn it_deletes_what_is_meant_once_the_nodes_have_given_it_back() {
    if !ready(&NEEDS) {
        return;
    }
    let registry = Registry::start();
    image::busybox().push(&registry, "app:1");
    let work = Work {
        stage: Stage::start(),
        store: tempfile::tempdir().unwrap(),
    };
    let (stage, cluster) = (&work.stage, &work.stage.cluster);
    cluster.apply(
        "{apiVersion: uimgacc.io/v1, kind: ImageAcceleration, metadata: {name: default},
          spec: {store: {hostPath: {path: /store}}, image: 'registry.example/uimgacc:1'}}",
    );
    let spec = json!({
        "originalImage": registry.reference("app:1"),
        "targetImage": registry.reference("app:fast"),
    });
    let object = json!({
        "apiVersion": "uimgacc.io/v1", "kind": "AcceleratedImage",
        "metadata": {"name": "app", "finalizers": ["uimgacc.io/store"]}, "spec": spec,
    });
    cluster.apply(&object.to_string());
    work.run(&["init"], None);
    let address = registry.address();
    let convert = [
        "convert",
        "--image",
        "app",
        "--plain-http-registry",
        &address,
    ];
    work.run(&convert, None);
    let chain = stage.image("app")["status"]["chainToken"].clone();
    assert_eq!(work.images(), 1);

    // It is not being deleted: a Job that says so came too late.
    let delete = ["delete", "--image", "app"];
    work.run(&delete, None);
    cluster.kubectl_ok(&["delete", "accimg", "app", "--wait=false"]);
    work.run(&delete, Some("another"));
    work.run(&["delete", "--image", "gone"], None);
    assert_eq!(work.images(), 1);

    // A node has it still, as far as this cluster knows.
    stage.node(
        "n1",
        &json!({"chains": [{"token": chain, "containers": 0}]}),
    );
    let uid = stage.image("app")["metadata"]["uid"].clone();
    let mut deleting = work.start(&delete, uid.as_str());
    let lease = || work.store.path().join("leases").read_dir().unwrap().count() > 0;
    let begun = Instant::now();
    while !lease() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(deleting.try_wait().unwrap().is_none());
    assert_eq!(work.images(), 1);
    let begun = Instant::now();
    stage.patch_status("accnode", "n1", "", &json!({"chains": []}));
    assert!(deleting.wait().unwrap().success());
    println!("deleted {:?} after the node gave it back", begun.elapsed());
    // Not as late as it may wait in all.
    assert!(begun.elapsed() < Duration::from_secs(40));
    assert_eq!(work.images(), 0);
}
