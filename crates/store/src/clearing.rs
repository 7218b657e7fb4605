//! Clearing away the directory of a session or gc that is over.
//!
//! Only a *completed* clearing fences its owner ([`crate::workspace`]): a directory that is merely
//! renamed still takes files from, and gives files to, whoever has it open. So nobody decides
//! anything before each dead owner's directory is gone:
//!
//! 1. It is renamed to `over-<id>`: the owner's next look-up of its path fails. An owner that lost
//!    only its intent would look like one about to start.
//! 2. What is in it is removed, then the directory itself. The owner may add files meanwhile through
//!    a handle that it got before; then the directory is not empty and the removal begins again.
//! 3. Once it is gone, links and renames through such handles fail as well (`ENOENT`, on NFS
//!    `ESTALE`).
//!
//! A clearer that dies in between leaves `over-<id>`, which the next one completes before it decides
//! anything. Two clearers at once do the same work and both wait for the end of it.

use std::io;
use std::time::Duration;

use crate::Layout;
use crate::clock::server_now;
use crate::commit::CommitError;
use crate::path::StorePath;

/// Names what is being cleared away.
pub(crate) const OVER: &str = "over-";

/// How often it is tried. NFS keeps the name of a file that a process of this machine has open,
/// until that closes it.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Clears a directory away. When this returns without an error its owner changes nothing any more.
pub(crate) fn clear_away(layout: &Layout, dir: &StorePath) -> io::Result<()> {
    let over = match dir.name().and_then(|name| name.split_once('-')) {
        Some((_, id)) => dir.with_name(&format!("{OVER}{id}")),
        None => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut failure = None;
        for step in [
            if *dir == over {
                Ok(())
            } else {
                dir.rename(&over)
            },
            over.remove_tree(),
        ] {
            match step {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failure = Some(error),
                Ok(()) => {}
            }
        }
        // A change of one's own makes an NFS client ask the server again for names that it knows
        // to be missing.
        server_now(layout);
        if !over.exists()? && !dir.exists()? {
            return Ok(());
        }
        if attempts >= ATTEMPTS {
            return Err(failure.unwrap_or_else(|| io::ErrorKind::DirectoryNotEmpty.into()));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Clears away what a session or gc left, which people know as `who`.
pub(crate) fn clear(layout: &Layout, dir: &StorePath, who: &str) -> Result<(), CommitError> {
    clear_away(layout, dir).map_err(|source| CommitError::NotCleared {
        dir: dir.on_host(),
        who: who.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::commit::make_directory;

    fn store(name: &str) -> (tempfile::TempDir, Layout, StorePath) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let dir = layout.tmp().join(name);
        make_directory(&dir).unwrap();
        dir.join("intent.json").create_new().unwrap();
        (folder, layout, dir)
    }

    #[test]
    fn who_adds_files_meanwhile_is_fenced_in_the_end() {
        let (_folder, layout, dir) = store("gc-01");
        let handle = std::fs::File::open(dir.on_host()).unwrap();
        let inside = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let add = |number: u32| std::fs::write(format!("{inside}/{number}"), "x");
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| {
                let is_added = |at: &u32| {
                    std::thread::sleep(Duration::from_micros(200));
                    add(*at).is_ok()
                };
                (0..u32::MAX).take_while(is_added).count()
            });
            while dir.list().map_or(0, |files| files.len()) < 20 {}
            clear_away(&layout, &dir).unwrap();
            let error = add(u32::MAX).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(adding.join().unwrap() >= 19);
        });
        assert_eq!(layout.tmp().list().unwrap(), Vec::new());
    }

    #[test]
    fn what_another_clearer_began_is_completed() {
        let (_folder, layout, dir) = store("create-01");
        let over = dir.with_name("over-01");
        dir.rename(&over).unwrap();
        // As its owner or the other clearer knows it, and as a third one finds it.
        clear_away(&layout, &dir).unwrap();
        assert!(!over.exists().unwrap());
        make_directory(&over.join("more")).unwrap();
        clear_away(&layout, &over).unwrap();
        clear_away(&layout, &over).unwrap();
        assert_eq!(layout.tmp().list().unwrap(), Vec::new());
    }

    #[test]
    fn many_clear_at_once() {
        let (_folder, layout, dir) = store("create-01");
        for number in 0..500 {
            dir.join(number.to_string()).create_new().unwrap();
        }
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    clear_away(&layout, &dir).unwrap();
                    assert!(!dir.with_name("over-01").exists().unwrap());
                });
            }
        });
    }
}
