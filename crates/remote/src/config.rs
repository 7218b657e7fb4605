//! The configuration file: TOML, texts only, strict, so that a misspelt key is never silently
//! ignored. Pure. No error shows a value: it may be a key or a password.

use std::collections::BTreeMap;

use toml_edit::{DocumentMut, value};
use uimgacc_api::Secret;

use crate::setting::Setting;

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML; says where.
    #[error("line {line}: {message}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// There is no such key.
    #[error("unknown key {0:?}; known are {known}", known = known())]
    Unknown(String),
    /// The value is no text.
    #[error("{0} must be a text in quotes")]
    NoText(&'static str),
    /// The value cannot be used.
    #[error("{key}: {problem}")]
    Value {
        /// Its key.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

fn known() -> String {
    Setting::ALL.map(Setting::key).join(", ")
}

/// What a file says. Its `Debug` form shows no value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<Setting, Secret>,
}

impl Config {
    /// Reads a file's text. An empty value is as good as none.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        let mut config = Self::default();
        for (key, value) in &table {
            let setting = Setting::of_key(key).ok_or_else(|| ConfigError::Unknown(key.clone()))?;
            let text = value.as_str().ok_or(ConfigError::NoText(setting.key()))?;
            if !text.is_empty() {
                check(setting, text)?;
                config.values.insert(setting, Secret::new(text.to_owned()));
            }
        }
        Ok(config)
    }

    /// The value of a setting.
    #[must_use]
    pub fn get(&self, setting: Setting) -> Option<&str> {
        self.values.get(&setting).map(Secret::reveal)
    }

    /// Whether it holds what nobody else may read.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        self.values.keys().any(|setting| setting.is_secret())
    }
}

/// Whether a value can be used.
///
/// # Errors
/// [`ConfigError::Value`].
pub fn check(setting: Setting, text: &str) -> Result<(), ConfigError> {
    let problem = if text.chars().any(char::is_control) {
        "it must be one line without control characters"
    } else if setting == Setting::BaseUrl {
        match text.parse::<reqwest::Url>() {
            Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
                "it must begin with https:// or http://"
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                "it must hold no user and no password"
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                "it must end with its path"
            }
            Ok(_) => return Ok(()),
            Err(_) => "it is no address: write such as https://api.example.com",
        }
    } else {
        return Ok(());
    };
    Err(ConfigError::Value {
        key: setting.key(),
        problem,
    })
}

/// The text of a file with these values; what else stands in `text`, such as comments, is kept.
/// `None` takes a value away.
///
/// # Errors
/// [`ConfigError::Syntax`]: `text` is no TOML.
pub fn edited<'v>(
    text: &str,
    values: impl IntoIterator<Item = (Setting, Option<&'v str>)>,
) -> Result<String, ConfigError> {
    let document = text.parse::<DocumentMut>();
    let mut document = document.map_err(|error| ConfigError::Syntax {
        line: line_of(text, error.span()),
        message: error.message().to_owned(),
    })?;
    for (setting, new) in values {
        match (new, document.get_mut(setting.key())) {
            (None, _) => {
                document.remove(setting.key());
            }
            (Some(new), Some(item)) => {
                // A comment behind the value stays.
                let decor = item.as_value().map(|old| old.decor().clone());
                *item = value(new);
                if let (Some(decor), Some(item)) = (decor, item.as_value_mut()) {
                    *item.decor_mut() = decor;
                }
            }
            (Some(new), None) => {
                document.insert(setting.key(), value(new));
            }
        }
    }
    Ok(document.to_string())
}

/// Its own text shows the line, which may be that of a private key.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Syntax {
        line: line_of(text, error.span()),
        message: error.message().to_owned(),
    }
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> usize {
    let before = span.and_then(|span| text.get(..span.start));
    before.map_or(0, |before| before.matches('\n').count()) + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = "# mine\nregion = 'cn-bj2'\nprivate_key = \"geheim\" # keep\nbase_url = 'http://127.0.0.1:1/'\nsubnet_id = ''\n";

    #[test]
    fn a_whole_file() {
        let config = Config::parse(WHOLE).unwrap();
        assert_eq!(config.get(Setting::Region), Some("cn-bj2"));
        assert_eq!(config.get(Setting::PrivateKey), Some("geheim"));
        assert_eq!(config.get(Setting::SubnetId), None);
        assert!(config.has_secrets() && !Config::default().has_secrets());
        assert!(!format!("{config:?}").contains("geheim"));
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn what_is_wrong_is_said_without_values() {
        for (text, said) in [
            (
                "regoin = 'x'",
                "unknown key \"regoin\"; known are region, project_id, ",
            ),
            ("\nprivate_key = geheim", "line 2: "),
            ("private_key = \"geheim", "line 1: "),
            ("private_key = \"geheim\\q\"", "line 1: "),
            ("private_key = 'geheim' 'geheim'", "line 1: "),
            ("private_key = 'a'\nprivate_key = 'geheim'", "line 2: "),
            ("private_key geheim", "line 1: "),
            ("private_key = 4711", "private_key must be a text in quotes"),
            ("private_key = ['geheim']", "private_key must be a text"),
            (
                "private_key = \"geheim\\u0007\"",
                "private_key: it must be one line",
            ),
            ("[remote]\nregion = 'x'", "unknown key \"remote\""),
            ("base_url = 'api.example'", "base_url: it is no address"),
            ("base_url = 'ftp://geheim.example'", "https:// or http://"),
            (
                "base_url = 'https://u:geheim@x.example'",
                "no user and no password",
            ),
            (
                "base_url = 'https://x.example/?geheim'",
                "end with its path",
            ),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
            for secret in ["geheim", "4711"] {
                assert!(!error.contains(secret), "{text}: {error}");
            }
        }
    }

    #[test]
    fn edits_keep_the_rest() {
        let new = [
            (Setting::PrivateKey, Some("a\"b\\'c")),
            (Setting::Region, None),
            (Setting::ClusterId, Some("uk8s-1")),
        ];
        let text = edited(WHOLE, new).unwrap();
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.get(Setting::PrivateKey), Some("a\"b\\'c"));
        assert_eq!(config.get(Setting::Region), None);
        assert_eq!(config.get(Setting::ClusterId), Some("uk8s-1"));
        assert_eq!(config.get(Setting::BaseUrl), Some("http://127.0.0.1:1/"));
        assert!(text.contains("# keep"), "{text}");
        assert!(edited("= geheim", []).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec("\\PC{1,20}", 10)) {
            let pairs = || Setting::ALL.into_iter().zip(&values).filter(|(setting, _)| *setting != Setting::BaseUrl);
            let text = edited("", pairs().map(|(setting, value)| (setting, Some(value.as_str())))).unwrap();
            let config = Config::parse(&text).unwrap();
            for (setting, value) in pairs() {
                prop_assert_eq!(config.get(setting), Some(value.as_str()));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}|([a-z_]{1,12} = ?['\"]?[a-z:/@]{0,9}['\"]?\n){0,4}") {
            let _ = Config::parse(&text);
        }
    }
}
