//! `uimgacc man`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man as Page;
use uimgacc_console::Printer;

/// Print the manual page, or write all of them to a folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  uimgacc man | man -l -
  uimgacc man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Folder for one page a verb; made where it is missing.
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let mut command = crate::Arguments::command();
        command.build();
        let Some(dir) = self.dir else {
            printer.data(&String::from_utf8_lossy(&render(command)?))?;
            return Ok(());
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let count = write(&command, "uimgacc", &dir)?;
        printer.say(&format!("{count} manual pages are in {}", dir.display()));
        Ok(())
    }
}

fn render(command: Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Page::new(command).render(&mut page)?;
    Ok(page)
}

/// Writes the page of a command and those of its verbs; returns how many.
fn write(command: &Command, name: &str, dir: &Path) -> anyhow::Result<usize> {
    let path = dir.join(format!("{name}.1"));
    let page = render(
        command
            .clone()
            .disable_help_subcommand(true)
            .display_name(name.to_owned()),
    )?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    let mut count = 1;
    for verb in command.get_subcommands() {
        if verb.get_name() != "help" {
            count += write(verb, &format!("{name}-{}", verb.get_name()), dir)?;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_for_each_verb() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = crate::Arguments::command();
        command.build();
        let count = write(&command, "uimgacc", dir.path()).unwrap();
        assert!(count > 15, "{count}");
        let enable = std::fs::read_to_string(dir.path().join("uimgacc-enable.1")).unwrap();
        assert!(enable.contains("host\\-path"), "{enable}");
        assert!(dir.path().join("uimgacc-store-verify.1").exists());
    }
}
