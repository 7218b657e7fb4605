//! containerd's `config.toml`: what we write into it, and how to take that out again. Pure.
//!
//! Guarantees: formatting, comments and order of everything else stay; an edited file edited again
//! is the same file; [`undo`] takes out only what was put in and still is as we put it, and gives
//! keys that had another value that value back.
//!
//! What is written, by the `version` of the file and that of containerd:
//! - `proxy_plugins.<name>` with `type` and `address`, always; with `exports.root` from 1.7.16 on,
//!   without which the kubelet looks for a folder that is not there and cannot tell how full the
//!   disk is; from 2.1 on with `exports.enable_remote_snapshot_annotations`, without which the
//!   transfer service does not say which blob a layer is.
//! - CRI's `snapshotter` and `disable_snapshot_annotations = false`: in
//!   `io.containerd.grpc.v1.cri` for files of version 2, in `io.containerd.cri.v1.images` for later
//!   ones. A containerd 2.x that reads a file of version 2 gets both: its migration drops the
//!   former where there is no `runtimes` table beside it (seen with 2.1.9).
//! - From 1.7 on `unpack_config` of the transfer service, which `ctr images pull` uses in 2.x. CRI
//!   does not: because annotations are on, it pulls by itself. 1.7 is told already, so that an
//!   upgrade of containerd finds it.

mod effective;
mod imports;
mod k3s;
mod tree;
mod undo;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Value};

use crate::version::ContainerdVersion;

pub use effective::not_effective;
pub use imports::{glob_matches, imports, overridden};
pub use k3s::{Distribution, distribution};
pub use undo::{Undone, undo};

/// What containerd is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The snapshotter's name in containerd.
    pub name: String,
    /// Its socket.
    pub address: String,
    /// Its folder: what the kubelet counts and cleans as the file system of images.
    pub root: String,
}

/// Why a configuration cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No TOML.
    #[error("is no valid TOML: {0}")]
    Syntax(String),
    /// A file of version 1, whose plugins have other names.
    #[error(
        "has no `version` line or version {found}, a form that containerd {containerd} only reads for old files: \
         write it anew with `containerd config dump` and check the result, or remove it where it is not needed"
    )]
    OldVersion {
        /// 1 where the line is missing.
        found: i64,
        /// What reads it.
        containerd: ContainerdVersion,
    },
    /// A file that this containerd does not read.
    #[error(
        "has version {found}, but containerd {containerd} reads only up to version {newest}: upgrade containerd"
    )]
    NewVersion {
        /// What stands there.
        found: i64,
        /// What reads it.
        containerd: ContainerdVersion,
        /// The newest it reads.
        newest: i64,
    },
    /// A key has a value of another kind than it should have.
    #[error("has {key} as {found}, where {expected} is expected: mend or remove that line")]
    Kind {
        /// The key, dotted.
        key: String,
        /// What stands there.
        found: &'static str,
        /// What should.
        expected: &'static str,
    },
}

/// Something to know about an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// CRI is switched off (as in the file of Docker's packages): Kubernetes cannot use this containerd.
    CriDisabled,
    /// A key had another value, which uninstall gives back.
    Replaced {
        /// The key, dotted.
        key: String,
        /// What it was, as TOML.
        before: String,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CriDisabled => f.write_str(
                "disabled_plugins switches CRI off: Kubernetes cannot use this containerd",
            ),
            Self::Replaced { key, before } => {
                write!(f, "{key} was {before}; uninstall gives that back")
            }
        }
    }
}

/// A key that was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueChange {
    /// Where.
    pub path: Vec<String>,
    /// What it was, as TOML; `None` where it was not there.
    pub before: Option<String>,
    /// What it is now, as TOML.
    pub after: String,
}

/// Everything that an edit changed, for [`undo`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Keys.
    pub values: Vec<ValueChange>,
    /// Tables that were not there, outer before inner.
    pub tables: Vec<Vec<String>>,
    /// Entries of the transfer service's `unpack_config`, by snapshotter.
    pub unpack: Vec<String>,
}

impl Changes {
    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Both together, where `self` came first: what was before `self` is what was before both.
    #[must_use]
    pub fn then(mut self, later: Self) -> Self {
        for change in later.values {
            match self.values.iter_mut().find(|one| one.path == change.path) {
                Some(first) => first.after = change.after,
                None => self.values.push(change),
            }
        }
        for table in later.tables {
            if !self.tables.contains(&table) {
                self.tables.push(table);
            }
        }
        for name in later.unpack {
            if !self.unpack.contains(&name) {
                self.unpack.push(name);
            }
        }
        self
    }
}

