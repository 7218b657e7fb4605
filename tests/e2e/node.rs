//! `uimgacc node`, as far as it changes nothing; crates/node tests the rest with real services.

use std::fs;

use serde_json::Value;
use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};

use crate::support::{failed, ok, ready, uimgacc};

#[test]
fn a_dry_run_shows_the_difference_and_check_what_is_missing() {
    if !ready() {
        return;
    }
    for version in ContainerdVersion::ALL {
        let containerd = Containerd::start(version, &Options::default());
        let at = |name: &str| containerd.dir().join(name).display().to_string();
        let (config, socket) = (at("config.toml"), containerd.socket());
        let (root, run) = (at("snapshots"), at("run"));
        let before = fs::read(&config).unwrap();
        let binary = version.bin().join("containerd").display().to_string();
        let socket = socket.display().to_string();
        let places = [
            "--config",
            &config,
            "--containerd",
            &binary,
            "--containerd-socket",
            &socket,
            "--root",
            &root,
            "--run-dir",
            &run,
        ];
        let state = at("state/node.json");
        let store = ["--store", "/nowhere"];

        let words = ["node", "install", "--dry-run", "--state", &state];
        let diff = ok(&uimgacc(&[&words[..], &places, &store].concat()));
        assert!(diff.contains("\n+[proxy_plugins.uimgacc]\n"), "{diff}");
        assert!(diff.contains("-  snapshotter = \"overlayfs\"\n"), "{diff}");

        let words = ["node", "check", "-o", "json"];
        let output = uimgacc(&[&words[..], &places, &store].concat());
        let said = failed(&output, 1);
        assert!(said.contains("do not run on this node"), "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let level = |id: &str| {
            let found = findings.iter().find(|finding| finding["id"] == id);
            found.map(|finding| finding["level"].as_str().unwrap().to_owned())
        };
        assert_eq!(level("containerd-version").as_deref(), Some("ok"));
        assert_eq!(level("containerd-running").as_deref(), Some("ok"));
        assert_eq!(level("proxy-plugin").as_deref(), Some("fail"));
        assert_eq!(level("store").as_deref(), Some("fail"));

        let words = ["node", "uninstall", "--state", &state];
        let output = uimgacc(&[&words[..], &places].concat());
        ok(&output);
        assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was installed"));
        assert_eq!(fs::read(&config).unwrap(), before);
    }
}
