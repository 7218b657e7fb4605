//! What runs in the cluster: the controller, the conversions' Jobs and the node installer.

pub mod controller;
pub mod digests;
pub mod node;
pub mod work;
