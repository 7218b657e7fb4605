//! The store: packs, indexes, records, commit, gc, verify.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests look from outside")
)]

pub mod acl;
mod blobs;
mod chains;
mod clearing;
mod clock;
mod commit;
mod copies;
mod dead;
mod dedup;
mod delete;
mod device;
mod error;
mod exclusive;
mod filter;
mod filters;
pub mod flatten;
mod format;
mod free;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gc;
#[cfg(test)]
mod golden;
mod hashing;
mod index_file;
mod intent;
mod layout;
mod lease;
mod machine;
mod marks;
mod pack;
mod path;
mod profiles;
mod publish;
mod reader;
mod readers;
mod record;
mod repack;
mod repair;
pub mod rooted;
mod seal;
mod session;
mod shared;
mod space;
mod stat;
mod strays;
mod tables;
mod toc;
mod verify;
mod workspace;
mod writer;

pub use blobs::BlobRecord;
pub use chains::known_chains;
pub use clock::server_time;
pub use commit::CommitError;
pub use dedup::{PackRef, Placement};
pub use delete::{DeleteError, delete};
pub use device::pack_of;
pub use error::{PutError, SessionError};
pub use free::{DeadSpace, Outcome};
pub use gc::{SweepOptions, Swept, sweep};
pub use intent::clear_gone;
pub use layout::Layout;
pub use lease::{
    DropLeaseError, Lease, LeaseFile, drop_lease, holders, lease_files, leases, remove_lease,
    write_lease,
};
pub use machine::{boot_id, rfc3339_now};
pub use pack::PackWriter;
pub use path::{FileFacts, Observer, StoreFile, StorePath};
pub use profiles::is_profile_due;
pub use reader::{Images, ReadError, StoreReader};
pub use record::{
    ChainLayer, ChainRecord, FORMAT_VERSION, Features, ImageRecord, IndexRecord, StoreRecord,
};
pub use repair::{Repair, Repaired, Repairs, Unrepaired};
pub use session::Session;
pub use space::{ImageSpace, freed_by_deleting};
pub use stat::{Stat, logical_bytes, stat};
pub use verify::{Problem, Report, VerifyOptions, verify};
pub use workspace::Published;
pub use writer::{InitError, allow_unleased_readers, init, prove_writable};
