//! Ids, digests, image references, where a store lies, and errors as text: no I/O.

mod backoff;
mod causes;
mod digest;
mod meant;
mod pack;
mod reference;
pub mod source;

pub use backoff::backoff;
pub use causes::{messages, root_cause, with_causes};
pub use digest::{ChainId, ChainToken, ContentHash, DiffId, Digest, ParseDigestError, chain_ids};
pub use meant::{Meant, meant, normalised};
pub use pack::{Extent, MAX_PACKS_PER_IMAGE, PackId};
pub use reference::{ImageReference, ParseReferenceError, ReferenceProblem};
pub use source::{NfsAddress, NfsAddressError, NfsSource, ParseSourceError, StoreSource};
