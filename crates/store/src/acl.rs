//! POSIX ACLs in the form of the xattrs `system.posix_acl_*` (kernel:
//! `linux/posix_acl_xattr.h`): pure.

/// Name of the xattr that says who may do what with a file.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of the xattr of a folder that says which ACL new files in it get.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Whether an ACL says more than a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Only owner, group and others: Linux keeps no ACL then.
    Mode,
    /// Named users or groups, or a mask.
    More,
}

/// Tag and permissions of each entry.
fn entries(value: &[u8]) -> Option<Vec<(u16, u16)>> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return None;
    }
    Some(
        entries
            .iter()
            .map(|[tag_low, tag_high, low, high, ..]| {
                (
                    u16::from_le_bytes([*tag_low, *tag_high]),
                    u16::from_le_bytes([*low, *high]),
                )
            })
            .collect(),
    )
}

/// Checks an ACL as the kernel's `posix_acl_valid` does.
///
/// # Errors
/// In words, that it is none.
pub fn check(value: &[u8]) -> Result<Meaning, String> {
    let bad = || "a malformed POSIX ACL".to_owned();
    let entries = entries(value).ok_or_else(bad)?;
    let count = |tag| entries.iter().filter(|entry| entry.0 == tag).count();
    let is_sorted = entries.is_sorted_by_key(|entry| entry.0);
    let is_known = entries.iter().all(|(tag, permissions)| {
        matches!(*tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER) && *permissions <= 7
    });
    let has_named = count(USER) + count(GROUP) > 0;
    let is_whole = count(USER_OBJ) == 1 && count(GROUP_OBJ) == 1 && count(OTHER) == 1;
    if !is_sorted || !is_known || !is_whole || count(MASK) > 1 || (has_named && count(MASK) == 0) {
        return Err(bad());
    }
    Ok(if has_named || count(MASK) == 1 {
        Meaning::More
    } else {
        Meaning::Mode
    })
}

/// A checked ACL after `chmod`: the mode's group bits go to the mask where there is one.
#[must_use]
pub fn with_mode(value: &[u8], permissions: u16) -> Box<[u8]> {
    let has_mask =
        entries(value).is_some_and(|entries| entries.iter().any(|entry| entry.0 == MASK));
    let mut value: Box<[u8]> = value.into();
    for entry in value.get_mut(4..).unwrap_or_default().chunks_exact_mut(8) {
        let bits = match u16::from_le_bytes([entry[0], entry[1]]) {
            USER_OBJ => permissions >> 6,
            GROUP_OBJ if !has_mask => permissions >> 3,
            MASK => permissions >> 3,
            OTHER => permissions,
            _ => continue,
        };
        entry[2..4].copy_from_slice(&(bits & 7).to_le_bytes());
    }
    value
}
