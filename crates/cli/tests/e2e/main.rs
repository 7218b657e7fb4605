//! The command from end to end: real registry, real store, real mounts, and the real containerd
//! to compare with.

mod commands;
mod crash;
mod equality;
mod hostile;
mod mounting;
mod node;
mod run;
mod sharing;
mod support;
