//! containerd's filters (`pkg/filters`): which snapshots a `List` is to give.
//!
//! A filter is selectors with commas between them, all of which must match. A selector is a field
//! path, alone (the field is there) or with `==`, `!=` or `~=` and a value. Fields and values may
//! be quoted as in Go; a regular expression also with `/` or `|`. Pure.

mod parse;
mod quote;
mod scan;

#[cfg(test)]
mod tests;

use regex::Regex;

pub(crate) use parse::ParseFilterError;

/// What filters ask an object.
pub(crate) trait Fields {
    /// The value at that path; `None` where there is none.
    fn field(&self, path: &[String]) -> Option<&str>;
}

/// Several filters, one of which must match; without any, everything matches.
#[derive(Debug, Clone)]
pub(crate) struct Filters(Vec<Vec<Selector>>);

#[derive(Debug, Clone)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    /// An expression that is none: containerd takes it and lets it match nothing.
    Never,
}

impl Filters {
    /// Parses filters as a request carries them.
    ///
    /// # Errors
    /// The first filter that cannot be parsed.
    pub(crate) fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, ParseFilterError> {
        let parsed = filters.iter().map(|filter| parse::filter(filter.as_ref()));
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them matches.
    #[must_use]
    pub(crate) fn matches(&self, object: &impl Fields) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|filter| filter.iter().all(|selector| selector.matches(object)))
    }
}

impl Selector {
    fn matches(&self, object: &impl Fields) -> bool {
        let value = object.field(&self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value == Some(wanted),
            // A field that is missing counts as empty from here on.
            Test::NotEqual(unwanted) => value.unwrap_or_default() != unwanted,
            Test::Matches(expression) => expression.is_match(value.unwrap_or_default()),
            Test::Never => false,
        }
    }
}
