//! The objects that the controller makes, built from the `ImageAcceleration`. Pure.

pub mod installer;
pub mod job;
mod store;

use uimgacc_types::Digest;

pub use installer::installer;
pub use job::{ImageInputs, JobTask, NewJob};

/// The digest of what an object is made from: another means that it must be made anew.
#[must_use]
pub fn inputs(object: &serde_json::Value) -> String {
    short_digest(&object.to_string())
}

/// The digest of the store's specification.
#[must_use]
pub fn store_inputs(spec: &uimgacc_objects::StoreSpec) -> String {
    short_digest(&serde_json::to_string(spec).unwrap_or_default())
}

fn short_digest(text: &str) -> String {
    let mut hex = Digest::of(text.as_bytes()).hex();
    hex.truncate(16);
    hex
}

/// A text of at most so many bytes, distinct for distinct texts: what does not fit is cut, and a
/// digest follows.
#[must_use]
pub fn fitting(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    with_digest(text, text, most)
}

/// The same, without dots.
#[must_use]
pub fn host_label(text: &str, most: usize) -> String {
    if text.contains('.') {
        return with_digest(&text.replace('.', "-"), text, most);
    }
    fitting(text, most)
}

fn with_digest(shown: &str, whole: &str, most: usize) -> String {
    let kept: String = shown.chars().take(most.saturating_sub(17)).collect();
    let kept = kept.trim_end_matches(['-', '.', '_']);
    format!("{kept}-{}", short_digest(whole))
}

#[cfg(test)]
mod tests;
