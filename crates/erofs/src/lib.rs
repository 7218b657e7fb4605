//! The EROFS format, with no I/O of its own: a [`Tree`] in memory, [`write`] that turns it into an
//! image, [`read`] that turns an image back into it.
//!
//! The images hold metadata: names, owners, times, xattrs, and contents of at most
//! [`MAX_INLINE_BYTES`]. All other contents lie in chunks on extra devices.
//!
//! Guarantees: the same tree gives the same bytes; `read(write(tree))` is the tree as
//! [`Tree::normalized`] gives it; no input makes either of them panic or run without end.
//!
//! Kernels: 5.10 and later where no file is chunked and there are no devices; 5.16 and later else.

mod check;
mod directory;
mod error;
pub mod format;
mod layout;
pub mod limits;
mod reader;
pub mod tree;
mod validate;
mod walk;
mod writer;
mod xattr;

pub use check::check;
pub use error::{ReadError, WriteError, Wrong};
pub use limits::{Limits, MAX_INLINE_BYTES};
pub use reader::{read, read_devices};
pub use tree::Tree;
pub use writer::{Summary, write};
