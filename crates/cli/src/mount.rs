//! `uimgacc mount`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use uimgacc_console::Printer;
use uimgacc_mount::{Methods, MountRequest, OverlayRequest, index_cache};
use uimgacc_store::Lease;
use uimgacc_types::with_causes;

use crate::arguments::StoreArgument;
use crate::images::find;
use crate::mount_state::{MountFolder, MountRecord, StateArgument};

/// Mount an accelerated image on a folder, without downloading it.
///
/// With --read-write changes are kept on the local disk until `uimgacc umount`, which drops them.
#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// Target (or original) image.
    image: String,
    /// An empty folder; made where it is missing.
    dir: PathBuf,
    #[command(flatten)]
    store: StoreArgument,
    #[command(flatten)]
    state: StateArgument,
    /// Allow changes, which go to the local disk.
    #[arg(long)]
    read_write: bool,
}

impl Mount {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let image = find(&reader, &self.image)?;
        std::fs::create_dir_all(&self.dir)
            .with_context(|| format!("cannot make {}", self.dir.display()))?;
        let target = std::fs::canonicalize(&self.dir)
            .with_context(|| format!("cannot find {}", self.dir.display()))?;
        let folder = self.state.folder(&target);
        // Of any kind: a writable mount is an overlay.
        if uimgacc_mount::is_mount_point(&target)? {
            anyhow::bail!(
                "{} is a mount already (`uimgacc umount` undoes one)",
                target.display()
            );
        }
        if let Some(old) = folder.load()? {
            // Left by a machine that went down: nothing is mounted there any more.
            printer.say(&format!(
                "clearing what an earlier mount of {} left",
                old.image
            ));
            clear(&folder)?;
        }
        folder.make()?;
        let record = MountRecord {
            target: target.clone(),
            image: image.target.clone(),
            store: std::fs::canonicalize(&self.store.root)?,
            lease: format!("mount-{}", folder.name),
            is_writable: self.read_write,
        };
        let holder = format!("`uimgacc mount` at {}", target.display());
        let lease = Lease::of_this_machine(holder, vec![image.chain_id]);
        if let Err(error) = uimgacc_store::write_lease(reader.layout(), &record.lease, &lease) {
            anyhow::ensure!(
                reader.allows_unleased_readers(),
                "no lease can be written, so `delete` would not know of this mount: {}; make the store writable here, \
                 or allow readers without one by `uimgacc store init --unleased-readers` where it is",
                with_causes(&error)
            );
            printer.say(&format!(
                "no lease was written, so `delete` will not know of this mount: {error}"
            ));
        }
        // Who deletes the image sees the lease, or is seen here.
        let chain = reader.chain(image.chain_id)?;
        let chain = chain.with_context(|| format!("{} was deleted just now", image.target))?;
        folder.save(&record)?;
        let mounted = self.mount(&reader, &chain, &folder, &target);
        if mounted.is_err() && matches!(uimgacc_mount::is_mount_point(&target), Ok(false)) {
            // The first error is the one to tell; what stays is cleared by the next mount.
            let _ = clear(&folder);
            let _ = uimgacc_store::remove_lease(reader.layout(), &record.lease);
        }
        let method = mounted?;
        printer.say(&format!(
            "{} is mounted at {} ({method})",
            image.target,
            target.display()
        ));
        Ok(())
    }

    fn mount(
        &self,
        reader: &uimgacc_store::StoreReader,
        chain: &uimgacc_store::ChainRecord,
        folder: &MountFolder,
        target: &std::path::Path,
    ) -> anyhow::Result<uimgacc_mount::Method> {
        let index = index_cache::fetch(reader, chain, &folder.index())?;
        let lower = if self.read_write {
            folder.lower()
        } else {
            target.to_owned()
        };
        let mounted = uimgacc_mount::mount_image(&MountRequest {
            packs: index.open_packs(reader.layout())?,
            index: index.path,
            target: lower.clone(),
            methods: Methods::default(),
            read_ahead_kb: None,
        })?;
        if self.read_write {
            uimgacc_mount::mount_overlay(&OverlayRequest {
                lower,
                upper: folder.upper(),
                work: folder.work(),
                target: target.to_owned(),
            })?;
        }
        Ok(mounted.method)
    }
}

/// Unmounts the lower mount, where it is one, and removes the folder.
///
/// Only for folders whose overlay is not mounted: its changes lie in there.
pub(crate) fn clear(folder: &MountFolder) -> anyhow::Result<()> {
    uimgacc_mount::unmount_all(&folder.lower())?;
    folder.remove()
}
