//! A playground of a test, and shells in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use uimgacc_guide::root;
use uimgacc_testkit::Need;
use uimgacc_testkit::programs;

/// What ends the output of a step.
const MARK: &str = "--- end of step";
const PATIENCE: Duration = Duration::from_secs(600);

/// One cluster after the other: each wants the whole machine.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) fn ready() -> bool {
    uimgacc_testkit::ready(&[Need::Root, Need::Parts, Need::Kubernetes, Need::OurImage])
}

/// What is run.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) script: String,
}

/// Ends the playground whatever comes.
pub(crate) struct Playground {
    work: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Playground {
    /// Nothing is started yet.
    pub(crate) fn new() -> Self {
        for name in ["uimgacc", "uimgacc-playground"] {
            let _ = programs::program(name);
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let work = tempfile::Builder::new()
            .prefix("uimgacc-guide-")
            .tempdir_in("/var/tmp")
            .unwrap();
        Self { work, _turn: turn }
    }

    /// A folder of the test's own.
    pub(crate) fn work(&self) -> &Path {
        self.work.path()
    }

    /// The folder of the playground.
    pub(crate) fn folder(&self) -> PathBuf {
        self.work().join("playground")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(root())
            .env("UIMGACC_PLAYGROUND", self.folder())
            .env("UIMGACC_PROGRAMS", programs::directory())
            // No store, no HTTP API: the playground's cluster.
            .env("XDG_CONFIG_HOME", self.work().join("no-config"))
            .env_remove("UIMGACC_CONFIG")
            .env_remove("UIMGACC_BASE_URL")
            .env_remove("UIMGACC_STORE")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command
    }

    /// Runs all steps in one shell, which must succeed; what each has printed.
    pub(crate) fn run(&self, steps: &[Step]) -> Vec<String> {
        let mut script = "set -euo pipefail\n".to_owned();
        for (number, step) in steps.iter().enumerate() {
            script.push_str(&format!(
                "{}\nprintf '\\n{MARK} %s\\n' {number}\n",
                step.script
            ));
        }
        let file = self.work().join("script");
        std::fs::write(&file, script).unwrap();
        let mut bash = self.command("bash");
        bash.arg(&file);
        let output = self.work().join("output");
        let began = Instant::now();
        let status = run(bash, &output);
        let output = String::from_utf8_lossy(&std::fs::read(&output).unwrap()).into_owned();
        println!("{output}\nit took {:?}", began.elapsed());
        let mut rest = output.as_str();
        let mut all = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            let mark = format!("\n{MARK} {number}\n");
            let Some((told, after)) = rest.split_once(&mark) else {
                panic!("{} failed ({status}): {rest}", step.name);
            };
            all.push(told.to_owned());
            rest = after;
        }
        assert!(status.success(), "{status}");
        all
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        let status = self.command("scripts/playground.sh").arg("down").status();
        println!("playground.sh down: {status:?}");
    }
}

/// Runs a shell to its end, with all output in a file.
fn run(mut command: Command, output: &Path) -> ExitStatus {
    let out = File::create(output).unwrap();
    let err = out.try_clone().unwrap();
    let mut child = command.stdout(out).stderr(err).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            return child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
