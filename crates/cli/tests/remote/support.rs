//! The command, with a home of its own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::service::{CLUSTER, PRIVATE, PUBLIC, Service};

/// A home that holds a configuration file, or none yet.
#[derive(Debug)]
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One with a file that leads to `service`, with more lines.
    pub(crate) fn of(service: &Service, more: &str) -> Self {
        let home = Self::new();
        let text = format!(
            "base_url = '{}'\npublic_key = '{PUBLIC}'\nprivate_key = '{PRIVATE}'\ncluster_id = '{CLUSTER}'\n{more}\n",
            service.url
        );
        home.write(&text);
        home
    }

    /// Where the file is by default.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join(".config/uimgacc/config.toml")
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub(crate) fn write(&self, text: &str) {
        use std::os::unix::fs::OpenOptionsExt as _;
        std::fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        let options = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .to_owned();
        let mut file = options.open(self.file()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The command, with nothing of the test's own environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uimgacc"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.0.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        finish(&mut self.command(arguments), "")
    }

    /// Runs it with an input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        finish(&mut self.command(arguments), input)
    }
}

/// Runs a command to its end; one that waits for what never comes is killed.
pub(crate) fn finish(command: &mut Command, input: &str) -> Output {
    const LONGEST: Duration = Duration::from_secs(60);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    // One that ends without reading closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let (ended, end) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        if end.recv_timeout(LONGEST).is_err() {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = ended.send(());
    waiter.join().unwrap();
    output
}

/// Both outputs of a command that must succeed.
pub(crate) fn ok(output: &Output) -> (String, String) {
    let (out, err) = texts(output);
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    (out, err)
}

/// Standard error of a command that must fail with `code`.
pub(crate) fn failed(output: &Output, code: i32) -> String {
    let (out, err) = texts(output);
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    assert_eq!(out, "", "no data where it failed");
    err
}

/// Neither ever shows a secret.
pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    for secret in [PRIVATE, "geheim"] {
        assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
    }
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}
