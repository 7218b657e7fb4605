//! Starts the real parts that tests need and looks at what they did: a registry, containerd of four versions and its CRI, a Kubernetes cluster, a Debian that boots, images
//! with layers of any make, and a walk over a mounted tree that two stores can be compared by.
//!
//! Nothing here fakes a part. Every guard works in a temporary folder of its own, on loopback only, ends just the processes it
//! started, and shows the tail of their logs when something fails.
//!
//! The programs come from the folder that `scripts/parts.sh` fills, see [`parts`]. Tests start with
//! `if !uimgacc_testkit::ready(&[Need::Root, Need::Parts]) { return; }`.
//!
//! This is a dev-dependency only, so it panics where a library would return an error: a test that cannot set up its parts has failed.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a dev-dependency: a part that does not start is a failed test, and its log belongs on stderr"
)]

pub mod agent_status;
pub mod api_server;
pub mod cluster;
pub mod containerd;
pub mod cri;
pub mod debian;
pub mod hang;
pub mod image;
pub mod machine;
mod net;
pub mod nfs_server;
pub mod page_cache;
pub mod parts;
pub mod process;
pub mod programs;
pub mod registry;
pub mod tar;
pub mod tree;
pub mod ucloud_sdk;
pub mod uml;
pub mod unix_http;

pub use api_server::ApiServer;
pub use parts::{Need, ready};
pub use registry::Registry;
pub use ucloud_sdk::UcloudSdk;
