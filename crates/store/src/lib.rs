//! The store: packs, indexes, records, commit, gc, verify.

mod commit;
mod dedup;
pub mod flatten;
mod format;
mod gc;
mod intent;
mod layout;
mod lease;
mod machine;
mod marks;
mod pack;
mod reader;
mod record;
mod repack;
pub mod rooted;
mod session;
mod stat;
mod toc;
mod verify;
mod writer;

pub use commit::{CommitError, Published};
pub use dedup::{PackRef, Placement};
pub use gc::{DeleteError, Swept, delete, holders, sweep, unique_pack_bytes};
pub use layout::Layout;
pub use lease::{Lease, leases, remove_lease, write_lease};
pub use pack::{PackWriter, PutError};
pub use reader::{ReadError, StoreReader};
pub use record::{ChainLayer, ChainRecord, FORMAT_VERSION, ImageRecord, IndexRecord, StoreRecord};
pub use session::{Session, SessionError, pack_of};
pub use stat::{Stat, logical_bytes, stat};
pub use verify::{Problem, Report, verify};
pub use writer::{InitError, init};
