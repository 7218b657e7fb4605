//! The commands of the other pages, in one session, with the names that they have in the playground.
//!
//! Every block of commands is run here or by the quick start, or another test is named that does the same.

use uimgacc_guide::{Block, Page, pages, readmes};

use super::playground::{Playground, Step, ready};

/// What the pages call it, and what it is here.
const NAMES: [(&str, &str); 11] = [
    (
        "uimgacc enable --nfs 10.0.0.1:/export",
        r#"uimgacc enable --host-path "$STORE" --image "$OUR_IMAGE" --plain-http-registry "$REGISTRY" --containerd-restart "$CONTAINERD_RESTART""#,
    ),
    (
        "uimgacc create nginx registry.local/nginx:fast",
        r#"uimgacc create "$REGISTRY/pandas:1" "$REGISTRY/pandas:local" --plain-http"#,
    ),
    ("/srv/uimgacc", "local"),
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

const SESSION: [Part; 23] = [
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
    Of("private-registries.md", "uimgacc create team.example.com"),
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
    Of("delete.md", "uimgacc disable\n"),
    // Purging needs the agent.
    Given(ENABLE),
    Of("delete.md", "uimgacc disable --purge"),
    Given("cd - && scripts/playground.sh down"),
];

/// Blocks that need another machine than the playground, and who runs what they have.
const ELSEWHERE: [(&str, &str, &str); 27] = [
    ("README.md", "scripts/demo.sh", "CI runs both"),
    ("README.md", "export UIMGACC_STORE=", "cli: tests/e2e"),
    ("README.md", "uimgacc node install", "cli: tests/packages"),
    ("README.md", "ctr images pull", "cli: tests/e2e"),
    ("README.md", "uimgacc mount", "cli: tests/e2e"),
    ("api.md", "uimgacc config init", "cli: tests/remote"),
    ("api.md", "uimgacc config show", "cli: tests/remote"),
    ("api.md", "pip install", "scripts/parts.sh"),
    ("api.md", "uimgacc-api check-config", "server: tests/real"),
    ("api.md", "openssl rand", "server: tests/real"),
    ("api.md", "systemctl enable", "cli: tests/packages"),
    ("api.md", "cp -r deploy/examples/api", "cli: tests/system"),
    (
        "enable.md",
        "kubectl apply --server-side",
        "cli: tests/cluster",
    ),
    (
        "node.md",
        "uimgacc node install --store /mnt/shared/uimgacc --dry-run",
        "cli: tests/packages",
    ),
    ("node.md", "uimgacc node check", "cli: tests/packages"),
    (
        "node.md",
        "uimgacc node install --store …",
        "node: src/config/tests.rs",
    ),
    ("packages.md", "apt install", "cli: tests/packages"),
    ("packages.md", "skopeo copy", "testkit: the playground"),
    ("packages.md", "scripts/release.sh", "by hand: over an hour"),
    (
        "private-registries.md",
        "docker login",
        "registry: tests/registry",
    ),
    (
        "snapshotter.md",
        "uimgacc-snapshotter --config",
        "snapshotter: tests",
    ),
    ("snapshotter.md", "curl --unix-socket", "snapshotter: tests"),
    (
        "storage.md",
        "uimgacc enable --nfs 10.0.0.1:/export",
        "cli: tests/cluster and tests/nfs",
    ),
    (
        "storage.md",
        "uimgacc enable --nfs 10.9.0.1",
        "cli: tests/cluster and tests/nfs",
    ),
    (
        "storage.md",
        "uimgacc enable --host-path",
        "the quick start",
    ),
    (
        "storage.md",
        "kubectl -n kube-system get pvc",
        "cli: tests/cluster",
    ),
    ("upgrade.md", "uimgacc node install", "cli: tests/packages"),
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
        expected: Vec::new(),
    }];
    steps.extend(SESSION.iter().map(|part| match part {
        Given(script) => Step {
            name: format!("{script:?}"),
            script: (*script).to_owned(),
            expected: Vec::new(),
        },
        Of(page, first) => {
            let block = block(&pages, page, first);
            let mut script = block.text.clone();
            for (theirs, ours) in NAMES {
                script = script.replace(theirs, ours);
            }
            Step {
                name: format!("{page}:{}", block.line),
                script,
                expected: Vec::new(),
            }
        }
    }));
    let told = playground.run(&steps);
    assert_eq!(told.len(), SESSION.len() + 1);
    assert!(!playground.folder().exists());
}
