//! The Jobs that work on the store.

use serde_json::{Value, json};
use uimgacc_objects::access::access;
use uimgacc_objects::{AcceleratedImageSpec, ImageAccelerationSpec, names};

use super::super::view::{
    ATTEMPT_ANNOTATION, COMPONENT_LABEL, IMAGE_ANNOTATION, IMAGE_UID_ANNOTATION, INPUTS_ANNOTATION,
    ImageView, STORE_ANNOTATION,
};
use super::{fitting, host_label, inputs, store, store_inputs};

/// What a Job is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobTask {
    /// Make the store, and prove that it can be written.
    Init,
    /// Free what nothing refers to.
    Sweep,
    /// Take what nodes recorded of first starts.
    Profiles,
    /// Bring the leases of nodes in the store up to date: those of nodes that hold nothing go.
    Leases,
    /// Convert an image.
    Convert {
        /// Name of the `AcceleratedImage`.
        image: String,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Start an image once, so that it is recorded.
    Record {
        /// Name of the `AcceleratedImage`.
        image: String,
    },
    /// Free the space of an image.
    Delete {
        /// Name of the `AcceleratedImage`.
        image: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// Although it is in use.
        force: bool,
    },
}

impl JobTask {
    /// One word.
    #[must_use]
    pub const fn component(&self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Sweep => "sweep",
            Self::Profiles => "profiles",
            Self::Leases => "leases",
            Self::Convert { .. } => "convert",
            Self::Record { .. } => "record",
            Self::Delete { .. } => "delete",
        }
    }

    /// The image it is for.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        match self {
            Self::Init | Self::Sweep | Self::Profiles | Self::Leases => None,
            Self::Convert { image, .. } | Self::Record { image } | Self::Delete { image, .. } => {
                Some(image)
            }
        }
    }

    const fn attempt(&self) -> u32 {
        match self {
            Self::Init | Self::Sweep | Self::Profiles | Self::Leases | Self::Record { .. } => 1,
            Self::Convert { attempt, .. } | Self::Delete { attempt, .. } => *attempt,
        }
    }

    /// The name of its Job: a label of the Pods too, so at most 63 bytes.
    #[must_use]
    pub fn job_name(&self) -> String {
        job_name(self.component(), self.image())
    }

    /// Seconds after which it is ended; a conversion takes what it takes.
    const fn deadline(&self) -> Option<u32> {
        match self {
            Self::Init | Self::Leases | Self::Record { .. } => Some(180),
            Self::Profiles => Some(1800),
            Self::Sweep | Self::Delete { .. } => Some(6 * 3600),
            Self::Convert { .. } => None,
        }
    }
}

/// The name of the Job of that component for that image.
#[must_use]
pub fn job_name(component: &str, image: Option<&str>) -> String {
    match image {
        None => format!("uimgacc-{component}"),
        // A dot has no place in it, because Pods have the name as their host name.
        Some(image) => {
            let prefix = format!("uimgacc-{component}-");
            let most = 63 - prefix.len();
            format!("{prefix}{}", host_label(image, most))
        }
    }
}

/// The image that a Job is for.
#[derive(Debug, Clone, Copy)]
pub struct ImageInputs<'a> {
    /// Its spec.
    pub spec: &'a AcceleratedImageSpec,
    /// Its uid.
    pub uid: &'a str,
    /// The mark of whoever wanted another attempt last: another mark makes another Job.
    pub retry: Option<&'a str>,
}

impl<'a> From<&'a ImageView> for ImageInputs<'a> {
    fn from(image: &'a ImageView) -> Self {
        Self {
            spec: &image.spec,
            uid: &image.meta.uid,
            retry: image.retry.as_deref(),
        }
    }
}

/// A Job that is to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// What it is to do.
    pub work: JobTask,
    /// The Job, without a namespace.
    pub object: Value,
    /// The digest of what it is made from.
    pub inputs: String,
}

impl NewJob {
    /// The Job for that work.
    ///
    /// The Jobs that make an image are owned by it; others are not, because a deletion of an owner in the
    /// foreground would remove the very Job that it waits for.
    #[must_use]
    pub fn new(
        work: JobTask,
        spec: &ImageAccelerationSpec,
        image: Option<ImageInputs<'_>>,
    ) -> Self {
        let (object, inputs) = job(&work, spec, image);
        Self {
            work,
            object,
            inputs,
        }
    }
}

fn job(
    work: &JobTask,
    spec: &ImageAccelerationSpec,
    image: Option<ImageInputs<'_>>,
) -> (Value, String) {
    let mut labels = json!({
        "app.kubernetes.io/name": names::PART_OF,
        (names::PART_OF_LABEL): names::PART_OF,
        "app.kubernetes.io/managed-by": names::AGENT,
        COMPONENT_LABEL: work.component(),
    });
    if let Some(name) = work.image() {
        labels[names::IMAGE_LABEL] = json!(fitting(name, 63));
    }
    let mut body = json!({
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "template": {
            "metadata": {"labels": labels},
            "spec": match (work, image) {
                (JobTask::Record { .. }, Some(image)) => recording(spec, image.spec),
                _ => pod(work, spec, image),
            },
        },
    });
    if let Some(deadline) = work.deadline() {
        body["activeDeadlineSeconds"] = json!(deadline);
    }
    if matches!(work, JobTask::Delete { .. }) {
        // Where its image is gone, nobody else removes it.
        body["ttlSecondsAfterFinished"] = json!(3600);
    }
    let retry = image.and_then(|image| image.retry);
    let digest = match (work, retry) {
        (JobTask::Convert { .. } | JobTask::Delete { .. }, Some(retry)) => {
            inputs(&json!([body, retry]))
        }
        _ => inputs(&body),
    };
    let mut annotations = json!({
        INPUTS_ANNOTATION: digest,
        STORE_ANNOTATION: store_inputs(&spec.store),
        ATTEMPT_ANNOTATION: work.attempt().to_string(),
    });
    if let Some(name) = work.image() {
        annotations[IMAGE_ANNOTATION] = json!(name);
    }
    if let Some(image) = image {
        annotations[IMAGE_UID_ANNOTATION] = json!(image.uid);
    }
    let mut metadata = json!({
        "name": work.job_name(),
        "labels": labels,
        "annotations": annotations,
    });
    if let (JobTask::Convert { image: name, .. } | JobTask::Record { image: name }, Some(image)) =
        (work, image)
    {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "uimgacc.io/v1",
            "kind": "AcceleratedImage",
            "name": name,
            "uid": image.uid,
            "controller": true,
        }]);
    }
    let object = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": body,
    });
    (object, digest)
}

