//! Our programs, as they were built beside the test that runs.

use std::path::PathBuf;
use std::process::Command;

/// Those that people call.
pub const OURS: [&str; 3] = ["uimgacc", "uimgacc-snapshotter", "uimgacc-api"];

/// The directory they are in: `$UIMGACC_PROGRAMS`, else that of the build which this test is of.
#[must_use]
pub fn directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("UIMGACC_PROGRAMS") {
        return directory.into();
    }
    let test = std::env::current_exe().expect("the path of this test");
    // The test lies in the directory's `deps`.
    test.ancestors()
        .nth(2)
        .map(PathBuf::from)
        .expect("a build directory")
}

/// One of them.
///
/// # Panics
/// Where it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = directory().join(name);
    assert!(
        path.exists(),
        "{} is not there: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

/// The command `uimgacc`, without what the environment of the test says of stores and clusters.
#[must_use]
pub fn uimgacc(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("uimgacc"));
    command
        .args(arguments)
        .env_remove("UIMGACC_STORE")
        .env_remove("UIMGACC_CONFIG")
        .env_remove("UIMGACC_BASE_URL")
        .env("XDG_CONFIG_HOME", "/nonexistent");
    command
}
