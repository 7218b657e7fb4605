//! The parser of containerd's filters, for fuzz targets: see `fuzz/`.

use crate::filter::Filters;

/// Any text as a filter.
pub fn filter(text: &str) {
    let _ = Filters::parse(&[text]);
}
