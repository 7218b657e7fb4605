//! Drop-ins: files that a configuration imports, and what they take away from ours.
//!
//! containerd reads the main file first and each import after it, so a drop-in wins. 1.x puts a
//! drop-in's table of a plugin in the place of the whole table; 2.x merges key by key. The table of
//! a proxy plugin is always replaced as a whole.

use super::effective::{has, item};
use super::{ConfigError, Wanted, dotted, parse, wanted_values};
use crate::version::ContainerdVersion;

/// The `imports` of a configuration, as they stand there: paths with `*`, relative to its folder.
///
/// # Errors
/// Where the text is no TOML.
pub fn imports(text: &str) -> Result<Vec<String>, ConfigError> {
    let document = parse(text)?;
    let list = document.get("imports").and_then(|item| item.as_array());
    Ok(list
        .into_iter()
        .flatten()
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect())
}

/// The keys, dotted, of ours that a drop-in with this text overrides.
///
/// # Errors
/// Where the text is no TOML.
pub fn overridden(
    drop_in: &str,
    containerd: ContainerdVersion,
    wanted: &Wanted,
) -> Result<Vec<String>, ConfigError> {
    let document = parse(drop_in)?;
    let version = document
        .get("version")
        .and_then(toml_edit::Item::as_integer)
        .unwrap_or(2);
    let table = document.as_table();
    let values = wanted_values(version, containerd, wanted);
    let lost = values.iter().filter(|(path, value)| {
        let is_proxy = path.first().is_some_and(|part| part == "proxy_plugins");
        if is_proxy || containerd.major == 1 {
            let whole = path.get(..2).unwrap_or(path);
            item(table, whole).is_some() && !has(table, path, value)
        } else {
            item(table, path).is_some() && !has(table, path, value)
        }
    });
    Ok(lost.map(|(path, _)| dotted(path)).collect())
}

/// Whether a name matches a pattern with `*` and `?`, as in a file name of `imports`.
#[must_use]
pub fn glob_matches(pattern: &str, name: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern.as_str();
            name.char_indices()
                .map(|(start, _)| start)
                .chain([name.len()])
                .any(|start| {
                    name.get(start..)
                        .is_some_and(|tail| glob_matches(rest, tail))
                })
        }
        Some(wanted) => {
            let mut name = name.chars();
            name.next()
                .is_some_and(|found| wanted == '?' || found == wanted)
                && glob_matches(pattern.as_str(), name.as_str())
        }
    }
}
