//! The commands of the other pages, in one session, with the names that they have in the playground.
//!
//! Every block of commands is run here or by the quick start, or a test is named that does the same, or why nobody does.

use uimgacc_guide::{Block, Page, pages, readmes, root};

use super::playground::{Playground, Step, ready};

/// What the pages call it, and what it is here.
const NAMES: [(&str, &str); 15] = [
    (
        "uimgacc enable --nfs 10.0.0.1:/export",
        r#"uimgacc enable --host-path "$STORE" --image "$OUR_IMAGE" --plain-http-registry "$REGISTRY" --containerd-restart "$CONTAINERD_RESTART""#,
    ),
    (
        "uimgacc create nginx registry.local/nginx:fast",
        r#"uimgacc create "$REGISTRY/pandas:1" "$REGISTRY/pandas:local" --plain-http"#,
    ),
    ("/srv/uimgacc", "local"),
    ("UIMGACC_STORE=/mnt/shared/uimgacc", "UIMGACC_STORE=new"),
    (
        "uimgacc store init\nuimgacc create ",
        "uimgacc store init\nuimgacc create --plain-http ",
    ),
    ("/etc/uimgacc/keys", "keys"),
    // The page says where it is to be run.
    (
        "uimgacc node check --store /mnt/shared/uimgacc    # on a node",
        ":",
    ),
    ("/mnt/shared/uimgacc", "$STORE"),
    ("10.0.0.5:5000", "$REGISTRY"),
    ("pytorch/pytorch:latest", "$REGISTRY/pandas:1"),
    ("registry.example.com/pytorch:2", "$REGISTRY/pandas:1"),
    ("registry.example.com/pytorch", "$REGISTRY/pandas"),
    ("team.example.com/big", "$REGISTRY/pandas"),
    (
        "registry.example.com/accelerated,team.example.com",
        "$REGISTRY",
    ),
    ("registry.example.com", "$REGISTRY"),
];

