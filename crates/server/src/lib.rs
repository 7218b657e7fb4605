//! The server of the HTTP API, for many clusters.
//!
//! Data flow of a request: parameters (of `uimgacc-api`) → [`access`] (whether their key may ask for
//! this action on that cluster) → an answer or a refusal.

pub mod access;
pub mod config;

pub use access::{Access, Granted};
pub use config::{Config, ConfigError};
