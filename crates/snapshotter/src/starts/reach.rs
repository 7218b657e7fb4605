//! How far a list may be fetched for what a container has opened. Pure.

use std::collections::HashMap;

/// Once the container runs, so much is read ahead of files that it has not opened (yet), or as much as
/// it has opened, where that is more: what runs another program than the one that was recorded waits for
/// that at most, and what follows the list is never held up by it.
const LEAD_BYTES: u64 = 8 << 20;

/// A list, and which of its files were opened.
#[derive(Debug, Default)]
pub(super) struct Reach {
    places: HashMap<String, usize>,
    /// Bytes that are to be read of each file, and whether it was opened.
    files: Vec<(u64, bool)>,
    /// All files before this one are fetched: that is so many bytes,
    next: usize,
    bytes: u64,
    /// and so many of them are of files that were not opened.
    unopened_bytes: u64,
}

impl Reach {
    /// Of these files, with the bytes that are to be read of each.
    pub(super) fn new(listed: Vec<(String, u64)>) -> Self {
        let files = listed.iter().map(|(_, bytes)| (*bytes, false)).collect();
        let paths = listed.into_iter().map(|(path, _)| path);
        Self {
            places: paths.zip(0..).collect(),
            files,
            ..Self::default()
        }
    }

    /// A file was opened, for the first time.
    pub(super) fn open(&mut self, path: &str) {
        let place = self.places.remove(path);
        let Some((place, file)) = place.and_then(|at| Some((at, self.files.get_mut(at)?))) else {
            return;
        };
        file.1 = true;
        if place < self.next {
            self.unopened_bytes -= file.0;
        }
    }

    /// So many bytes of the list may be fetched; `None` for all.
    pub(super) fn limit(&mut self) -> Option<u64> {
        while let Some((bytes, is_opened)) = self.files.get(self.next) {
            let unopened = if *is_opened { 0 } else { *bytes };
            let lead = LEAD_BYTES.max(self.bytes - self.unopened_bytes);
            let left = lead - self.unopened_bytes;
            if unopened > left {
                return Some(self.bytes + left);
            }
            self.unopened_bytes += unopened;
            self.bytes += bytes;
            self.next += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_waits_for_the_container() {
        let listed = [
            ("a", 3 << 20),
            ("b", 40 << 20),
            ("c", 1 << 20),
            ("d", 60 << 20),
        ];
        let listed = listed.map(|(path, bytes)| (path.to_owned(), bytes));
        let reach = |opened: &[&str]| {
            let mut at_once = Reach::new(listed.to_vec());
            let mut in_steps = Reach::new(listed.to_vec());
            for path in opened {
                at_once.open(path);
                in_steps.limit();
                in_steps.open(path);
            }
            assert_eq!(at_once.limit(), in_steps.limit(), "{opened:?}");
            at_once.limit().unwrap_or(u64::MAX)
        };
        assert_eq!(reach(&[]), 8 << 20);
        assert_eq!(reach(&["a"]), 11 << 20);
        // A file late in the list, opened by another program, does not let all before it be read.
        assert_eq!(reach(&["a", "c", "d"]), 11 << 20);
        // What was opened of the list, 43 MiB, may be ahead.
        assert_eq!(reach(&["a", "b"]), (44 << 20) + (42 << 20));
        assert_eq!(reach(&["a", "b", "d"]), u64::MAX);
        assert_eq!(reach(&["d", "b", "a"]), u64::MAX);
        assert_eq!(Reach::new(Vec::new()).limit(), None);
    }
}
