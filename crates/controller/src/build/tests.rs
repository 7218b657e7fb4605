#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use uimgacc_objects::{AcceleratedImageSpec, ImageAccelerationSpec, ProfileSpec};

use super::job::job_name;
use super::{ImageInputs, JobTask, NewJob, fitting, host_label, installer};

fn job(
    work: &JobTask,
    spec: &ImageAccelerationSpec,
    image: Option<ImageInputs<'_>>,
) -> (Value, String) {
    let job = NewJob::new(work.clone(), spec, image);
    (job.object, job.inputs)
}

fn spec(store: &Value) -> ImageAccelerationSpec {
    serde_json::from_value(json!({
        "store": store,
        "image": "registry.example/uimgacc:1",
        "registryCredentials": {"name": "uimgacc-registry"},
        "allowedTargets": ["docker.io/library"],
        "plainHttpRegistries": ["registry.lan:5000"],
        "nodeSelector": {"pool": "gpu"},
        "nodePaths": {"containerdRestart": ["service", "containerd", "restart"]},
    }))
    .unwrap()
}

fn nfs() -> ImageAccelerationSpec {
    spec(&json!({"nfs": {"servers": ["10.0.0.1", "fd00::1"], "path": "/a b", "options": "vers=3"}}))
}

fn claim() -> ImageAccelerationSpec {
    spec(&json!({"persistentVolumeClaim": {"claimName": "store"}}))
}

fn folder() -> ImageAccelerationSpec {
    spec(&json!({"hostPath": {"path": "/mnt/ceph"}}))
}

fn image() -> AcceleratedImageSpec {
    serde_json::from_value(json!({"originalImage": "a:1", "targetImage": "a:2"})).unwrap()
}

fn from(spec: &AcceleratedImageSpec) -> ImageInputs<'_> {
    ImageInputs {
        spec,
        uid: "uid-app",
        retry: None,
    }
}

fn convert() -> JobTask {
    JobTask::Convert {
        image: "app".to_owned(),
        attempt: 2,
    }
}

fn delete() -> JobTask {
    JobTask::Delete {
        image: "app".to_owned(),
        attempt: 1,
        force: true,
    }
}

/// Compares with the file of that name; `UIMGACC_BLESS=1` writes it.
fn golden(name: &str, object: &Value) {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = serde_json::to_string_pretty(object).unwrap() + "\n";
    if std::env::var_os("UIMGACC_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text, expected,
        "{name}: if that is meant, run with UIMGACC_BLESS=1"
    );
}

#[test]
fn objects_are_as_in_the_files() {
    let image = image();
    let image = Some(from(&image));
    golden("installer-nfs", &installer(&nfs()).0);
    golden("installer-claim", &installer(&claim()).0);
    golden("installer-folder", &installer(&folder()).0);
    golden("convert-nfs", &job(&convert(), &nfs(), image).0);
    golden("convert-claim", &job(&convert(), &claim(), image).0);
    golden("delete-folder", &job(&delete(), &folder(), image).0);
    golden("init-nfs", &job(&JobTask::Init, &nfs(), None).0);
    golden("sweep-claim", &job(&JobTask::Sweep, &claim(), None).0);
}