fn pod(work: &JobTask, spec: &ImageAccelerationSpec, image: Option<ImageInputs<'_>>) -> Value {
    let mut args = vec!["work".to_owned(), work.component().to_owned()];
    if let Some(name) = work.image() {
        args.extend(["--image".to_owned(), name.to_owned()]);
    }
    match work {
        JobTask::Delete { force: true, .. } => args.push("--force".to_owned()),
        JobTask::Sweep => args.extend([
            "--grace-minutes".to_owned(),
            spec.sweep.grace_minutes.to_string(),
        ]),
        _ => {}
    }
    let mut volumes = vec![json!({"name": "tmp", "emptyDir": {}})];
    let mut mounts = vec![json!({"name": "tmp", "mountPath": "/tmp"})];
    let mut env = vec![
        json!({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}),
        json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!({"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}),
    ];
    if let (JobTask::Delete { .. }, Some(image)) = (work, image) {
        // Not as an argument: the Pod's program may be of a version that does not know it.
        env.push(json!({"name": "UIMGACC_IMAGE_UID", "value": image.uid}));
    }
    // Root, for the store's files are root's; of root's powers only those that files need.
    let mut capabilities = vec!["CHOWN", "DAC_OVERRIDE", "FOWNER"];
    let mut security = json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "readOnlyRootFilesystem": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let source = match &spec.store.nfs {
        Some(nfs) => {
            capabilities.push("SYS_ADMIN");
            nfs.address().source()
        }
        None => {
            security["allowPrivilegeEscalation"] = json!(false);
            volumes.extend(store::volume(&spec.store, "DirectoryOrCreate"));
            mounts.push(json!({"name": "store", "mountPath": store::FOLDER}));
            store::FOLDER.to_owned()
        }
    };
    security["capabilities"] = json!({"drop": ["ALL"], "add": capabilities});
    args.extend(["--store".to_owned(), source]);
    if matches!(work, JobTask::Convert { .. }) {
        for registry in &spec.plain_http_registries {
            args.extend(["--plain-http-registry".to_owned(), registry.clone()]);
        }
        let secret = image.and_then(|image| image.spec.pull_secret.as_ref());
        if let Some(secret) = secret.or(spec.registry_credentials.as_ref()) {
            // Optional: without it the registry says what is missing, and a Pod that never starts says nothing.
            volumes.push(json!({
                "name": "credentials",
                "secret": {
                    "secretName": secret.name,
                    "optional": true,
                    "defaultMode": 0o400,
                    "items": [{"key": ".dockerconfigjson", "path": "config.json"}],
                },
            }));
            mounts.push(json!({
                "name": "credentials",
                "mountPath": "/credentials",
                "readOnly": true,
            }));
            env.push(json!({"name": "DOCKER_CONFIG", "value": "/credentials"}));
            // As an argument: a program that does not know it must not go on with credentials.
            let access = image.map(|image| access(image.spec, spec));
            if !matches!(access, Some(Ok(access)) if access.original_with_credentials) {
                args.push("--anonymous-original".to_owned());
            }
        }
    }
    json!({
        "serviceAccountName": names::CONVERT,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 10,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [{
            "name": work.component(),
            "image": spec.image,
            "command": ["/bin/uimgacc-agent"],
            "args": args,
            "env": env,
            "resources": resources(work),
            "securityContext": security,
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    })
}

/// A Pod of the target image itself, on a node that reads it from the store. It belongs to whoever asked
/// for the image: it has none of our rights.
fn recording(spec: &ImageAccelerationSpec, image: &AcceleratedImageSpec) -> Value {
    let command = image.profile.iter().flat_map(|profile| &profile.command);
    let command: Vec<&String> = command.collect();
    let secret = image.pull_secret.as_ref();
    let secret = secret.or(spec.registry_credentials.as_ref());
    let secrets: Vec<Value> = secret.iter().map(|one| json!({"name": one.name})).collect();
    let mut container = json!({
        "name": "record",
        "image": image.target_image,
        "imagePullPolicy": "Always",
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {names::NODE_LABELS[0]: "true"},
        "imagePullSecrets": secrets,
        "containers": [container],
    })
}

fn resources(work: &JobTask) -> Value {
    match work {
        JobTask::Convert { .. } => json!({
            "requests": {"cpu": "500m", "memory": "512Mi"},
            "limits": {"memory": "2Gi"},
        }),
        _ => json!({
            "requests": {"cpu": "50m", "memory": "128Mi"},
            "limits": {"memory": "1Gi"},
        }),
    }
}
