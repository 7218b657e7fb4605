//! The configuration file on disk: where it is, and how it is read and written.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::Error;

/// Names the file, where the command line does not.
pub const VARIABLE: &str = "UIMGACC_CONFIG";
/// More is no configuration.
const MAX_BYTES: u64 = 1 << 20;

/// Where the file is where nobody names one: below `XDG_CONFIG_HOME`, else below `~/.config`.
/// `variable` reads the environment. `None`: there is no home.
#[must_use]
pub fn default_path(variable: impl Fn(&'static str) -> Option<OsString>) -> Option<PathBuf> {
    // The XDG Base Directory Specification ignores relative ones.
    let folder = |name| {
        let path = variable(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let base = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(base.join("uimgacc").join("config.toml"))
}

/// A file that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// Others than its owner may read it or write to it, and it holds a key or a password.
    pub is_exposed: bool,
}

/// Reads a file's text; `None` where there is none.
///
/// # Errors
/// [`Error::File`].
pub fn read(path: &Path) -> Result<Option<(String, u32)>, Error> {
    let failed = |source| Error::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mode = file.metadata().map_err(failed)?.mode();
    let mut text = String::new();
    let mut limited = file.take(MAX_BYTES + 1);
    limited.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(ErrorKind::FileTooLarge.into()));
    }
    Ok(Some((text, mode)))
}

/// Reads and understands a file; `None` where there is none.
///
/// # Errors
/// [`Error::File`], [`Error::Config`].
pub fn load(path: &Path) -> Result<Option<Loaded>, Error> {
    let Some((text, mode)) = read(path)? else {
        return Ok(None);
    };
    let config = Config::parse(&text).map_err(|source| Error::Config {
        path: path.to_owned(),
        source,
    })?;
    let is_exposed = mode & 0o077 != 0 && config.has_secrets();
    Ok(Some(Loaded { config, is_exposed }))
}

/// Writes a file that only its owner can read. After a crash there is either the old one or the new
/// one, whole; a link to a file elsewhere stays one.
///
/// # Errors
/// [`Error::File`].
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = sibling(&target);
    let written = replace(&target, &temporary, text);
    if written.is_err() {
        // What is left of it may hold a key.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|source| Error::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

fn sibling(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn replace(path: &Path, temporary: &Path, text: &str) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    // One left by a process of the same number, which is gone.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let options = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .to_owned();
    let mut file = options.open(temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn places() {
        let of = |pairs: &[(&str, &str)]| {
            let found = default_path(|name| {
                let pair = pairs.iter().find(|(key, _)| *key == name);
                pair.map(|(_, value)| OsString::from(value))
            });
            found.map(|path| path.display().to_string())
        };
        let home = Some("/h/.config/uimgacc/config.toml".to_owned());
        assert_eq!(of(&[("HOME", "/h")]), home);
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "x")]), home);
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "")]), home);
        let xdg = of(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]);
        assert_eq!(xdg.as_deref(), Some("/x/uimgacc/config.toml"));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn written_whole_and_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/config.toml");
        assert_eq!(load(&path).unwrap(), None);
        write(&path, "private_key = 'geheim'\n").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert!(!load(&path).unwrap().unwrap().is_exposed);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&path).unwrap().unwrap().is_exposed);
        // Written anew it is closed again, through a link as well, and nothing else is left.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, "region = 'x'\n").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!load(&path).unwrap().unwrap().is_exposed, "no secrets");
        let refused = write(&path.join("below/a/file"), "").unwrap_err();
        assert!(refused.to_string().contains("below"), "{refused}");
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(load(folder.path()), Err(Error::File { .. })));
        let path = folder.path().join("big");
        fs::write(&path, vec![b'\n'; (1 << 20) + 1]).unwrap();
        assert!(matches!(load(&path), Err(Error::File { .. })));
        fs::write(&path, "x").unwrap();
        let refused = load(&path).unwrap_err();
        assert!(refused.to_string().contains("big"), "{refused}");
    }
}
