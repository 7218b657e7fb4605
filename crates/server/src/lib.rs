//! The server of the HTTP API, for many clusters.
//!
//! Data flow of a request: [`serve`] (connections, TLS, limits) → [`service`] (reads it, answers in
//! JSON, writes the [`audit`] log) → [`access`] (whether its key may ask for this action on that
//! cluster) → [`perform`] (does it, on one of the [`clusters`]). Nothing is kept that a cluster does
//! not hold, so any number of servers may stand behind one address.

mod access;
mod answer;
mod audit;
mod cached;
mod clusters;
mod config;
mod connection_limit;
mod files;
pub mod health;
mod live;
mod metrics;
mod nonces;
mod perform;
mod serve;
mod service;
mod token_bucket;

pub use audit::Log;
pub use clusters::Clusters;
pub use config::{Config, ConfigError};
pub use files::Watched;
pub use live::Loaded;
pub use perform::finish;
pub use serve::{raise_open_files, serve};
pub use service::Service;
