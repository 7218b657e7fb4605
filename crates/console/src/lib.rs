//! Printer, progress and error renderer of the commands.
//!
//! Data goes to standard output, talk to standard error, so that output can be piped.

mod failure;
mod image_progress;
mod printer;
mod progress;
mod state_progress;
mod units;

pub use failure::render;
pub use image_progress::ImageProgress;
pub use printer::Printer;
pub use progress::LayerProgress;
pub use state_progress::StateProgress;
pub use units::{bytes, duration};
