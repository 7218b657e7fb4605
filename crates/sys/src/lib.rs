//! The only unsafe code of the workspace: system calls that `rustix` lacks.
//!
//! Each call is wrapped so that no caller can break memory safety; every other crate forbids
//! unsafe code.

mod loop_device;
mod residency;

pub use loop_device::{LoopDevice, LoopOptions};
pub use residency::resident;
