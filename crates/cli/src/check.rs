//! `uimgacc check`.

use clap::Args;
use uimgacc_console::Printer;
use uimgacc_control::{Check as One, CheckOptions, Outcome};

use crate::arguments::{ClusterArguments, TextFormat, print};
use crate::cluster::run;
use crate::colour::{Colour, paint};
use crate::exit::Refused;

/// Find what is wrong with a cluster, and how to mend it.
///
/// Ends with 1 where something must be mended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  uimgacc check --pre && uimgacc enable --nfs 10.0.0.1:/export
  uimgacc check")]
pub(crate) struct Check {
    /// Check only what must hold before `enable`.
    #[arg(long)]
    pre: bool,
    /// Check this PersistentVolumeClaim too, which is to hold the store.
    #[arg(long, value_name = "NAME", requires = "pre")]
    pvc: Option<String>,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,
    #[command(flatten)]
    cluster: ClusterArguments,
}

impl Check {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let options = CheckOptions {
            pre: self.pre,
            claim: self.pvc,
        };
        let checks = run(&self.cluster.connect(), |cluster| async move {
            Ok(cluster.check(&options).await)
        })?;
        print(printer, self.output, &checks, || {
            render(&checks, printer.shows_colours())
        })?;
        let failed = checks
            .iter()
            .filter(|check| check.outcome == Outcome::Fail)
            .count();
        if failed > 0 {
            let text = format!("{failed} of {} checks failed", checks.len());
            return Err(Refused::Unwell(text).into());
        }
        Ok(())
    }
}

/// A list of ✓, ‼ and ×, a section each.
fn render(checks: &[One], colours: bool) -> String {
    let mut text = String::new();
    let mut section = "";
    let mut sections: Vec<&str> = Vec::new();
    for check in checks {
        if !sections.contains(&check.section.as_str()) {
            sections.push(&check.section);
        }
    }
    for check in sections
        .into_iter()
        .flat_map(|section| checks.iter().filter(move |check| check.section == section))
    {
        if check.section != section {
            if !section.is_empty() {
                text.push('\n');
            }
            section = &check.section;
            text.push_str(&format!("{section}\n{}\n", "-".repeat(section.len())));
        }
        let (mark, colour) = match check.outcome {
            Outcome::Pass => ("✓", Colour::Green),
            Outcome::Warn => ("‼", Colour::Yellow),
            Outcome::Fail => ("×", Colour::Red),
        };
        text.push_str(&format!("{} {}", paint(colour, mark, colours), check.title));
        if check.outcome == Outcome::Pass {
            if !check.message.is_empty() {
                text.push_str(&format!(": {}", check.message));
            }
        } else {
            text.push_str(&format!("\n    {}", check.message));
        }
        if !check.hint.is_empty() {
            text.push_str(&format!("\n    hint: {}", check.hint));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_see_it() {
        let check = |section: &str, title: &str, outcome, message: &str, hint: &str| One {
            section: section.to_owned(),
            title: title.to_owned(),
            outcome,
            message: message.to_owned(),
            hint: hint.to_owned(),
        };
        let checks = [
            check(
                "Kubernetes",
                "the API answers",
                Outcome::Pass,
                "v1.30.2",
                "",
            ),
            check(
                "Nodes",
                "they run containerd",
                Outcome::Fail,
                "a runs cri-o",
                "upgrade",
            ),
            check("Kubernetes", "you may enable", Outcome::Pass, "", ""),
            check("Nodes", "they run Linux", Outcome::Warn, "b runs 5.4", ""),
        ];
        let expected = "\
Kubernetes
----------
✓ the API answers: v1.30.2
✓ you may enable

Nodes
-----
× they run containerd
    a runs cri-o
    hint: upgrade
‼ they run Linux
    b runs 5.4
";
        assert_eq!(render(&checks, false), expected);
        assert!(render(&checks, true).contains("\u{1b}[33m‼\u{1b}[0m"));
    }
}
