//! Setting one key, or one entry of a list, in whatever spelling the file has.
//!
//! What is new follows its surroundings: a key in an inline table is written inline, below a dotted
//! key dotted, and else under a header of its own.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::{Changes, ConfigError, TRANSFER, ValueChange, dotted};
use crate::version::ContainerdVersion;

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Header,
    Dotted,
    Inline,
}

impl Style {
    fn of(item: &Item) -> Self {
        match item {
            Item::Table(table) if table.is_dotted() => Self::Dotted,
            Item::Value(_) => Self::Inline,
            _ => Self::Header,
        }
    }

    fn new_table(self) -> Item {
        match self {
            Self::Inline => Item::Value(Value::InlineTable(InlineTable::new())),
            Self::Header => {
                let mut table = Table::new();
                // Shown as soon as it has a key of its own.
                table.set_implicit(true);
                Item::Table(table)
            }
            Self::Dotted => {
                let mut table = Table::new();
                table.set_dotted(true);
                Item::Table(table)
            }
        }
    }
}

/// Sets a key, where it is not that already.
pub(super) fn set(
    document: &mut DocumentMut,
    path: &[String],
    value: Value,
    changes: &mut Changes,
) -> Result<(), ConfigError> {
    let Some((key, folder)) = path.split_last() else {
        return Ok(());
    };
    let (table, _) = open(document, folder, &mut changes.tables)?;
    let after = bare(&value);
    let before = match table.get_mut(key) {
        None => {
            let indent = indent_of(table);
            table.insert(key, Item::Value(value));
            if let Some(mut key) = table.key_mut(key).filter(|_| !indent.is_empty()) {
                key.leaf_decor_mut().set_prefix(indent);
            }
            None
        }
        Some(Item::Value(old)) if same(old, &value) => return Ok(()),
        Some(Item::Value(old)) => Some(replace(old, value)),
        Some(other) => {
            return Err(ConfigError::Kind {
                key: dotted(path),
                found: other.type_name(),
                expected: "a value",
            });
        }
    };
    changes.values.push(ValueChange {
        path: path.to_vec(),
        before,
        after,
    });
    Ok(())
}

/// Puts `value` in the place of `old`, comments included, and returns `old` as TOML.
pub(super) fn replace(old: &mut Value, mut value: Value) -> String {
    *value.decor_mut() = old.decor().clone();
    bare(&std::mem::replace(old, value))
}

/// A value as TOML, without what stands around it.
pub(super) fn bare(value: &Value) -> String {
    value.clone().decorated("", "").to_string()
}

/// Whether two strings, numbers or truth values are equal, however they are spelt.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.value() == b.value(),
        (Value::Boolean(a), Value::Boolean(b)) => a.value() == b.value(),
        (Value::Integer(a), Value::Integer(b)) => a.value() == b.value(),
        _ => bare(a) == bare(b),
    }
}

/// The white space before the keys of a table, so that a new one stands in line.
fn indent_of(table: &dyn TableLike) -> String {
    let first = table.iter().find(|(_, item)| item.is_value());
    let key = first.and_then(|(key, _)| table.key(key));
    let prefix = key.and_then(|key| key.leaf_decor().prefix()?.as_str());
    let line = prefix.and_then(|prefix| prefix.rsplit('\n').next());
    line.filter(|line| line.chars().all(|c| c == ' ' || c == '\t'))
        .unwrap_or_default()
        .to_owned()
}

/// The table at `path`, made where it is not there.
fn open<'d>(
    document: &'d mut DocumentMut,
    path: &[String],
    made: &mut Vec<Vec<String>>,
) -> Result<(&'d mut dyn TableLike, Style), ConfigError> {
    let mut style = Style::Header;
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for (depth, part) in path.iter().enumerate() {
        let here = path.get(..=depth).unwrap_or(path);
        if table.get(part).is_none_or(Item::is_none) {
            table.insert(part, style.new_table());
            made.push(here.to_vec());
        }
        let missing = |found| ConfigError::Kind {
            key: dotted(here),
            found,
            expected: "a table",
        };
        let Some(item) = table.get_mut(part) else {
            return Err(missing("nothing"));
        };
        style = Style::of(item);
        let found = item.type_name();
        table = item.as_table_like_mut().ok_or_else(|| missing(found))?;
    }
    Ok((table, style))
}

/// The table at `path`, where it is there and is one.
pub(super) fn find<'d>(
    document: &'d mut DocumentMut,
    path: &[String],
) -> Option<&'d mut dyn TableLike> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for part in path {
        table = table.get_mut(part)?.as_table_like_mut()?;
    }
    Some(table)
}

/// Path of the list of what the transfer service unpacks for.
pub(super) fn unpack_path() -> [String; 3] {
    ["plugins", TRANSFER, "unpack_config"].map(str::to_owned)
}

/// Adds an entry for `name` to the list, where none is; a new list needs the default ones too,
/// because it takes their place.
pub(super) fn add_unpack(
    document: &mut DocumentMut,
    containerd: ContainerdVersion,
    name: &str,
    changes: &mut Changes,
) -> Result<(), ConfigError> {
    let [plugins, transfer, key] = unpack_path();
    let (table, style) = open(document, &[plugins, transfer], &mut changes.tables)?;
    let is_new = table.get(&key).is_none_or(Item::is_none);
    if is_new {
        let list = if style == Style::Header {
            Item::ArrayOfTables(ArrayOfTables::new())
        } else {
            Item::Value(Value::Array(Array::new()))
        };
        table.insert(&key, list);
    }
    let Some(list) = table.get_mut(&key) else {
        return Ok(());
    };
    if snapshotters(list).any(|found| found == name) {
        return Ok(());
    }
    let mut entries = Vec::new();
    if is_new {
        entries.push(("overlayfs", entry("linux", "overlayfs", "walking")));
        if containerd.unpacks_erofs() {
            let mut erofs = entry(EROFS_PLATFORM, "erofs", "erofs");
            erofs.insert("optional", true.into());
            entries.push(("erofs", erofs));
        }
    }
    entries.push((name, entry("linux", name, "walking")));
    for (name, entry) in entries {
        match list {
            Item::ArrayOfTables(tables) => tables.push(entry.into_table()),
            Item::Value(Value::Array(array)) => array.push(Value::InlineTable(entry)),
            other => {
                return Err(ConfigError::Kind {
                    key: dotted(&unpack_path()),
                    found: other.type_name(),
                    expected: "a list of tables",
                });
            }
        }
        changes.unpack.push(name.to_owned());
    }
    Ok(())
}

/// The platform of images that are EROFS already, as containerd writes it.
const EROFS_PLATFORM: &str = "linux(+erofs)";

/// `differ` is named because 2.x has two of them, and picks one with a warning else.
fn entry(platform: &str, snapshotter: &str, differ: &str) -> InlineTable {
    let mut entry = InlineTable::new();
    entry.insert("platform", platform.into());
    entry.insert("snapshotter", snapshotter.into());
    entry.insert("differ", differ.into());
    entry
}

/// The snapshotters of a list's entries, in order; empty for one without.
pub(super) fn snapshotters(list: &Item) -> Box<dyn Iterator<Item = &str> + '_> {
    match list {
        Item::ArrayOfTables(tables) => Box::new(
            tables
                .iter()
                .map(|table| text(table.get("snapshotter").and_then(Item::as_value))),
        ),
        Item::Value(Value::Array(array)) => Box::new(array.iter().map(|value| {
            let table = value.as_inline_table();
            text(table.and_then(|table| table.get("snapshotter")))
        })),
        _ => Box::new(std::iter::empty()),
    }
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}
