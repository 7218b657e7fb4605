//! Which layers share a pack: pure.
//!
//! What is deleted together should lie together, and a layer counts as done only once its pack is sealed.
//! So each layer gets a pack of its own, as far as an image may have so many; beyond that, and where
//! they are small, neighbours share one, as they mostly come and go with each other.

/// Groups that are shorter together share a pack: so little is soon fetched again.
const SMALL_BYTES: u64 = 32 << 20;

/// Splits layers into groups of neighbours, at most `most` (at least 1), the longest group first. `sizes` are
/// the layers' compressed lengths in bytes, bottom first; the answer has their positions.
pub(crate) fn group(sizes: &[u64], most: usize) -> Vec<Vec<usize>> {
    let mut groups: Vec<(u64, Vec<usize>)> = sizes
        .iter()
        .enumerate()
        .map(|(at, size)| (*size, vec![at]))
        .collect();
    while let Some((at, bytes)) = smallest_pair(&groups) {
        if groups.len() <= most && bytes > SMALL_BYTES {
            break;
        }
        let (_, joined) = groups.remove(at + 1);
        if let Some((size, members)) = groups.get_mut(at) {
            *size = bytes;
            members.extend(joined);
        }
    }
    groups.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    groups.into_iter().map(|(_, members)| members).collect()
}

/// The neighbours that are shortest together, and their length.
fn smallest_pair(groups: &[(u64, Vec<usize>)]) -> Option<(usize, u64)> {
    let sums = groups.windows(2).map(|pair| match pair {
        [(one, _), (other, _)] => one.saturating_add(*other),
        _ => u64::MAX,
    });
    sums.enumerate().min_by_key(|(_, bytes)| *bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn large_layers_are_alone_and_small_neighbours_together() {
        let sizes = [50, 1, 2, 900, 3, 20].map(|size| size * MIB);
        assert_eq!(
            group(&sizes, 12),
            [vec![3], vec![0], vec![4, 5], vec![1, 2]]
        );
        assert_eq!(group(&[], 12), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn there_are_never_too_many() {
        let sizes = [100 * MIB; 100];
        let groups = group(&sizes, 12);
        assert_eq!(groups.len(), 12);
        assert!(groups.iter().all(|group| group.len() <= 16), "{groups:?}");
    }

    proptest! {
        #[test]
        fn each_layer_is_in_one_group(sizes in proptest::collection::vec(0..u64::MAX, 0..60), most in 1..20usize) {
            let groups = group(&sizes, most);
            prop_assert!(groups.len() <= most);
            let is_run = |group: &Vec<usize>| group.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            prop_assert!(groups.iter().all(is_run));
            let mut all: Vec<usize> = groups.into_iter().flatten().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
        }
    }
}
