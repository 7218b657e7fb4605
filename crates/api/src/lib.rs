//! The HTTP API that existing clients speak, as it is on the wire: five actions, signed requests
//!. What servers and clients share; pure, nothing here does I/O.
//!
//! [`parameters`] is what a request says, flat; [`signature`] signs that and checks it; [`action`]
//! is what it asks for; [`recut`] refuses what could be signed as another request; [`exact`] is the
//! second signature, over the request as it is sent; a [`refusal`] is why it was not done.

pub mod action;
pub mod answer;
pub mod exact;
pub mod parameters;
pub mod recut;
pub mod refusal;
pub mod secret;
pub mod signature;

/// The OpenAPI description of the API.
pub const OPENAPI: &str = include_str!("../openapi.yaml");

pub use action::{Action, Verb};
pub use answer::{Answer, Image, Status, Task};
pub use parameters::{ParameterError, Parameters};
pub use refusal::Refusal;
pub use secret::Secret;
