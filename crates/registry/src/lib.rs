//! OCI distribution client: auth, pull, push.
//!
//! Speaks the OCI distribution specification 1.1 and what Docker's registry adds to it (manifest
//! lists, schema 2, token authentication). The flow of a pull: [`Client::resolve`] gives the manifest
//! and config of one platform, [`Client::blob`] streams a layer. The flow of a push:
//! [`Client::copy_blob`] for each layer, [`Client::push_blob_bytes`] for the config,
//! [`Client::push_manifest`] last.
//!
//! Guarantees:
//! - Manifests and configs are checked against their digests before they are parsed; a blob's
//!   stream is *not* checked (who streams it does that), but never longer than its descriptor says.
//! - Credentials go to the registry they belong to and to the token service that it names, never to
//!   where it redirects; over plain HTTP only to registries that [`ClientOptions::plain_http`] names. They are
//!   in no error, no log line and no `Debug` form.
//! - Each wait has a deadline, each answer a size limit, each repetition a bound.
//!
//! Assumptions: runs inside a tokio runtime. Every future may be dropped at any await.

mod advice;
mod api_error;
mod auth;
mod blob;
mod challenge;
mod client;
mod credentials;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod limits;
mod manifest;
mod options;
mod plain;
mod platform;
mod push;
mod resolve;
mod select;

pub use advice::Advice;
pub use api_error::ApiError;
pub use blob::BlobStream;
pub use client::{Client, FetchedManifest};
pub use credentials::{CredentialError, CredentialSource};
pub use error::{Error, Task};
pub use limits::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES};
pub use manifest::{Descriptor, LayerEncoding, Manifest, ManifestError, MediaType};
pub use options::{ClientOptions, RetryPolicy, Timeouts};
pub use plain::{PlainHttp, is_near};
pub use platform::{ParsePlatformError, Platform};
pub use push::{CopyOutcome, MountOutcome, Upload};
pub use resolve::{ImageConfig, ResolvedImage};

/// The result of everything here that talks to a registry.
pub type Result<T> = std::result::Result<T, Error>;
