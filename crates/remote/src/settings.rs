//! What is in effect: arguments, then the environment, then the file, then defaults. Pure.

use std::collections::BTreeMap;

use uimgacc_api::Secret;

use crate::config::{self, Config, ConfigError};
use crate::error::Error;
use crate::setting::Setting;

/// Who said what a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Argument,
    /// A variable.
    Environment,
    /// The file.
    File,
    /// Nobody.
    Default,
}

impl Source {
    /// One word for people and programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Argument => "argument",
            Self::Environment => "env",
            Self::File => "file",
            Self::Default => "default",
        }
    }
}

/// The settings in effect. The `Debug` form shows no value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<Setting, (Secret, Source)>,
}

impl Settings {
    /// Those of a file, below those of the environment, which `variable` reads; an empty variable is
    /// as good as none.
    ///
    /// # Errors
    /// [`ConfigError::Value`]: a variable cannot be used.
    pub fn resolve(
        file: &Config,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        for setting in Setting::ALL {
            let of_environment = variable(setting.variable()).filter(|text| !text.is_empty());
            let (text, source) = if let Some(text) = of_environment {
                config::check(setting, &text).map_err(|error| match error {
                    ConfigError::Value { problem, .. } => ConfigError::Value {
                        key: setting.variable(),
                        problem,
                    },
                    other => other,
                })?;
                (text, Source::Environment)
            } else if let Some(text) = file.get(setting) {
                (text.to_owned(), Source::File)
            } else if let Some(text) = setting.default() {
                (text.to_owned(), Source::Default)
            } else {
                continue;
            };
            settings.set(setting, text, source);
        }
        Ok(settings)
    }

    /// Sets one.
    pub fn set(&mut self, setting: Setting, text: String, source: Source) {
        self.values.insert(setting, (Secret::new(text), source));
    }

    /// The value of a setting.
    #[must_use]
    pub fn get(&self, setting: Setting) -> Option<&str> {
        self.values.get(&setting).map(|(text, _)| text.reveal())
    }

    /// Who said it.
    #[must_use]
    pub fn source(&self, setting: Setting) -> Option<Source> {
        self.values.get(&setting).map(|(_, source)| *source)
    }

    /// The value of a setting that there must be.
    ///
    /// # Errors
    /// [`Error::NotSet`].
    pub fn required(&self, setting: Setting) -> Result<&str, Error> {
        self.get(setting).ok_or(Error::NotSet(setting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_goes_before_the_file() {
        let file = Config::parse("region = 'file'\ncluster_id = 'file'\nprivate_key = 'geheim'");
        let file = file.unwrap();
        let variable = |name: &str| match name {
            "UIMGACC_REGION" => Some("env".to_owned()),
            "UIMGACC_CLUSTER_ID" => Some(String::new()),
            _ => None,
        };
        let mut settings = Settings::resolve(&file, variable).unwrap();
        for (setting, value, source) in [
            (Setting::Region, Some("env"), Some(Source::Environment)),
            (Setting::ClusterId, Some("file"), Some(Source::File)),
            (
                Setting::BaseUrl,
                Some("https://api.ucloud.cn"),
                Some(Source::Default),
            ),
            (Setting::NfsAddr, None, None),
        ] {
            assert_eq!(
                (settings.get(setting), settings.source(setting)),
                (value, source)
            );
        }
        let missing = settings.required(Setting::PublicKey).unwrap_err();
        assert!(missing.to_string().contains("public_key"), "{missing}");
        settings.set(Setting::ClusterId, "arg".to_owned(), Source::Argument);
        assert_eq!(settings.required(Setting::ClusterId).unwrap(), "arg");
        assert!(!format!("{settings:?}").contains("geheim"));
    }

    #[test]
    fn a_bad_variable_is_named() {
        let variable = |name: &str| (name == "UIMGACC_BASE_URL").then(|| "nowhere".to_owned());
        let error = Settings::resolve(&Config::default(), variable).unwrap_err();
        assert!(
            error.to_string().starts_with("UIMGACC_BASE_URL: "),
            "{error}"
        );
    }
}
