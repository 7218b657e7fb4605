//! One container, from its start until its start is over.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use uimgacc_mount::Opens;

use crate::{RecordError, Settings};

/// How often it is looked whether the command has ended.
const STEP: Duration = Duration::from_millis(50);
/// How much of the output is kept.
const TAIL_BYTES: u64 = 4096;

/// How a start ended.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) output: String,
    pub(crate) took: Duration,
}

/// Runs the container of `spec` until its start is over, and listens meanwhile.
pub(crate) fn run(
    spec: &Spec,
    bundle: &Path,
    settings: &Settings,
    opens: &mut Opens,
) -> Result<Ended, RecordError> {
    let path = bundle.join("config.json");
    spec.save(&path).map_err(RecordError::Config)?;
    let output = bundle.join("output");
    let file = File::create(&output).map_err(RecordError::io("make", &output))?;
    let errors = file.try_clone().map_err(RecordError::io("make", &output))?;
    let started = Instant::now();
    let mut container = Container::start(bundle, settings, file, errors)?;
    let mut last = Instant::now();
    let status = loop {
        let heard = opens
            .wait(STEP)
            .map_err(RecordError::io("listen below", bundle))?;
        if heard {
            last = Instant::now();
        }
        if let Some(status) = container
            .child
            .try_wait()
            .map_err(RecordError::io("wait for", &settings.runc))?
        {
            break Some(status.code().unwrap_or(-1));
        }
        if last.elapsed() >= settings.silence || started.elapsed() >= settings.limit {
            break None;
        }
    };
    let took = started.elapsed();
    // What it opened right before its end.
    let _ = opens.wait(Duration::ZERO);
    let output = tail(&output).unwrap_or_default();
    if status.is_some_and(|status| status != 0) && !container.has_run() {
        return Err(RecordError::NotStarted { output });
    }
    Ok(Ended {
        status,
        output,
        took,
    })
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// A container in the foreground of runc. It goes with this.
struct Container<'a> {
    settings: &'a Settings,
    state: PathBuf,
    pid_file: PathBuf,
    id: String,
    child: Child,
}

impl<'a> Container<'a> {
    fn start(
        bundle: &Path,
        settings: &'a Settings,
        output: File,
        errors: File,
    ) -> Result<Self, RecordError> {
        let state = bundle.join("state");
        let pid_file = bundle.join("pid");
        // The folder's name is random.
        let id = bundle.parent().and_then(Path::file_name).map_or_else(
            || "uimgacc-record".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
        let child = Command::new(&settings.runc)
            .arg("--root")
            .arg(&state)
            .args(["run", "--bundle"])
            .arg(bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(&id)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|source| RecordError::NoRunc {
                runc: settings.runc.clone(),
                source,
            })?;
        Ok(Self {
            settings,
            state,
            pid_file,
            id,
            child,
        })
    }

    /// runc writes the file once the command runs.
    fn has_run(&self) -> bool {
        self.pid_file.exists()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // Also where it has ended: runc may have left its cgroup. The first error is the one that counts.
        let _ = Command::new(&self.settings.runc)
            .arg("--root")
            .arg(&self.state)
            .args(["delete", "--force", &self.id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
