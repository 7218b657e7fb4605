//! A cluster with our image in its registry, a store that its nodes see, and the command to drive it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use uimgacc_testkit::cluster::{Cluster, Options, wait_until};
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::image::{Compression, ImageBuilder, busybox_layer};
use uimgacc_testkit::process::run;
use uimgacc_testkit::tar::TarBuilder;
use uimgacc_testkit::{Need, Registry, image, parts, programs};

/// Both labels of a node that can run accelerated images.
pub(crate) const LABELS: [&str; 2] = [
    "node.uk8s.ucloud.cn/uimgacc",
    "node.uk8s.ucloud.cn/image_accel",
];
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Whether the real parts are here; says loudly what is missing.
pub(crate) fn ready() -> bool {
    uimgacc_testkit::ready(&[Need::Root, Need::Parts, Need::Kubernetes, Need::OurImage])
}

/// A cluster that nothing was done to yet.
#[derive(Debug)]
pub(crate) struct ClusterFixture {
    // In the order of their drop: nodes hold mounts of the store.
    pub(crate) cluster: Cluster,
    folder: TempDir,
    image: String,
}

impl ClusterFixture {
    /// With a node for each of these containerds.
    pub(crate) fn start(versions: &[ContainerdVersion]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("uimgacc-system-")
            .tempdir()
            .unwrap();
        std::fs::create_dir(folder.path().join("store")).unwrap();
        let cluster = Cluster::start(&Options::with_nodes(versions));
        let image = cluster.registry().reference("uimgacc:test");
        run(Command::new(parts::program("skopeo"))
            .args(["--insecure-policy", "copy", "--quiet", "--all"])
            .arg("--dest-tls-verify=false")
            .arg(format!("oci:{}", parts::our_image().display()))
            .arg(format!("docker://{image}")));
        Self {
            cluster,
            folder,
            image,
        }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The reference of our own image.
    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    /// The command against this cluster, to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = programs::uimgacc(arguments);
        command.env("KUBECONFIG", self.cluster.kubeconfig());
        command
    }

    /// The command against this cluster.
    pub(crate) fn uimgacc(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        output.expect("the command starts")
    }

