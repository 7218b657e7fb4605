//! Which mount method works on this node: found out at the start by mounting a tiny image.
//!
//! A kernel without EROFS, or a process without the right to mount, could promise layers that no
//! container ever gets. So nothing is promised before an image of two devices was mounted below
//! `root/trial` and read back. While that fails it is tried again every [`AGAIN`]: somebody may load
//! a module.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use uimgacc_erofs::tree::{ChunkAddress, ChunkedContents, Contents, Device, Inode, Kind, Tree};
use uimgacc_mount::{Method, Methods, MountError, MountRequest, mount_image, unmount_all};

use uimgacc_store::StoreFile;
use uimgacc_types::with_causes;

const AGAIN: Duration = Duration::from_secs(60);
const BLOCK: usize = 4096;
const NAME: &str = "file";

/// Why no method works.
#[derive(Debug, thiserror::Error)]
enum TrialError {
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot write the image of the trial")]
    Write(#[from] uimgacc_erofs::WriteError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("an image that was mounted for a trial shows other bytes than it has")]
    Wrong,
}

/// What the trials found.
#[derive(Debug)]
pub(crate) struct Trial {
    /// `None` before the first has ended.
    found: watch::Sender<Option<Result<Method, String>>>,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            found: watch::Sender::new(None),
        }
    }
}

impl Trial {
    /// The method that works, once one is known.
    #[must_use]
    pub(crate) fn method(&self) -> Option<Method> {
        self.found.borrow().as_ref()?.as_ref().ok().copied()
    }

    /// Whether some method works; waits for the end of the first trial, but not longer than that.
    pub(crate) async fn works(&self, patience: Duration) -> bool {
        let mut found = self.found.subscribe();
        let first = tokio::time::timeout(patience, found.wait_for(Option::is_some));
        // Not in time is no.
        let _ = first.await;
        self.method().is_some()
    }

    /// Tries until some method works.
    pub(crate) async fn keep_trying(&self, root: &Path, methods: &Methods) {
        loop {
            let (folder, methods) = (root.join("trial"), methods.clone());
            let tried = tokio::task::spawn_blocking(move || {
                let tried = attempt(&folder, &methods);
                // What stays is replaced by the next trial.
                let _ = fs::remove_dir_all(&folder);
                tried
            });
            // It only fails when the runtime stops.
            let Ok(tried) = tried.await else { return };
            let known = self.found.send_replace(Some(match &tried {
                Ok(method) => Ok(*method),
                Err(error) => Err(with_causes(error)),
            }));
            match tried {
                Ok(method) => {
                    tracing::info!(%method, "images can be mounted");
                    return;
                }
                Err(error) if known.is_none() => {
                    let error = with_causes(&error);
                    tracing::error!(error, "no image can be mounted here; all are pulled");
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrialError {
    let path = path.to_owned();
    move |source| TrialError::Io {
        action,
        path,
        source,
    }
}

/// Mounts an image of one file whose bytes lie in a second device, reads it and unmounts it.
fn attempt(folder: &Path, methods: &Methods) -> Result<Method, TrialError> {
    let target = folder.join("mnt");
    fs::create_dir_all(&target).map_err(io("make", &target))?;
    // Left by a process that was killed at just this place.
    unmount_all(&target)?;
    let bytes = [b'x'; BLOCK];
    let pack = folder.join("pack");
    fs::write(&pack, bytes).map_err(io("write", &pack))?;
    let index = folder.join("index.erofs");
    let mut file = fs::File::create(&index).map_err(io("make", &index))?;
    uimgacc_erofs::write(&tree(), &mut file)?;
    let mounted = mount_image(&MountRequest {
        index,
        packs: vec![StoreFile::of_this_machine(&pack).map_err(io("open", &pack))?],
        target: target.clone(),
        methods: methods.clone(),
        read_ahead_kb: None,
    })?;
    let path = target.join(NAME);
    let read = fs::read(&path).map_err(io("read", &path));
    unmount_all(&target)?;
    if read? != bytes {
        return Err(TrialError::Wrong);
    }
    Ok(mounted.method)
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.devices.push(Device {
        tag: [b'0'; 64],
        blocks: 1,
    });
    let id = tree.add(Inode {
        permissions: 0o600,
        kind: Kind::Regular(Contents::Chunks(ChunkedContents {
            size_bytes: BLOCK as u64,
            chunk_log2: 12,
            chunks: vec![Some(ChunkAddress {
                device: 0,
                start_block: 0,
            })],
        })),
        ..Inode::empty_directory()
    });
    if let (Some(id), Some(entries)) = (id, tree.inode_mut(Tree::ROOT).entries_mut()) {
        entries.insert(NAME.as_bytes().into(), id);
    }
    tree
}
