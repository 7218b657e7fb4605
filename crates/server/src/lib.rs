//! The server of the HTTP API, for many clusters.
//!
//! Data flow of a request: [`serve`] (connections, TLS, limits) → [`service`] (reads it, answers in
//! JSON, writes the [`audit`] log) → [`access`] (whether its key may ask for this action on that
//! cluster) → [`perform`] (does it, on one of the [`clusters`]). Nothing is kept that a cluster does
//! not hold, so any number of servers may stand behind one address.

pub mod access;
mod answer;
pub mod audit;
mod cached;
pub mod clusters;
pub mod config;
pub mod connection_limit;
pub mod files;
pub mod health;
pub mod live;
pub mod metrics;
pub mod nonces;
pub mod perform;
pub mod serve;
pub mod service;
pub mod token_bucket;

pub use access::{Access, Granted};
pub use config::{Config, ConfigError};
