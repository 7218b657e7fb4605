//! The guide in `docs/`, as data: pages with their headings, links and blocks of code, in each language.
//!
//! Its tests hold the guide to the truth: links lead somewhere, both languages say the same, commands exist, every error has its
//! paragraph, and the quick start runs word for word.

mod block;
mod markdown;
mod page;

use std::path::{Path, PathBuf};

pub use block::Block;
pub use markdown::Link;
pub use page::{Page, PageError};

/// The languages; every page is there in each of them.
pub const LANGUAGES: [&str; 2] = ["en", "zh"];

/// The folder of the sources.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All pages of a language, by name, its table of contents among them.
///
/// # Errors
/// Where a file cannot be read, or is no page.
pub fn pages(language: &str) -> Result<Vec<Page>, PageError> {
    let folder = root().join("docs").join(language);
    let io = |source| PageError::Read {
        path: folder.clone(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(|path| Page::read(path)).collect()
}

/// The pages outside of the books: what people see first.
///
/// # Errors
/// As [`pages`].
pub fn readmes() -> Result<Vec<Page>, PageError> {
    ["README.md", "README.zh-CN.md"]
        .iter()
        .map(|name| Page::read(&root().join(name)))
        .collect()
}
