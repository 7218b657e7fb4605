//! SIGINT, SIGTERM and SIGHUP end a bench in order: it stops at its next step and drops its guards, which leave nothing behind.

use std::io::{Read as _, Seek as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// How often a running program is looked at.
const PAUSE: Duration = Duration::from_millis(5);

/// A signal came.
#[derive(Debug, thiserror::Error)]
#[error("interrupted by signal {0}")]
pub(crate) struct Interrupted(pub(crate) u8);

/// Whether a signal came.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// Takes the signals of this process over.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let came = Arc::new(AtomicU8::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::terminate(),
        ];
        for kind in kinds {
            let came = came.clone();
            let mut signals = {
                let _entered = runtime.enter();
                signal(kind)?
            };
            runtime.spawn(async move {
                while signals.recv().await.is_some() {
                    let number = u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX);
                    came.store(number, Ordering::SeqCst);
                }
            });
        }
        // Ends with the process: there is nothing to clean up.
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Self(came))
    }

    /// An error where a signal came.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        match self.0.load(Ordering::SeqCst) {
            0 => Ok(()),
            number => Err(Interrupted(number)),
        }
    }

    /// Runs a program, which must succeed, and returns its standard output. It is killed where a signal comes.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<String> {
        self.check()?;
        let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(err.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let status: ExitStatus = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if let Err(interrupted) = self.check() {
                child.kill()?;
                child.wait()?;
                return Err(interrupted.into());
            }
            sleep(PAUSE);
        };
        let mut texts = [String::new(), String::new()];
        for (file, text) in [&mut out, &mut err].into_iter().zip(&mut texts) {
            file.rewind()?;
            file.read_to_string(text)?;
        }
        let [out, err] = texts;
        anyhow::ensure!(status.success(), "{command:?}: {status}\n{out}{err}");
        Ok(out)
    }

    /// Waits until `found` finds something, looking every 5 ms; fails after `within`.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        within: Duration,
        mut found: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = std::time::Instant::now() + within;
        loop {
            if let Some(found) = found()? {
                return Ok(found);
            }
            self.check()?;
            anyhow::ensure!(
                std::time::Instant::now() < deadline,
                "not within {within:?}: {what}"
            );
            sleep(PAUSE);
        }
    }
}
