//! Ids, digests, image references and where a store lies: no I/O.

mod digest;
mod pack;
mod reference;
pub mod source;

pub use digest::{ChainId, ChainToken, ContentHash, DiffId, Digest, ParseDigestError, chain_ids};
pub use pack::{Extent, MAX_PACKS_PER_IMAGE, PackId};
pub use reference::{ImageReference, ParseReferenceError, ReferenceProblem};
pub use source::{NfsSource, ParseSourceError, StoreSource};
