//! A client of the HTTP API: what `uimgacc` does in remote mode.
//!
//! Data flow: [`Settings`] (of a file and the environment) → a [`Request`], signed → [`Client`] →
//! an [`Answer`] → [`Wait`], which says whether what was asked for has come about, or [`Changes`]. All of it is pure
//! but for [`Client`], [`file`] and the loop of [`poll`].

mod changes;
mod client;
pub mod config;
mod error;
pub mod file;
mod json;
pub mod poll;
mod request;
pub mod setting;
mod settings;
pub mod wait;

pub use changes::{Change, Changes};
pub use client::{Client, Response};
pub use config::{Config, ConfigError};
pub use error::{Error, Kind};
pub use json::Json;
pub use poll::{PollOptions, Progress};
pub use request::Request;
pub use setting::Setting;
pub use settings::{Settings, Source};
pub use uimgacc_api::answer::{self, Answer, Image, Status, Task};
pub use wait::{Goal, Outcome, Wait};
