//! The units, as systemd itself reads them.

use std::fs;
use std::process::Command;

use uimgacc_node::{Settings, service_unit, socket_unit};

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let verify = Command::new("systemd-analyze").arg("--version").output();
    if !verify.is_ok_and(|output| output.status.success()) {
        let why = "no systemd-analyze here: install the package systemd";
        assert!(
            std::env::var_os("UIMGACC_CI").is_none_or(|value| value != "1"),
            "this test cannot run, and CI skips none: {why}"
        );
        eprintln!("SKIPPED: {why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new("nfs://10.0.0.1/a b?vers=3&rsize=1048576");
    // It looks for the program, and nobody has installed ours.
    settings.bin_dir = dir.path().to_owned();
    fs::copy("/bin/true", settings.installed_binary()).unwrap();
    let service = dir.path().join("uimgacc-snapshotter.service");
    let socket = dir.path().join("uimgacc-snapshotter.socket");
    fs::write(&service, service_unit(&settings)).unwrap();
    fs::write(&socket, socket_unit(&settings)).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args([&service, &socket])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("uimgacc"), "{said}");
}
