//! A real Kubernetes cluster: Pods, logs, the API from within, a privileged Pod on the node, restarts, and nothing left behind.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests; the times are told"
)]

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use uimgacc_testkit::cluster::{Cluster, Component, Node, Options, Service};
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::image::Compression;
use uimgacc_testkit::process::run;
use uimgacc_testkit::tar::TarBuilder;
use uimgacc_testkit::{Need, Registry, image, parts, ready};

const NEEDS: [Need; 3] = [Need::Root, Need::Parts, Need::Kubernetes];
const MINUTE: Duration = Duration::from_secs(60);

/// A Pod of one container that runs a shell script.
fn pod(name: &str, image: &str, script: &str, spec: &str, container: &str) -> String {
    let script = serde_json::Value::from(script);
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
{spec}
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Always
    command: [/bin/sh, -c, {script}]
{container}
"
    )
}

const ON_HOST: &str = "  hostPID: true
  hostNetwork: true
  volumes: [{name: host, hostPath: {path: /}}]";
const PRIVILEGED: &str = "    securityContext: {privileged: true}
    volumeMounts: [{name: host, mountPath: /host, mountPropagation: Bidirectional}]";

#[test]
fn pods_run_and_nothing_is_left_behind() {
    if !ready(&NEEDS) {
        return;
    }
    let sysctls = sysctls();
    let began = Instant::now();
    let cluster = Cluster::start(&Options::default());
    println!("Ready after {:?}", began.elapsed());
    let app = image::busybox().push(cluster.registry(), "app:1").reference;

    let began = Instant::now();
    cluster.apply(&pod("once", &app, "echo hello; true", "", ""));
    assert_eq!(cluster.finished("once", MINUTE), "hello\n");
    println!("a Pod completed after {:?}", began.elapsed());

    in_cluster_api(&cluster);
    privileged_pod(&cluster, &app);
    daemon_of_a_pod(&cluster, &app);
    containerd_restart(&cluster, &app);
    loopback_registry(&cluster);

    let cgroups = cgroups(&cluster.address().to_string());
    assert!(
        cgroups.contains("/k8s.io/"),
        "the containers' too: {cgroups}"
    );
    let footprint = Footprint {
        dir: cluster.dir().to_owned(),
        address: cluster.address().to_string(),
        sysctls,
    };
    let began = Instant::now();
    drop(cluster);
    println!("gone after {:?}", began.elapsed());
    nothing_left(&footprint);
}

/// busybox and kubectl, which takes address, certificate and token from its Pod, as every client in a cluster does.
fn kubectl_image(cluster: &Cluster) -> String {
    let kubectl = fs::read(parts::dir().join("kubernetes/bin/kubectl")).unwrap();
    let layer = TarBuilder::new().file("bin/kubectl", 0o755, kubectl);
    let image = image::busybox().layer(layer.finish(), Compression::None);
    image.push(cluster.registry(), "kubectl:1").reference
}

fn in_cluster_api(cluster: &Cluster) {
    let kubectl = kubectl_image(cluster);
    cluster.kubectl_ok(&["create", "serviceaccount", "reader"]);
    let script = "set -e; echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT
kubectl get --raw /version; kubectl auth whoami -o jsonpath='{.status.userInfo.username}'";
    cluster.apply(&pod(
        "api",
        &kubectl,
        script,
        "  serviceAccountName: reader",
        "",
    ));
    let said = cluster.finished("api", MINUTE);
    assert!(
        said.starts_with(&format!("{}:443\n", cluster.address())),
        "{said}"
    );
    assert!(said.contains("\"gitVersion\": \"v1."), "{said}");
    assert!(
        said.ends_with("system:serviceaccount:default:reader"),
        "{said}"
    );
    let pod = cluster.get(&["pod", "api"]);
    assert_ne!(pod["status"]["podIP"], pod["status"]["hostIP"]);
}

/// A Pod that works on the node itself: changes its files, mounts something there, sees its processes.
fn privileged_pod(cluster: &Cluster, app: &str) {
    let node = cluster.node(0);
    let script = "set -e; mkdir /host/run/from-pod
chroot /host mount -t tmpfs from-pod /run/from-pod
chroot /host cat /proc/1/cmdline | grep -q init.sh
chroot /host hostname
echo changed >/host/etc/from-pod";
    cluster.apply(&pod("host", app, script, ON_HOST, PRIVILEGED));
    assert_eq!(
        cluster.finished("host", MINUTE),
        format!("{}\n", node.name())
    );
    assert!(
        node.mounts().contains(" /run/from-pod "),
        "the mount reached the node"
    );
    assert_eq!(
        fs::read_to_string(node.path("/etc/from-pod")).unwrap(),
        "changed\n"
    );
    assert!(
        !fs::exists("/etc/from-pod").unwrap(),
        "the machine's /etc is as it was"
    );
    node.run(&["umount", "/run/from-pod"]);
}

