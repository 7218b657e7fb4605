//! Whether containerd, by its own word, has what it was told.

use toml_edit::{Item, Table, Value};

use super::tree::{same, snapshotters, unpack_path};
use super::{ConfigError, Wanted, dotted, is_cri_disabled, parse, wanted_values};
use crate::version::ContainerdVersion;

/// The keys, dotted, that `containerd config dump` shows with another value than wanted.
///
/// # Errors
/// Where the dump is no TOML.
pub fn not_effective(
    dump: &str,
    containerd: ContainerdVersion,
    wanted: &Wanted,
) -> Result<Vec<String>, ConfigError> {
    let document = parse(dump)?;
    // A dump is always of the newest version.
    let mut values = wanted_values(containerd.file_version(), containerd, wanted);
    if is_cri_disabled(&document) {
        values.retain(|(path, _)| path.first().is_none_or(|part| part != "plugins"));
    }
    let mut missing: Vec<String> = values
        .iter()
        .filter(|(path, value)| !has(document.as_table(), path, value))
        .map(|(path, _)| dotted(path))
        .collect();
    if containerd.has_transfer_service() {
        let path = unpack_path();
        let list = item(document.as_table(), &path);
        if !list.is_some_and(|list| snapshotters(list).any(|found| found == wanted.name)) {
            missing.push(dotted(&path));
        }
    }
    Ok(missing)
}

pub(super) fn has(table: &Table, path: &[String], wanted: &Value) -> bool {
    item(table, path)
        .and_then(Item::as_value)
        .is_some_and(|value| same(value, wanted))
}

pub(super) fn item<'d>(table: &'d Table, path: &[String]) -> Option<&'d Item> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(first)?, |item, part| {
        item.as_table_like()?.get(part)
    })
}