/// An edited configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The whole file.
    pub text: String,
    /// What was changed.
    pub changes: Changes,
    /// What to know.
    pub notes: Vec<Note>,
}

/// Edits a configuration; `None` and an empty text stand for a file that is not there.
///
/// # Errors
/// See [`ConfigError`].
pub fn edit(
    text: Option<&str>,
    containerd: ContainerdVersion,
    wanted: &Wanted,
) -> Result<Edited, ConfigError> {
    let text = text.unwrap_or_default();
    let mut document = parse(text)?;
    let mut changes = Changes::default();
    let mut notes = Vec::new();
    if document.is_empty() {
        let version = Value::from(containerd.file_version());
        tree::set(
            &mut document,
            &["version".to_owned()],
            version,
            &mut changes,
        )?;
    }
    let version = file_version(&document, containerd)?;
    if is_cri_disabled(&document) {
        notes.push(Note::CriDisabled);
    }
    for (path, value) in wanted_values(version, containerd, wanted) {
        tree::set(&mut document, &path, value, &mut changes)?;
    }
    if containerd.has_transfer_service() {
        tree::add_unpack(&mut document, containerd, &wanted.name, &mut changes)?;
    }
    for change in &changes.values {
        if let Some(before) = &change.before {
            notes.push(Note::Replaced {
                key: dotted(&change.path),
                before: before.clone(),
            });
        }
    }
    let text = if changes.is_empty() {
        text.to_owned()
    } else {
        document.to_string().trim_start_matches('\n').to_owned()
    };
    Ok(Edited {
        text,
        changes,
        notes,
    })
}

pub(crate) fn parse(text: &str) -> Result<DocumentMut, ConfigError> {
    text.parse()
        .map_err(|error: toml_edit::TomlError| ConfigError::Syntax(error.to_string()))
}

fn file_version(document: &DocumentMut, containerd: ContainerdVersion) -> Result<i64, ConfigError> {
    let found = match document.get("version") {
        None => 1,
        Some(item) => item.as_integer().ok_or_else(|| ConfigError::Kind {
            key: "version".to_owned(),
            found: item.type_name(),
            expected: "a number",
        })?,
    };
    let newest = containerd.newest_file_version();
    match found {
        ..2 => Err(ConfigError::OldVersion { found, containerd }),
        _ if found > newest => Err(ConfigError::NewVersion {
            found,
            containerd,
            newest,
        }),
        _ => Ok(found),
    }
}

const CRI: &str = "io.containerd.grpc.v1.cri";
const IMAGES: &str = "io.containerd.cri.v1.images";
const TRANSFER: &str = "io.containerd.transfer.v1.local";

fn is_cri_disabled(document: &DocumentMut) -> bool {
    let disabled = document
        .get("disabled_plugins")
        .and_then(|item| item.as_array());
    disabled.is_some_and(|list| {
        list.iter()
            .any(|one| matches!(one.as_str(), Some("cri" | CRI | IMAGES)))
    })
}

/// Every key that must have a value, with that value.
fn wanted_values(
    version: i64,
    containerd: ContainerdVersion,
    wanted: &Wanted,
) -> Vec<(Vec<String>, Value)> {
    let mut values = Vec::new();
    let mut add = |path: &[&str], value: Value| {
        values.push((path.iter().map(|part| (*part).to_owned()).collect(), value));
    };
    add(&["proxy_plugins", &wanted.name, "type"], "snapshot".into());
    let address = wanted.address.as_str();
    add(&["proxy_plugins", &wanted.name, "address"], address.into());
    if containerd.has_exports() {
        let root = wanted.root.as_str();
        add(
            &["proxy_plugins", &wanted.name, "exports", "root"],
            root.into(),
        );
    }
    if containerd.annotates_by_export() {
        let path = [
            "proxy_plugins",
            &wanted.name,
            "exports",
            "enable_remote_snapshot_annotations",
        ];
        add(&path, "true".into());
    }
    let mut cri = |table: &[&str]| {
        add(
            &[table, &["snapshotter"]].concat(),
            wanted.name.as_str().into(),
        );
        add(
            &[table, &["disable_snapshot_annotations"]].concat(),
            false.into(),
        );
    };
    if version == 2 {
        cri(&["plugins", CRI, "containerd"]);
    }
    if containerd.major > 1 {
        cri(&["plugins", IMAGES]);
    }
    values
}

/// A path as one would write it, with quotes where TOML needs them.
pub(crate) fn dotted(path: &[String]) -> String {
    let keys: Vec<String> = path
        .iter()
        .map(|part| toml_edit::Key::new(part).to_string().trim().to_owned())
        .collect();
    keys.join(".")
}
