//! The HTTP API that existing clients speak: five actions, signed requests (DESIGN section 7).
//!
//! Data flow of a request: [`parameters`] (what it says, flat) → [`signature`] (whether its key said
//! it) → [`access`] (whether that key may ask for this [`action`] on that cluster) → an answer, or a
//! [`refusal`]. All here is pure; nothing does I/O.

pub mod access;
pub mod action;
pub mod config;
pub mod parameters;
pub mod refusal;
pub mod secret;
pub mod signature;

pub use access::{Access, Granted};
pub use action::Action;
pub use config::{Config, ConfigError};
pub use parameters::{ParameterError, Parameters};
pub use refusal::Refusal;
