//! What is asked for.

use uimgacc_registry::Platform;
use uimgacc_types::ImageReference;

/// What to create.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The image to accelerate.
    pub original: ImageReference,
    /// What the accelerated image is to be called.
    pub target: ImageReference,
    /// Which platform of it.
    pub platform: Platform,
    /// Whether to push the target image.
    pub push: bool,
    /// How many layers at once, 1 at least.
    pub jobs: usize,
    /// How often longer than its blob a layer may be (at least 1 GiB is always allowed).
    pub max_expansion: u64,
}