/// A step of the session.
enum Part {
    /// A block of a page, by its first line.
    Of(&'static str, &'static str),
    /// What the page takes for granted.
    Given(&'static str),
}
use Part::{Given, Of};

const ENABLE: &str = r#"uimgacc enable --host-path "$STORE" --image "$OUR_IMAGE" --containerd-restart "$CONTAINERD_RESTART""#;

const SESSION: [Part; 27] = [
    Given(r#"scripts/playground.sh up && eval "$(scripts/playground.sh env)" && cd "$WORK""#),
    Of("enable.md", "uimgacc check --pre "),
    // The same verbs once more, by the page that people see first.
    Of("README.md", "uimgacc enable --nfs 10.0.0.1:/export"),
    Given(ENABLE),
    Given("printf 'geheim\n' > password.txt"),
    Of(
        "private-registries.md",
        "uimgacc enable --registry registry.example.com ",
    ),
    Given(
        r#"printf '{"auths": {"%s": {"username": "me", "password": "geheim"}}}' "$REGISTRY" > config.json"#,
    ),
    Of(
        "private-registries.md",
        "kubectl -n kube-system create secret",
    ),
    Of(
        "private-registries.md",
        "uimgacc enable --plain-http-registry",
    ),
    Given(
        "kubectl -n kube-system create secret generic team-registry --type=kubernetes.io/dockerconfigjson --from-file=.dockerconfigjson=config.json",
    ),
    Of("private-registries.md", "kubectl label secret"),
    Of("private-registries.md", "uimgacc enable --allow-target"),
    Of("upgrade.md", "uimgacc enable"),
    Given(r#"uimgacc create "$REGISTRY/pandas:1" "$REGISTRY/pandas:fast""#),
    Of("delete.md", "uimgacc get -o json"),
    Of("delete.md", "uimgacc delete registry.example.com"),
    Of("delete.md", "uimgacc store gc "),
    Of(
        "storage.md",
        "uimgacc store stat --store /mnt/shared/uimgacc",
    ),
    Of("troubleshooting.md", "uimgacc check\n"),
    Of("storage.md", "uimgacc store init --store /srv/uimgacc"),
    Of("README.md", "export UIMGACC_STORE="),
    Given("mkdir keys"),
    Of("api.md", "openssl rand"),
    Of("delete.md", "uimgacc disable\n"),
    // Purging needs the agent.
    Given(ENABLE),
    Of("delete.md", "uimgacc disable --purge"),
    Given("cd - && scripts/playground.sh down"),
];

/// Who does what a block has that needs another machine than the playground.
enum By {
    /// A test: a file of it, and what stands there.
    Test(&'static str, &'static str),
    /// Nobody.
    Nobody { because: &'static str },
}
use By::{Nobody, Test};

const PACKAGES: &str = "tests/packages/node.rs";
const LIFE: &str = "tests/packages/life.rs";
const CONFIG: &str = "crates/cli/tests/remote/config.rs";
const SDK: &str = "crates/testkit/src/ucloud_sdk.rs";
const PLAYGROUND: &str = "crates/playground/src/main.rs";

const ELSEWHERE: [(&str, &str, By); 29] = [
    (
        "README.md",
        "scripts/demo.sh",
        Nobody {
            because: "one measures and shows, the other one runs this test",
        },
    ),
    (
        "README.md",
        "uimgacc node install",
        Test(PACKAGES, "uimgacc node install"),
    ),
    (
        "README.md",
        "ctr images pull",
        Test("tests/e2e/run.rs", "\"--snapshotter\""),
    ),
    (
        "README.md",
        "uimgacc mount",
        Test("tests/e2e/mounting.rs", "--read-write"),
    ),
    (
        "api.md",
        "uimgacc config init",
        Test(CONFIG, r#"["config", "init"]"#),
    ),
    (
        "api.md",
        "uimgacc config show",
        Test(CONFIG, r#"["config", "show"]"#),
    ),
    ("api.md", "pip install", Test(SDK, "import")),
    (
        "api.md",
        "uimgacc-api check-config",
        Test("crates/server/tests/real/configuration.rs", "check-config"),
    ),
    (
        "api.md",
        "systemctl enable",
        Test(LIFE, "systemctl start {API}"),
    ),
    (
        "api.md",
        "cp -r deploy/examples/api",
        Test("tests/system/api.rs", "deploy/examples/api"),
    ),
    (
        "enable.md",
        "kubectl apply --server-side",
        Test("tests/cluster/manifests.rs", "/examples/nfs"),
    ),
    (
        "node.md",
        "uimgacc node install --store /mnt/shared/uimgacc --dry-run",
        Test(PACKAGES, "uimgacc node install"),
    ),
    (
        "node.md",
        "uimgacc node check",
        Test("crates/snapshotter/tests/real/status.rs", "\"/status\""),
    ),
    (
        "node.md",
        "uimgacc node install --store …",
        Test("crates/node/src/config/tests.rs", "/var/lib/rancher/k3s"),
    ),
    (
        "packages.md",
        "apt install",
        Test(PACKAGES, "dpkg --install"),
    ),
    ("packages.md", "skopeo copy", Test(PLAYGROUND, "skopeo")),
    (
        "packages.md",
        "scripts/release.sh",
        Nobody {
            because: "it takes over an hour",
        },
    ),
    (
        "private-registries.md",
        "docker login",
        Test("crates/registry/tests/registry/login.rs", "config.json"),
    ),
    (
        "snapshotter.md",
        "uimgacc-snapshotter --config",
        Test("crates/snapshotter/tests/check_config.rs", "check-config"),
    ),
    (
        "snapshotter.md",
        "curl --unix-socket",
        Test("crates/snapshotter/tests/real/status.rs", "\"/status\""),
    ),
    (
        "storage.md",
        "uimgacc enable --nfs 10.0.0.1:/export",
        Test("tests/system/failures.rs", "\"--nfs\""),
    ),
    (
        "storage.md",
        "uimgacc enable --nfs 10.9.0.1",
        Test("tests/cluster/manifests.rs", "nfs://10.0.0.1"),
    ),
    (
        "read-ahead.md",
        "uimgacc create pytorch",
        Test("tests/e2e/profiles.rs", "\"--profile\", \"\""),
    ),
    (
        "read-ahead.md",
        "uimgacc get registry",
        Test("tests/system/starts.rs", "\"accelerationnode\""),
    ),
    (
        "read-ahead.md",
        "uimgacc profile record",
        Test("tests/e2e/profiles.rs", "profile(&fixture, \"drop\""),
    ),
    (
        "storage.md",
        "uimgacc enable --host-path",
        Test("docs/en/quick-start.md", "uimgacc enable --host-path"),
    ),
    (
        "storage.md",
        "uimgacc store lease list",
        Test("tests/e2e/strays.rs", "\"store\", \"lease\", \"drop\""),
    ),
    (
        "storage.md",
        "kubectl -n kube-system get pvc",
        Test("tests/cluster/check.rs", "--pvc"),
    ),
    (
        "upgrade.md",
        "uimgacc node install",
        Test(PACKAGES, "uimgacc node install"),
    ),
];

fn all_pages() -> Vec<Page> {
    let mut all = pages("en").unwrap();
    all.extend(
        readmes()
            .unwrap()
            .into_iter()
            .filter(|page| page.name() == "README.md"),
    );
    all
}

fn commands(page: &Page) -> impl Iterator<Item = &Block> {
    page.blocks.iter().filter(|block| block.language == "sh")
}

fn block<'p>(pages: &'p [Page], name: &str, first: &str) -> &'p Block {
    let page = pages.iter().find(|page| page.name() == name).unwrap();
    let mut found = commands(page).filter(|block| block.text.starts_with(first));
    let block = found
        .next()
        .unwrap_or_else(|| panic!("{name} has no block that begins with {first:?}"));
    assert!(
        found.next().is_none(),
        "{name} has several blocks that begin with {first:?}"
    );
    block
}

#[test]
fn each_block_is_run_somewhere() {
    let pages = all_pages();
    let mut run: Vec<&Block> = SESSION
        .iter()
        .filter_map(|part| match part {
            Of(page, first) => Some(block(&pages, page, first)),
            Given(_) => None,
        })
        .collect();
    run.extend(
        ELSEWHERE
            .iter()
            .map(|(page, first, _)| block(&pages, page, first)),
    );
    for (page, first, by) in &ELSEWHERE {
        match by {
            Test(file, needle) => {
                let text = std::fs::read_to_string(root().join(file)).unwrap();
                assert!(
                    text.contains(needle),
                    "{page}, {first}: {needle} is not in {file}"
                );
            }
            Nobody { because } => println!("{page}, {first}: run by nobody, {because}"),
        }
    }
    let missing: Vec<String> = pages
        .iter()
        .filter(|page| page.name() != "quick-start.md")
        .flat_map(|page| commands(page).map(move |block| (page, block)))
        .filter(|(_, block)| !run.contains(block))
        .map(|(page, block)| format!("{}:{}: {}", page.name(), block.line, block.text))
        .collect();
    assert!(missing.is_empty(), "nobody runs\n{}", missing.join("\n"));
}

#[test]
fn the_pages_commands_run_in_one_session() {
    if !ready() {
        return;
    }
    let pages = all_pages();
    let playground = Playground::new();
    let mut steps = vec![Step {
        name: "the folder".to_owned(),
        script: format!("WORK={}", playground.work().display()),
    }];
    steps.extend(SESSION.iter().map(|part| match part {
        Given(script) => Step {
            name: format!("{script:?}"),
            script: (*script).to_owned(),
        },
        Of(page, first) => {
            let block = block(&pages, page, first);
            let mut script = block.text.clone();
            for (theirs, ours) in NAMES {
                script = script.replace(theirs, ours);
            }
            Step {
                name: format!("{page}:{}", block.line),
                // What it exports is its own.
                script: format!("(\n{script})"),
            }
        }
    }));
    let told = playground.run(&steps);
    assert_eq!(told.len(), SESSION.len() + 1);
    assert!(!playground.folder().exists());
}
