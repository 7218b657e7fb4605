//! How much of an untrusted answer is read.

/// Most bytes of a manifest or an index (OCI distribution spec, "Pushing Manifests").
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Most bytes of an image's config.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Most bytes of a token service's answer.
pub(crate) const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// Most bytes of the body of a refusal that are read.
pub(crate) const MAX_ERROR_BYTES: u64 = 64 << 10;
/// Most layers of an image; containerd's overlayfs takes fewer.
pub(crate) const MAX_LAYERS: usize = 1000;
/// How deep indexes may lie within indexes.
pub(crate) const MAX_INDEX_DEPTH: usize = 4;
/// Most redirects of one request.
pub(crate) const MAX_REDIRECTS: usize = 5;
/// Most text of a registry's own message that is shown, in characters.
pub(crate) const MAX_MESSAGE_CHARS: usize = 300;
