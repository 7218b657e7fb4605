//! Where text goes.

use std::io::{self, IsTerminal as _, Write as _};

/// Data to standard output, talk to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    is_quiet: bool,
}

impl Printer {
    /// With `is_quiet` only data and errors are printed.
    #[must_use]
    pub const fn new(is_quiet: bool) -> Self {
        Self { is_quiet }
    }

    /// A piece of data, with a line end.
    ///
    /// # Errors
    /// Standard output is gone (a closed pipe).
    pub fn data(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.trim_end_matches('\n').as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// A line of talk, unless quiet.
    pub fn say(&self, text: &str) {
        if !self.is_quiet {
            self.complain(text);
        }
    }

    /// A line on standard error, quiet or not.
    pub fn complain(&self, text: &str) {
        // When standard error is gone there is nobody left to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Whether progress bars make sense.
    #[must_use]
    pub fn shows_bars(&self) -> bool {
        !self.is_quiet && io::stderr().is_terminal()
    }

    /// Whether data may be coloured: standard output is a terminal, and NO_COLOR is not set.
    #[must_use]
    pub fn shows_colours(&self) -> bool {
        io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
    }

    /// Whether talk is left out.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.is_quiet
    }
}
