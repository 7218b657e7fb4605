//! The HTTP API that existing clients speak: five actions, signed requests (DESIGN section 7).
//!
//! Data flow of a request: [`parameters`] (what it says, flat) → [`signature`] (whether its key said
//! it) → an action → an answer, or a [`refusal`]. All here is pure; nothing does I/O.

pub mod parameters;
pub mod refusal;
pub mod signature;

pub use parameters::{ParameterError, Parameters};
pub use refusal::Refusal;
