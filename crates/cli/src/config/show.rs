//! `uimgacc config show`.

use clap::Args;
use comfy_table::Table;
use serde_json::{Map, Value, json};
use uimgacc_console::Printer;
use uimgacc_remote::{Setting, Settings};

use super::ask::REDACTED;
use crate::arguments::ConfigArgument;
use crate::arguments::{TextFormat, print};
use crate::remote::load;

/// Show the settings in effect, and where each is from: `env`, `file` or `default`.
///
/// Keys and passwords are not shown.
#[derive(Debug, Args)]
#[command(after_help = super::VARIABLES)]
pub(crate) struct Show {
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

impl Show {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let loaded = load(&self.config, printer)?;
        let file = loaded.path.map(|path| path.display().to_string());
        if self.output == TextFormat::Text {
            let missing = if loaded.exists { "" } else { " (not there)" };
            printer.say(&format!(
                "file: {}{missing}",
                file.as_deref().unwrap_or("none")
            ));
        }
        let all = json!({
            "file": file,
            "exists": loaded.exists,
            "settings": values(&loaded.settings),
        });
        print(printer, self.output, &all, || table(&loaded.settings))
    }
}

/// The value as it may be shown.
fn shown(settings: &Settings, setting: Setting) -> Option<&str> {
    let value = settings.get(setting)?;
    Some(if setting.is_secret() { REDACTED } else { value })
}

/// `{"region": {"value": "cn-bj2", "source": "file"}}`; null both where it is not set.
fn values(settings: &Settings) -> Map<String, Value> {
    let all = Setting::ALL.into_iter().map(|setting| {
        let value = json!({
            "value": shown(settings, setting),
            "source": settings.source(setting).map(uimgacc_remote::Source::name),
        });
        (setting.key().to_owned(), value)
    });
    all.collect()
}

fn table(settings: &Settings) -> String {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(["SETTING", "VALUE", "FROM"]);
    for setting in Setting::ALL {
        let source = settings.source(setting);
        table.add_row([
            setting.key(),
            shown(settings, setting).unwrap_or_default(),
            source.map_or("not set", uimgacc_remote::Source::name),
        ]);
    }
    table.trim_fmt()
}
