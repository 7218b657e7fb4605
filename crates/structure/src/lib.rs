//! The structure of a crate, as data: which of its modules uses which.
//!
//! Read from the sources, by the paths that they name: `crate::…`, `super::…`, `self::…`, and those
//! that begin with a module's child. A name that a module only hands on (`pub use`) is that of the
//! module which defines it. Tests are left out.
//!
//! What macros generate is not seen.

mod graph;
mod names;
mod sources;

pub use graph::{Circle, Tie, circles};
pub use sources::{Crate, Error};
