//! The daemon mounts the store itself: a real NFS server and client, in a kernel of our own.

mod failures;
mod support;
mod versions;
