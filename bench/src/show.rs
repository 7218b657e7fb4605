//! How a bench tells what it does and what came of it.

use std::time::{Duration, Instant};

use uimgacc_console::Printer;

/// Tells it as it goes, line by line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show(Printer);

impl Show {
    pub(crate) fn new() -> Self {
        Self(Printer::new(false))
    }

    /// The heading of what follows.
    pub(crate) fn heading(self, text: &str) -> anyhow::Result<()> {
        self.line(&format!("\n{text}"))
    }

    pub(crate) fn line(self, text: &str) -> anyhow::Result<()> {
        Ok(self.0.data(text)?)
    }

    /// Does something, and tells how long that took.
    pub(crate) fn task<T>(
        self,
        what: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let result = work()?;
        self.took(what, started.elapsed())?;
        Ok(result)
    }

    pub(crate) fn took(self, what: &str, took: Duration) -> anyhow::Result<()> {
        self.line(&format!("  {what:<66}{:>10}", seconds(took)))
    }

    /// A name and columns.
    pub(crate) fn row(self, name: &str, columns: &[String]) -> anyhow::Result<()> {
        let columns: String = columns
            .iter()
            .map(|column| format!("{column:>16}"))
            .collect();
        self.line(&format!("  {name:<38}{columns}"))
    }
}

/// `1.23 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// `12 kB` or `345 MB`.
pub(crate) fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(seconds(Duration::from_millis(1234)), "1.23 s");
        assert_eq!(megabytes(999_999), "999 kB");
        assert_eq!(megabytes(1_000_000), "1 MB");
    }
}
