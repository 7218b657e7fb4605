//! The controller: brings the cluster to what the objects of `uimgacc.io` say.
//!
//! All replicas watch, so each knows everything; one leads and writes ([`election`], [`lease`]),
//! while its [`term`] lasts. A change puts keys into a [`queue`]; a worker takes a key, looks at
//! the [`world`], decides without I/O ([`decide`]) and does it ([`execute`]). The controller never touches the store: Jobs do ([`build`]).
//!
//! **After a crash** nothing is lost: all state is in the objects, and every decision is made
//! anew from them.

pub mod build;
mod cache;
pub mod context;
pub mod decide;
pub mod election;
pub mod execute;
pub mod health;
pub mod lease;
mod metrics;
mod queue;
pub mod reconcile;
pub mod term;
mod totals;
pub mod view;
pub mod watch;
mod wire;
mod world;
