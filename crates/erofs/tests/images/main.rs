//! Images of random and of awkward trees, looked at by readers that are not ours: the kernel,
//! `fsck.erofs` and `dump.erofs`, the crate `erofs-rs`; and by ours.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this is a test; clippy.toml allows these only inside of test functions"
)]

mod devices;
mod golden;
mod kernel;
mod mounted;
mod random;
mod reader;
mod refused;
mod rust_reader;
mod samples;
mod seen;
mod tools;
