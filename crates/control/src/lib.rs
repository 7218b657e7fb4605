//! The five verbs against a cluster: enable, get, create, delete, disable; with status and check.
//!
//! A [`Cluster`] is a handle on one cluster; each verb is a method of it, in a file of its own.
//! Plain data goes in and comes out, so that the command line and the HTTP API say the same.
//!
//! Guarantees: nothing is polled (waiting is by watches, each with a deadline); every call may be
//! repeated; objects that others made or changed are not taken over where that is not asked for.
//! What the agent must do (convert, install nodes, free the store) it does by itself: a verb that
//! is cut short leaves work that the same verb, asked again, goes on with.

mod check;
mod cluster;
mod cluster_state;
mod create;
mod credentials;
mod delete;
mod disable;
mod enable;
mod error;
mod find_holders;
mod get;
mod hints;
mod holder;
mod images;
mod manifests;
mod observe;
mod status;

pub use check::{Check, CheckOptions, Outcome};
pub use cluster::{Cluster, Connect, MIN_MINOR, ServerVersion};
pub use create::{CreateRequest, Created};
pub use credentials::{DOCKER_HUB, Login};
pub use delete::DeleteRequest;
pub use disable::{DisableReport, DisableRequest};
pub use enable::{
    DEFAULT_TIMEOUT, DryRun, EnableReport, EnableRequest, NodePathChanges, StoreChoice,
};
pub use error::{Error, Kind};
pub use get::{ClusterImages, ClusterStatus};
pub use holder::Holder;
pub use images::{ImageProfile, ImageProgress, ImageView};
pub use manifests::{DEFAULT_IMAGE, yaml};
pub use status::{ComponentStatus, ImageTotals, NodeStatus, Status};

/// Told what goes on, in lines for people; each is said once.
pub trait Progress: Send + Sync {
    /// A step begins or something has changed.
    fn say(&self, line: &str);

    /// How far the conversion of an image is.
    fn image(&self, _image: &ImageView) {}
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn say(&self, _: &str) {}
}
