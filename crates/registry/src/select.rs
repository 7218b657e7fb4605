//! Picks the manifest of a platform out of an index. Pure.

use crate::Platform;
use crate::manifest::IndexEntry;

/// Marks the attestation manifests of BuildKit, which are no images.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The value that it has there.
const ATTESTATION: &str = "attestation-manifest";

/// The entry for `wanted`, the best that runs there and of equals the first.
///
/// Where none says that it fits, but exactly one says nothing of its platform, that one: its config
/// has to be looked at.
pub(crate) fn choose<'a>(entries: &'a [IndexEntry], wanted: &Platform) -> Option<&'a IndexEntry> {
    let images = || entries.iter().filter(|entry| is_image(entry));
    for platform in wanted.accepted() {
        if let Some(entry) = images().find(|entry| entry.platform.as_ref() == Some(&platform)) {
            return Some(entry);
        }
    }
    let mut unknown = images().filter(|entry| entry.platform.is_none());
    match (unknown.next(), unknown.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// The platforms that an index has images for, each once, in its order.
pub(crate) fn available(entries: &[IndexEntry]) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = Vec::new();
    for entry in entries.iter().filter(|entry| is_image(entry)) {
        if let Some(platform) = &entry.platform
            && !platforms.contains(platform)
        {
            platforms.push(platform.clone());
        }
    }
    platforms
}

fn is_image(entry: &IndexEntry) -> bool {
    let attests = entry
        .descriptor
        .annotations
        .get(REFERENCE_TYPE)
        .is_some_and(|kind| kind == ATTESTATION);
    let nowhere = entry
        .platform
        .as_ref()
        .is_some_and(|p| p.os() == "unknown" && p.architecture() == "unknown");
    !attests && !nowhere
}

#[cfg(test)]
mod tests;
