//! What a conversion tells while it runs. Layers are counted from 0, bottom first.

/// Told by [`crate::create`]; called from several threads at once.
pub trait Progress: Send + Sync {
    /// The layers that there are: diff ID and compressed length in bytes of each.
    fn layers(&self, layers: &[(String, u64)]);
    /// So many compressed bytes of a layer have come in since the last call.
    fn layer_bytes(&self, layer: usize, bytes: u64);
    /// A layer is done; `was_there` says that the store had it.
    fn layer_done(&self, layer: usize, was_there: bool);
    /// Another stage begins, in a few words.
    fn stage(&self, what: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn layers(&self, _: &[(String, u64)]) {}
    fn layer_bytes(&self, _: usize, _: u64) {}
    fn layer_done(&self, _: usize, _: bool) {}
    fn stage(&self, _: &str) {}
}
