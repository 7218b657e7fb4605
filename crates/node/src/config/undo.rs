//! Taking our entries out of a configuration that somebody has edited since.

use toml_edit::{Item, TableLike, Value};

use super::tree::{bare, find, replace, snapshotters, unpack_path};
use super::{Changes, ConfigError, dotted, parse};

/// A configuration without our entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The whole file.
    pub text: String,
    /// Keys, dotted, that somebody has changed since, and that stay as they are.
    pub kept: Vec<String>,
}

/// Takes out what `changes` put in. What was changed since stays.
///
/// # Errors
/// Where the text is no TOML.
pub fn undo(text: &str, changes: &Changes) -> Result<Undone, ConfigError> {
    let mut document = parse(text)?;
    let mut kept = Vec::new();
    undo_unpack(&mut document, &changes.unpack);
    for change in changes.values.iter().rev() {
        let Some((key, folder)) = change.path.split_last() else {
            continue;
        };
        let Some(table) = find(&mut document, folder) else {
            continue;
        };
        match table.get_mut(key) {
            None => {}
            Some(Item::Value(value)) if bare(value) == change.after => {
                let before = change
                    .before
                    .as_ref()
                    .and_then(|text| text.parse::<Value>().ok());
                match before {
                    Some(before) => {
                        replace(value, before);
                    }
                    // Needed as long as anything else is there, which is known at the end.
                    None if change.path == ["version"] => {}
                    None => {
                        find(&mut document, folder).and_then(|table| table.remove(key));
                    }
                }
            }
            Some(_) => kept.push(dotted(&change.path)),
        }
    }
    for path in changes.tables.iter().rev() {
        let Some((key, folder)) = path.split_last() else {
            continue;
        };
        let Some(outer) = find(&mut document, folder) else {
            continue;
        };
        let table = outer.get(key).and_then(Item::as_table_like);
        if table.is_some_and(TableLike::is_empty) {
            outer.remove(key);
        }
    }
    let version = changes
        .values
        .iter()
        .find(|change| change.path == ["version"]);
    let is_ours = version.is_some_and(|change| {
        let value = document.get("version").and_then(Item::as_value);
        value.is_some_and(|value| bare(value) == change.after)
    });
    if is_ours && document.len() == 1 {
        document.remove("version");
    }
    Ok(Undone {
        text: document.to_string(),
        kept,
    })
}

fn undo_unpack(document: &mut toml_edit::DocumentMut, added: &[String]) {
    let [plugins, transfer, key] = unpack_path();
    let Some(table) = find(document, &[plugins, transfer]) else {
        return;
    };
    let Some(list) = table.get_mut(&key) else {
        return;
    };
    if added.is_empty() {
        return;
    }
    // The default entries that we named stay needed where somebody has added one of their own.
    let all_ours = snapshotters(list).all(|found| added.iter().any(|name| name == found));
    let ours = added.last();
    let positions: Vec<usize> = snapshotters(list)
        .enumerate()
        .filter(|(_, found)| all_ours || ours.is_some_and(|name| name == found))
        .map(|(position, _)| position)
        .collect();
    for position in positions.into_iter().rev() {
        match list {
            Item::ArrayOfTables(tables) => {
                tables.remove(position);
            }
            Item::Value(Value::Array(array)) => {
                array.remove(position);
            }
            _ => {}
        }
    }
    // A list that was there, and empty, means something else than none: but then we made it not.
    if all_ours && added.len() > 1 {
        table.remove(&key);
    }
}
