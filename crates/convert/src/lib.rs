//! Layers of an image into packs and indexes.
//!
//! The flow of one layer, each step a module: `stream` (digest of what comes in) → `decompress` →
//! `stream` (diff ID) → [`tar`] → [`layer`] (a tree, contents into packs). [`create()`] runs all
//! layers of an image that way, stacks and publishes them, and pushes the target image
//! ([`target`]).

mod create;
mod decompress;
mod error;
mod fetch;
mod groups;
pub mod layer;
mod layers;
mod memory;
mod predecessor;
mod progress;
mod repair;
mod request;
mod stream;
pub mod tar;
pub mod target;

pub use create::{Created, create};
pub use decompress::decompress;
pub use error::{CreateError, LayerFailure};
pub use memory::Bound;
pub use progress::{Progress, Silent};
pub use repair::repair;
pub use request::CreateRequest;