    /// Standard output of a command that must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.uimgacc(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{}{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.dump()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Standard error of a command that must fail with `code`.
    pub(crate) fn failed(&self, arguments: &[&str], code: i32) -> String {
        let output = self.uimgacc(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}\n{}{text}\n{}",
            String::from_utf8_lossy(&output.stdout),
            self.dump()
        );
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    /// Waits until `holds` says so.
    pub(crate) fn wait_until(&self, what: &str, within: Duration, holds: impl FnMut() -> bool) {
        wait_until(what, within, holds, || self.dump());
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Who has what mounted, as the store has it.
    fn leases(&self) -> String {
        let folder = std::fs::read_dir(self.store().join("leases"));
        let files = folder.into_iter().flatten().flatten();
        let tell = |file: std::fs::DirEntry| {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            format!("--- {}\n{text}", file.path().display())
        };
        files.map(tell).collect::<Vec<_>>().join("\n")
    }

    /// Leases that Jobs of this cluster wrote for its nodes.
    pub(crate) fn leases_of_nodes(&self) -> Vec<String> {
        let namespace = self.cluster.get(&["namespace", "kube-system"]);
        let uid = namespace["metadata"]["uid"].as_str().unwrap().to_owned();
        let entries = std::fs::read_dir(self.store().join("leases")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.starts_with(&format!("cluster-{uid}-")))
            .collect()
    }

    /// What is going on in our parts, for the message of a failure.
    pub(crate) fn dump(&self) -> String {
        let kubectl = |arguments: &[&str]| {
            let output = self.cluster.kubectl(arguments);
            format!(
                "--- kubectl {}\n{}{}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        };
        [
            kubectl(&["get", "pods,jobs,nodes", "-A", "-o", "wide"]),
            kubectl(&["get", "events", "-A", "--sort-by=.lastTimestamp"]),
            kubectl(&[
                "logs",
                "-n",
                "kube-system",
                "-l",
                "app.kubernetes.io/part-of=uimgacc",
                "--tail=60",
                "--prefix",
            ]),
            kubectl(&[
                "get",
                "acceleratedimages,accelerationnodes,imageaccelerations",
                "-o",
                "yaml",
            ]),
            self.leases(),
        ]
        .join("\n")
    }

    /// Enables acceleration on a store in a folder, with further arguments, and waits for it.
    pub(crate) fn enable(&self, more: &[&str]) -> Duration {
        let store = self.store();
        let restart = self
            .cluster
            .node(0)
            .restart_containerd_command()
            .to_str()
            .unwrap();
        let registry = self.cluster.registry().address();
        let mut arguments = vec![
            "enable",
            "--host-path",
            store.to_str().unwrap(),
            "--image",
            &self.image,
            "--plain-http-registry",
            &registry,
            "--containerd-restart",
            restart,
            "--timeout",
            "120",
        ];
        arguments.extend(more);
        let started = Instant::now();
        self.ok(&arguments);
        started.elapsed()
    }

    pub(crate) fn reference(&self, name: &str) -> String {
        self.cluster.registry().reference(name)
    }

    /// `create` and wait.
    pub(crate) fn create(&self, original: &str, target: &str) -> String {
        self.ok(&[
            "create",
            &self.reference(original),
            &self.reference(target),
            "--wait",
        ])
    }

    /// Bytes of all files of the store.
    pub(crate) fn store_bytes(&self) -> u64 {
        let output = run(Command::new("du").arg("-sB1").arg(self.store()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The store's own check, which must find nothing.
    pub(crate) fn assert_clean(&self) {
        let store = self.store();
        let store = store.to_str().unwrap();
        self.ok(&["store", "verify", "--store", store]);
    }

    /// Whether any layer of that image was sent to a node since the registry's log had this length.
    pub(crate) fn layers_sent(&self, image: &image::Pushed, since: usize) -> bool {
        let log = self.cluster.registry().log();
        let new = log.get(since..).unwrap_or_default();
        new.lines()
            .filter(|line| line.contains("\"GET ") && line.contains("containerd"))
            .any(|line| {
                image
                    .layers
                    .iter()
                    .any(|layer| line.contains(&layer.digest))
            })
    }

    pub(crate) fn labels(&self, node: &str) -> Vec<String> {
        let node = self.cluster.get(&["node", node]);
        LABELS
            .iter()
            .filter(|label| node["metadata"]["labels"][**label] == "true")
            .map(|label| (*label).to_owned())
            .collect()
    }
}

/// An image of three layers with a program and some megabytes that do not compress.
pub(crate) fn app(fixture: &ClusterFixture, name: &str, seed: u32) -> image::Pushed {
    app_in(fixture.cluster.registry(), name, seed)
}

/// The same in another registry.
pub(crate) fn app_in(registry: &Registry, name: &str, seed: u32) -> image::Pushed {
    app_of(registry, name, seed, 1_500_000)
}

/// The same with so many bytes in each layer.
pub(crate) fn app_of(registry: &Registry, name: &str, seed: u32, bytes: u32) -> image::Pushed {
    layers(name, seed, bytes).push(registry, name)
}

/// An image with all layers of the [`app`] `base`, and one more.
pub(crate) fn derived(
    fixture: &ClusterFixture,
    name: &str,
    base: &str,
    seed: u32,
) -> image::Pushed {
    let tar = TarBuilder::new().file("data/derived", 0o644, format!("{name}\n"));
    let image = layers(base, seed, 1_500_000).layer(tar.finish(), Compression::Gzip);
    image.push(fixture.cluster.registry(), name)
}

fn layers(name: &str, seed: u32, bytes: u32) -> ImageBuilder {
    let noise = |number: u32| -> Vec<u8> {
        (0..bytes)
            .map(|at| {
                (at ^ (number << 20) ^ (seed << 12))
                    .wrapping_mul(2_654_435_761)
                    .to_be_bytes()[0]
            })
            .collect()
    };
    (0..3)
        .fold(
            ImageBuilder::new().layer(busybox_layer(), Compression::Gzip),
            |image, number| {
                let tar = TarBuilder::new()
                    .file(&format!("data/noise-{number}"), 0o644, noise(number))
                    .file(&format!("data/name-{number}"), 0o644, format!("{name}\n"));
                image.layer(tar.finish(), Compression::Gzip)
            },
        )
        .cmd(&["/bin/busybox", "cat", "/data/name-2"])
}

/// A Pod as the guide has it: with the affinity to nodes that can run accelerated images.
pub(crate) fn pod(
    name: &str,
    image: &str,
    label: Option<&str>,
    node: Option<&str>,
    script: &str,
) -> String {
    let affinity = label.map_or(String::new(), |label| {
        format!(
            "
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions: [{{key: {label}, operator: In, values: ['true']}}]"
        )
    });
    let node = node.map_or(String::new(), |node| {
        format!("\n  nodeSelector: {{kubernetes.io/hostname: {node}}}")
    });
    // containerd 1.7 may lose what a container wrote that ends at once ("reading from a closed fifo").
    let script = Value::from(format!("{script}\nstatus=$?; sleep 1; exit $status"));
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0{affinity}{node}
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Always
    command: [/bin/sh, -c, {script}]
"
    )
}

/// Waits until a Pod has succeeded, and returns what it said.
pub(crate) fn succeeded(fixture: &ClusterFixture, name: &str) -> String {
    let target = format!("pod/{name}");
    fixture
        .cluster
        .wait("jsonpath={.status.phase}=Succeeded", &[&target], MINUTE);
    fixture.cluster.kubectl_ok(&["logs", name])
}

/// The whole content of a file, where there is one.
pub(crate) fn file(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}
