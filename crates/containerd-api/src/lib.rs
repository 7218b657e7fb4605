//! The messages and services of containerd and of CRI that this project uses, generated from
//! `proto/`. A message has the fields that are used; protobuf skips the others.

// Generated code: its lints are not ours.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

pub use generated::containerd::services::containers::v1 as containers;
pub use generated::containerd::services::content::v1 as content;
pub use generated::containerd::services::introspection::v1 as introspection;
pub use generated::containerd::services::leases::v1 as leases;
pub use generated::containerd::services::namespaces::v1 as namespaces;
pub use generated::containerd::services::snapshots::v1 as snapshots;
pub use generated::containerd::services::version::v1 as version;
pub use generated::containerd::types;
pub use generated::runtime::v1 as cri;
