//! `config init` on a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::service::{PRIVATE, PUBLIC};
use crate::support::Home;

/// A terminal with the command at its other end.
struct Terminal {
    ours: File,
    theirs: File,
    child: Child,
    screen: Vec<u8>,
}

impl Terminal {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let end = || Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()));
        let mut command = home.command(arguments);
        let child = command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        Self {
            ours: File::from(ours),
            theirs,
            child,
            screen: Vec::new(),
        }
    }

    fn shown(&mut self) -> String {
        let mut bytes = [0; 4096];
        while let Ok(count) = self.ours.read(&mut bytes) {
            self.screen.extend_from_slice(&bytes[..count]);
        }
        String::from_utf8_lossy(&self.screen).into_owned()
    }

    /// Waits for a question, then types.
    fn answer(&mut self, question: &str, line: &str) {
        self.wait_for(&format!("{question}: "));
        self.ours.write_all(line.as_bytes()).unwrap();
        self.ours.write_all(b"\n").unwrap();
    }

    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.shown().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in {}", self.shown());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn code(&mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        assert!(
            modes.contains(LocalModes::ECHO),
            "the terminal is as it was"
        );
        code
    }
}

#[test]
fn secrets_are_not_echoed() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, &["config", "init", "--no-check"]);
    for (question, line) in [
        ("region", "cn-bj2"),
        ("project_id", ""),
        ("public_key", PUBLIC),
        ("private_key", PRIVATE),
        ("cluster_id", "uk8s-1"),
        ("subnet_id", ""),
        ("nfs_addr", ""),
        ("uhub_username", "u"),
        ("uhub_password", "geheim"),
        ("base_url", "nowhere"),
    ] {
        terminal.answer(question, line);
    }
    // What cannot be used is asked for again.
    terminal.wait_for("base_url: it is no address");
    terminal.answer(
        "nowhere\r\nbase_url: it is no address: write such as https://api.example.com\r\nbase_url",
        "",
    );
    assert_eq!(terminal.code(), Some(0), "{}", terminal.shown());
    let shown = terminal.shown();
    assert!(
        shown.contains("cn-bj2") && shown.contains(PUBLIC),
        "{shown}"
    );
    assert!(shown.contains("[https://api.ucloud.cn]"), "{shown}");
    assert!(
        !shown.contains(PRIVATE) && !shown.contains("geheim"),
        "{shown}"
    );
    let text = std::fs::read_to_string(home.file()).unwrap();
    assert!(text.contains(PRIVATE) && text.contains("geheim"), "{text}");
    assert!(
        !text.contains("base_url"),
        "a default is not written: {text}"
    );

    // Again: what there is is offered, secrets are not.
    let mut terminal = Terminal::start(&home, &["config", "init", "--no-check"]);
    terminal.answer("[cn-bj2]", "");
    for setting in [
        "project_id",
        "public_key",
        "private_key",
        "cluster_id",
        "subnet_id",
        "nfs_addr",
        "uhub_username",
    ] {
        terminal.answer(setting, "");
    }
    terminal.answer("uhub_password", "");
    terminal.answer("base_url", "");
    assert_eq!(terminal.code(), Some(0));
    let shown = terminal.shown();
    assert_eq!(shown.matches("[****]").count(), 2, "{shown}");
    assert!(
        !shown.contains(PRIVATE) && !shown.contains("geheim"),
        "{shown}"
    );
    assert_eq!(std::fs::read_to_string(home.file()).unwrap(), text);
}

#[test]
fn an_interrupt_leaves_the_terminal_as_it_was() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, &["config", "init"]);
    for setting in ["region", "project_id", "public_key"] {
        terminal.answer(setting, "x");
    }
    terminal.wait_for("private_key: ");
    let modes = tcgetattr(&terminal.theirs).unwrap().local_modes;
    assert!(!modes.contains(LocalModes::ECHO));
    let pid = Pid::from_raw(i32::try_from(terminal.child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(terminal.code(), Some(130));
    assert!(terminal.shown().contains("nothing was written"));
    assert!(!home.file().exists());
}
