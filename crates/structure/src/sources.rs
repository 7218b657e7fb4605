//! The files of a crate, and the modules that they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A module by its path from the root of the crate, which is empty.
pub(crate) type Module = Vec<String>;

/// The modules of a crate that have files of their own, parsed.
#[derive(Debug)]
pub struct Crate {
    pub(crate) modules: BTreeMap<Module, syn::File>,
}

/// A source that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// By the file system.
    #[error("{0}")]
    Io(PathBuf, #[source] io::Error),
    /// By the parser.
    #[error("{0}")]
    Syntax(PathBuf, #[source] syn::Error),
}

impl Crate {
    /// Reads all source files below a directory.
    ///
    /// # Errors
    /// Where a file cannot be read or is not Rust.
    pub fn read(sources: &Path) -> Result<Self, Error> {
        let mut modules = BTreeMap::new();
        read_directory(sources, &Module::new(), &mut modules)?;
        Ok(Self { modules })
    }
}

fn read_directory(
    directory: &Path,
    parent: &Module,
    modules: &mut BTreeMap<Module, syn::File>,
) -> Result<(), Error> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::Io(path, error)
    };
    for entry in fs::read_dir(directory).map_err(io(directory))? {
        let path = entry.map_err(io(directory))?.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
            continue;
        };
        if name == "tests" {
            continue;
        }
        let mut module = parent.clone();
        if path.is_dir() {
            module.push(name.to_owned());
            read_directory(&path, &module, modules)?;
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            // A crate may be a library and a program: they are one here.
            if !(parent.is_empty() && matches!(name, "lib" | "main")) {
                module.push(name.to_owned());
            }
            let text = fs::read_to_string(&path).map_err(io(&path))?;
            let file =
                syn::parse_file(&text).map_err(|error| Error::Syntax(path.clone(), error))?;
            match modules.get_mut(&module) {
                Some(known) => known.items.extend(file.items),
                None => {
                    modules.insert(module, file);
                }
            }
        }
    }
    Ok(())
}