fn container(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn only_a_store_on_nfs_needs_the_power_to_mount() {
    for (spec, mounts) in [(nfs(), true), (claim(), false), (folder(), false)] {
        for work in [
            JobTask::Init,
            JobTask::Sweep,
            JobTask::Profiles,
            convert(),
            delete(),
        ] {
            let (object, _) = job(&work, &spec, None);
            let security = &container(&object)["securityContext"];
            let added = security["capabilities"]["add"].as_array().unwrap();
            assert_eq!(added.contains(&json!("SYS_ADMIN")), mounts, "{work:?}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
            assert_eq!(security["privileged"], Value::Null);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            let escalation = &security["allowPrivilegeEscalation"];
            assert_eq!(*escalation == json!(false), !mounts, "{work:?}");
        }
    }
}

#[test]
fn only_conversions_know_the_password() {
    for work in [JobTask::Init, JobTask::Sweep, JobTask::Profiles, delete()] {
        let (object, _) = job(&work, &nfs(), None);
        assert!(!object.to_string().contains("credentials"), "{work:?}");
        assert!(!object.to_string().contains("registry.lan"), "{work:?}");
    }
    let mut image = image();
    let secret = |image: &AcceleratedImageSpec| {
        let (object, _) = job(&convert(), &nfs(), Some(from(image)));
        object["spec"]["template"]["spec"]["volumes"][1]["secret"]["secretName"].clone()
    };
    assert_eq!(secret(&image), "uimgacc-registry");
    image.pull_secret = Some(uimgacc_objects::SecretReference {
        name: "own".to_owned(),
    });
    assert_eq!(secret(&image), "own");
}

#[test]
fn an_original_that_is_not_listed_is_pulled_without_the_password() {
    let anonymous = |change: &dyn Fn(&mut ImageAccelerationSpec)| {
        let (mut spec, mut image) = (nfs(), image());
        image.original_image = "private.example/a:1".to_owned();
        change(&mut spec);
        let (object, digest) = job(&convert(), &spec, Some(from(&image)));
        let args = container(&object)["args"].as_array().unwrap().clone();
        (args.contains(&json!("--anonymous-original")), digest)
    };
    let (is_anonymous, digest) = anonymous(&|_| {});
    assert!(is_anonymous);
    let listed = |spec: &mut ImageAccelerationSpec| {
        spec.credentials_for = Some(vec!["private.example".to_owned()]);
    };
    let (is_anonymous, other) = anonymous(&listed);
    assert!(!is_anonymous);
    assert_ne!(digest, other, "a Job that failed is made again");
    // Without a password there is nothing to leave out.
    assert!(!anonymous(&|spec| spec.registry_credentials = None).0);
}

#[test]
fn the_digest_changes_with_what_matters_only() {
    let digest = |spec: &ImageAccelerationSpec, work: &JobTask| job(work, spec, None).1;
    let base = nfs();
    let mut other = nfs();
    other.max_conversions = 9;
    other.sweep.interval_minutes = 9;
    assert_eq!(digest(&base, &convert()), digest(&other, &convert()));
    assert_eq!(installer(&base).1, installer(&other).1);
    other.image = "registry.example/uimgacc:2".to_owned();
    assert_ne!(digest(&base, &convert()), digest(&other, &convert()));
    assert_ne!(installer(&base).1, installer(&other).1);
    // The next attempt is made from the same.
    let next = JobTask::Convert {
        image: "app".to_owned(),
        attempt: 3,
    };
    assert_eq!(digest(&base, &convert()), digest(&base, &next));
}

#[test]
fn whoever_wants_another_attempt_gets_another_job() {
    let image = image();
    let digest = |work: &JobTask, retry: Option<&str>| {
        let image = ImageInputs {
            retry,
            ..from(&image)
        };
        job(work, &nfs(), Some(image)).1
    };
    let marks = [None, Some("1"), Some("2")];
    for work in [convert(), delete()] {
        let digests: std::collections::BTreeSet<_> =
            marks.iter().map(|mark| digest(&work, *mark)).collect();
        assert_eq!(digests.len(), 3, "{work:?}");
    }
}

#[test]
fn a_recorded_start_has_none_of_our_rights() {
    let mut image = image();
    image.profile = Some(ProfileSpec {
        command: vec!["python3".to_owned(), "-V".to_owned()],
    });
    let work = JobTask::Record {
        image: "app".to_owned(),
    };
    let job = job(&work, &nfs(), Some(from(&image))).0;
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["serviceAccountName"], Value::Null);
    assert_eq!(pod["volumes"], Value::Null);
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "a:2");
    assert_eq!(container["command"], json!(["python3", "-V"]));
    assert_eq!(
        container["securityContext"]["allowPrivilegeEscalation"],
        false
    );
    assert_eq!(job["metadata"]["ownerReferences"][0]["name"], "app");
}

#[test]
fn names_are_valid_and_distinct() {
    let long = "x".repeat(253);
    let longer = "x".repeat(252) + "y";
    let names = [
        "app",
        "app.v1",
        "app-v1",
        "a.b.c",
        &long,
        &longer,
        &format!("{}.", "a-".repeat(30)),
    ];
    let made: std::collections::BTreeSet<String> = names
        .iter()
        .map(|name| job_name("convert", Some(name)))
        .collect();
    assert_eq!(made.len(), names.len(), "{made:?}");
    for name in &made {
        assert!(name.len() <= 63, "{name}");
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(name.chars().all(fine) && !name.ends_with('-'), "{name}");
    }
    assert_eq!(job_name("convert", Some("app")), "uimgacc-convert-app");
    assert_eq!(job_name("init", None), "uimgacc-init");
    assert_eq!(fitting("short", 63), "short");
    assert!(host_label("a.b", 63).starts_with("a-b-"));
}
