//! The configuration files that the guide shows are taken by the programs that they are for.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use uimgacc_guide::pages;
use uimgacc_testkit::process::run;
use uimgacc_testkit::programs;

/// What the page's files lie below.
const PLACE: &str = "/etc/uimgacc";

/// The page's block of TOML that has this line.
fn block(page: &str, line: &str) -> String {
    let pages = pages("en").unwrap();
    let page = pages.iter().find(|one| one.name() == page).unwrap();
    let found = page
        .blocks
        .iter()
        .find(|block| block.language == "toml" && block.text.contains(line));
    found.unwrap().text.clone()
}

#[test]
fn the_servers() {
    let text = block("api.md", "[[clusters]]");
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    // The files that it names.
    for path in text.split('"').filter(|piece| piece.starts_with(PLACE)) {
        let path = path.replace(PLACE, place);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(path, "a private key or a kubeconfig\n").unwrap();
    }
    let mut openssl = Command::new("openssl");
    openssl.args(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
            .split(' '),
    );
    run(openssl
        .arg("-keyout")
        .arg(folder.path().join("tls.key"))
        .arg("-out")
        .arg(folder.path().join("tls.crt")));
    let config = folder.path().join("api.toml");
    fs::write(&config, text.replace(PLACE, place)).unwrap();
    let mut check = Command::new(programs::program("uimgacc-api"));
    let said = run(check.args(["check-config", "--config"]).arg(&config)).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("2 keys, 2 clusters"), "{said}");
}

#[test]
fn the_commands() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    let text = block("api.md", "base_url");
    fs::write(&config, &text).unwrap();
    let mut show = Command::new(programs::program("uimgacc"));
    let said = run(show.args(["config", "show", "--config"]).arg(&config)).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    for key in text
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key)
    {
        assert!(said.contains(key), "{key}: {said}");
    }
}
