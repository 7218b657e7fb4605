//! A page.

use std::path::{Path, PathBuf};

use crate::block::Block;
use crate::markdown::{self, Link};

/// Why a page cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum PageError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A block of code has no end.
    #[error("{path}, line {line}: the block of code has no end")]
    OpenBlock {
        path: PathBuf,
        /// Where the block begins.
        line: usize,
    },
}

/// A page, taken apart.
#[derive(Debug, Clone)]
pub struct Page {
    /// The file.
    pub path: PathBuf,
    /// Levels and texts of the headings.
    pub headings: Vec<(usize, String)>,
    /// All links outside of code.
    pub links: Vec<Link>,
    /// All blocks of code.
    pub blocks: Vec<Block>,
    /// What stands between single backquotes, with its line.
    pub spans: Vec<(usize, String)>,
    /// The whole text.
    pub text: String,
}

impl Page {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`PageError`].
    pub fn read(path: &Path) -> Result<Self, PageError> {
        let text = std::fs::read_to_string(path).map_err(|source| PageError::Read {
            path: path.to_owned(),
            source,
        })?;
        let (parts, open) = markdown::parse(&text);
        if let Some(line) = open {
            return Err(PageError::OpenBlock {
                path: path.to_owned(),
                line,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            headings: parts.headings,
            links: parts.links,
            blocks: parts.blocks,
            spans: parts.spans,
            text,
        })
    }

    /// The file's name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// What can stand behind `#` in a link to it.
    #[must_use]
    pub fn anchors(&self) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        for (_, heading) in &self.headings {
            let base = markdown::anchor(heading);
            let number = seen.iter().filter(|one| **one == base).count();
            seen.push(if number == 0 {
                base
            } else {
                format!("{base}-{number}")
            });
        }
        seen
    }
}