/// A daemon that a Pod leaves on the node: in the namespaces and cgroups of process 1, it outlives the Pod.
fn daemon_of_a_pod(cluster: &Cluster, app: &str) {
    let node = cluster.node(0);
    // `$$` would be a dollar for Kubernetes.
    let inner = "while IFS=: read -r _ names path; do
  for group in /sys/fs/cgroup/${names#name=}$path /sys/fs/cgroup/unified$path; do
    [ ! -e $group/cgroup.procs ] || sh -c 'echo $PPID' >$group/cgroup.procs
  done
done </proc/1/cgroup
setsid sleep 86399 >/dev/null 2>&1 </dev/null &";
    let script = format!(
        "cat >/host/run/daemon <<'END'\n{inner}\nEND\nset -e; chroot /host /usr/bin/nsenter -t 1 -m -C -n sh /run/daemon"
    );
    cluster.apply(&pod("daemon", app, &script, ON_HOST, PRIVILEGED));
    assert_eq!(cluster.finished("daemon", MINUTE), "");
    cluster.kubectl_ok(&["delete", "pod", "daemon"]);
    let processes = node.run(&["ps", "ax", "-o", "args"]);
    assert!(processes.contains("sleep 86399"), "{processes}");
}

/// The command on the node restarts containerd for a Pod that has changed its root; a Pod that runs goes on.
fn containerd_restart(cluster: &Cluster, app: &str) {
    let node = cluster.node(0);
    cluster.apply(&pod(
        "stays",
        app,
        "while :; do date +%s; sleep 1; done",
        "",
        "",
    ));
    cluster.wait("condition=Ready", &["pod/stays"], MINUTE);
    let process = || cluster.get(&["pod", "stays"])["status"]["containerStatuses"].clone();
    let (was, before) = (process(), node.pid(Service::Containerd).unwrap());
    let script = format!(
        "chroot /host {}",
        node.restart_containerd_command().display()
    );
    cluster.apply(&pod("restarts", app, &script, ON_HOST, PRIVILEGED));
    assert_eq!(cluster.finished("restarts", MINUTE), "");
    let after = node.pid(Service::Containerd).unwrap();
    assert_ne!(before, after, "containerd was restarted");

    // A configuration that containerd refuses: the restart says so, and the next one works.
    let good = fs::read(node.containerd_config()).unwrap();
    fs::write(node.containerd_config(), "version = [").unwrap();
    let output = node.try_restart(Service::Containerd);
    assert!(!output.status.success());
    fs::write(node.containerd_config(), good).unwrap();
    node.restart(Service::Containerd);

    for service in [Service::Kubelet, Service::Containerd] {
        node.kill9(service);
        node.start(service);
    }
    cluster.kill9(Component::ApiServer);
    cluster.start_component(Component::ApiServer);
    cluster.wait_node(node.name());
    let said = cluster.kubectl_ok(&["exec", "stays", "--", "/bin/echo", "still here"]);
    assert_eq!(said, "still here\n");
    let now = process();
    assert_eq!(now[0]["containerID"], was[0]["containerID"]);
    assert_eq!(now[0]["restartCount"], 0);
    assert!(now[0]["state"]["running"].is_object(), "{now}");
}

/// A registry of the machine's loopback, which the node's network does not share.
fn loopback_registry(cluster: &Cluster) {
    let registry = Registry::start();
    cluster.trust(&registry);
    let app = image::busybox().push(&registry, "loopback:1").reference;
    cluster.apply(&pod("loopback", &app, "echo pulled", "", ""));
    assert_eq!(cluster.finished("loopback", MINUTE), "pulled\n");
}

fn nothing_left(cluster: &Footprint) {
    let dir = cluster.dir.display().to_string();
    assert!(!cluster.dir.exists(), "{dir}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&dir), "{mounts}");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        assert!(!words.contains(&dir), "{:?}: {words}", entry.path());
    }
    let links = run(Command::new("ip").args(["-oneline", "address", "show"])).stdout;
    let links = String::from_utf8(links).unwrap();
    assert!(
        !links.contains(&format!(" {}/", cluster.address)),
        "{links}"
    );
    assert_eq!(cluster.sysctls, sysctls());
    // The bridge is named by the second and third part of the address.
    let part: Vec<&str> = cluster.address.split('.').collect();
    let name = format!("uig{}x{}", part[1], part[2]);
    let links = run(Command::new("ip").args(["-oneline", "link", "show"])).stdout;
    assert!(!String::from_utf8(links).unwrap().contains(&name));
    assert_eq!(cgroups(&cluster.address), "");
}

/// The cgroups of a cluster's nodes, one a line. They are named by the second and third part of its address.
fn cgroups(address: &str) -> String {
    let part: Vec<&str> = address.split('.').collect();
    let name = format!("*/uig{}x{}*", part[1], part[2]);
    let found = run(Command::new("find").args([
        "/sys/fs/cgroup",
        "-ignore_readdir_race",
        "-type",
        "d",
        "-path",
        &name,
    ]));
    String::from_utf8(found.stdout).unwrap()
}

/// What must be as before, or gone, after a cluster.
struct Footprint {
    dir: PathBuf,
    address: String,
    sysctls: Vec<String>,
}

fn sysctls() -> Vec<String> {
    let names = [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
        "net/ipv4/ip_forward",
    ];
    names
        .iter()
        .map(|name| fs::read_to_string(format!("/proc/sys/{name}")).unwrap())
        .collect()
}

#[test]
fn nodes_of_all_versions_reach_each_other() {
    if !ready(&NEEDS) {
        return;
    }
    let began = Instant::now();
    let versions = [
        (ContainerdVersion::V1_6, "containerd://1.6"),
        (ContainerdVersion::V1_7, "containerd://1.7"),
        (ContainerdVersion::V2_1, "containerd://2.1"),
        (ContainerdVersion::V2_4, "containerd://2.4"),
    ];
    let cluster = Cluster::start(&Options::with_nodes(&versions.map(|(one, _)| one)).services());
    println!("four nodes Ready after {:?}", began.elapsed());
    let app = image::busybox().push(cluster.registry(), "app:1").reference;
    let on = |node: &Node| format!("  nodeName: {}", node.name());

    // A server on one node, by the Pod's address, the Service's and the node's.
    let serve = "while :; do echo served | busybox nc -l -p 8080; done";
    let port = "    ports: [{containerPort: 8080, hostPort: 18080}]";
    cluster.apply(&pod("server", &app, serve, &on(cluster.node(0)), port));
    cluster.wait("condition=Ready", &["pod/server"], MINUTE);
    cluster.kubectl_ok(&["expose", "pod", "server", "--port=80", "--target-port=8080"]);
    let address = cluster.get(&["pod", "server"])["status"]["podIP"].clone();
    let address = address.as_str().unwrap();
    cluster.wait_until("the machine reaches a hostPort", MINUTE, || {
        hears(&format!("{}:18080", cluster.node(0).address()), "served\n")
    });
    cluster.wait_until("the machine reaches a Pod", MINUTE, || {
        hears(&format!("{address}:8080"), "served\n")
    });
    for (node, (_, version)) in cluster.nodes().iter().zip(versions) {
        // Nothing may need more than the restart of containerd.
        node.run(&[node.restart_containerd_command().to_str().unwrap()]);
        let script = format!(
            "ask() {{ for i in 1 2 3 4 5 6 7 8 9 10; do busybox nc -w 2 $1 $2 </dev/null 2>/dev/null | busybox grep served && return; sleep 1; done; exit 1; }}
ask {address} 8080; ask $SERVER_SERVICE_HOST $SERVER_SERVICE_PORT"
        );
        let name = format!("client-on-{}", node.name());
        cluster.apply(&pod(&name, &app, &script, &on(node), ""));
        assert_eq!(cluster.finished(&name, MINUTE), "served\nserved\n");
        // The kubelet does not know it while containerd restarts.
        cluster.wait_until("the version of containerd", MINUTE, || {
            let info = &cluster.get(&["node", node.name()])["status"]["nodeInfo"];
            let runtime = info["containerRuntimeVersion"].as_str().unwrap();
            runtime.starts_with(version)
        });
    }
}

/// Whether a server at `address` says just that to who connects.
fn hears(address: &str, words: &str) -> bool {
    let mut said = String::new();
    TcpStream::connect(address)
        .and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.read_to_string(&mut said)
        })
        .is_ok()
        && said == words
}

#[test]
fn a_control_plane_alone_serves_objects() {
    if !ready(&NEEDS) {
        return;
    }
    let began = Instant::now();
    let cluster = Cluster::start(&Options::control_plane());
    println!("control plane after {:?}", began.elapsed());
    cluster.kubectl_ok(&["create", "configmap", "a", "--from-literal=b=c"]);
    cluster.kill9(Component::ApiServer);
    cluster.kill9(Component::Etcd);
    assert!(!cluster.kubectl(&["get", "configmap", "a"]).status.success());
    cluster.start_component(Component::Etcd);
    cluster.start_component(Component::ApiServer);
    assert_eq!(cluster.get(&["configmap", "a"])["data"]["b"], "c");
    assert_eq!(cluster.pid(Component::Scheduler), None);
}
