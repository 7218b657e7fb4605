//! Which methods there are, and the order in which they are tried.

mod file;
mod loop_device;

use std::fmt;
use std::str::FromStr;

use crate::{AttemptError, MountRequest, ReadAhead};

/// How an index and its packs are handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// The files themselves, read past their own page cache (Linux 6.15).
    FileDirectio,
    /// The files themselves (Linux 6.12); contents may be cached twice.
    File,
    /// Each file as a loop device (Linux 5.16).
    Loop,
}

impl Method {
    /// Every method, best first.
    pub const ALL: [Self; 3] = [Self::FileDirectio, Self::File, Self::Loop];

    /// Its name in options and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FileDirectio => "file-directio",
            Self::File => "file",
            Self::Loop => "loop",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text names no methods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no list of mount methods; known are file-directio, file and loop")]
pub struct ParseMethodsError(String);

/// Methods in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Methods(Vec<Method>);

impl Default for Methods {
    fn default() -> Self {
        Self(Method::ALL.to_vec())
    }
}

impl Methods {
    /// Only these, in this order.
    #[must_use]
    pub fn new(methods: impl IntoIterator<Item = Method>) -> Self {
        Self(methods.into_iter().collect())
    }

    /// All of them, with `first` before the others where it is among them.
    pub(crate) fn starting_with(&self, first: Option<Method>) -> Vec<Method> {
        let mut methods = self.0.clone();
        methods.sort_by_key(|method| Some(*method) != first);
        methods
    }
}

impl FromStr for Methods {
    type Err = ParseMethodsError;

    /// Parses names with commas between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(|name| Method::ALL.into_iter().find(|known| known.name() == name))
            .collect::<Option<Vec<Method>>>()
            .map(Self)
            .ok_or_else(|| ParseMethodsError(text.to_owned()))
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|method| method.name()).collect();
        f.write_str(&names.join(","))
    }
}

pub(crate) fn mount(
    method: Method,
    request: &MountRequest,
) -> Result<Option<ReadAhead>, AttemptError> {
    match method {
        Method::FileDirectio => file::mount(request, true),
        Method::File => file::mount(request, false),
        Method::Loop => loop_device::mount(request),
    }
}
