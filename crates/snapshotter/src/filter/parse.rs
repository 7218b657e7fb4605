//! Tokens into selectors.

use regex::Regex;

use super::quote::unquote;
use super::scan::{Scanner, Token};
use super::{Selector, Test};

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?}, at byte {position}: {reason}")]
pub struct ParseFilterError {
    filter: String,
    position: usize,
    reason: &'static str,
}

/// Parses one filter; an empty one has no selectors, so it matches everything.
pub(super) fn filter(text: &str) -> Result<Vec<Selector>, ParseFilterError> {
    let mut parser = Parser {
        text,
        scanner: Scanner::new(text),
    };
    let mut selectors = Vec::new();
    if text.is_empty() {
        return Ok(selectors);
    }
    loop {
        selectors.push(parser.selector()?);
        // Looked at without skipping spaces: containerd allows none in front of a comma.
        match parser.scanner.peek() {
            None => return Ok(selectors),
            Some(',') => parser.scanner.scan(),
            Some(_) => {
                let position = parser.scanner.position();
                return Err(parser.error(position, "expected a comma or the end"));
            }
        };
    }
}

struct Parser<'a> {
    text: &'a str,
    scanner: Scanner<'a>,
}

impl Parser<'_> {
    fn error(&self, position: usize, reason: &'static str) -> ParseFilterError {
        ParseFilterError {
            filter: self.text.to_owned(),
            position,
            reason,
        }
    }

    fn selector(&mut self) -> Result<Selector, ParseFilterError> {
        let mut path = vec![self.field()?];
        while self.scanner.peek() == Some('.') {
            self.scanner.scan();
            path.push(self.field()?);
        }
        if matches!(self.scanner.peek(), None | Some(',')) {
            return Ok(Selector {
                path,
                test: Test::Present,
            });
        }
        let test = match self.scanner.scan() {
            (_, Token::Operator("==")) => Test::Equal(self.value(false)?),
            (_, Token::Operator("!=")) => Test::NotEqual(self.value(false)?),
            (_, Token::Operator("~=")) => match Regex::new(&self.value(true)?) {
                Ok(expression) => Test::Matches(expression),
                Err(_) => Test::Never,
            },
            (position, Token::Illegal(reason)) => return Err(self.error(position, reason)),
            (position, _) => return Err(self.error(position, "expected ==, != or ~=")),
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String, ParseFilterError> {
        match self.scanner.scan() {
            (_, Token::Field(text)) => Ok(text.to_owned()),
            (position, Token::Quoted(text)) => self.unquoted(position, text, false),
            (position, Token::Illegal(reason)) => Err(self.error(position, reason)),
            (position, _) => Err(self.error(position, "expected a field")),
        }
    }

    fn value(&mut self, any_quote: bool) -> Result<String, ParseFilterError> {
        match self.scanner.scan() {
            (_, Token::Value(text) | Token::Field(text)) => Ok(text.to_owned()),
            (position, Token::Quoted(text)) => self.unquoted(position, text, any_quote),
            (position, Token::Illegal(reason)) => Err(self.error(position, reason)),
            (position, _) => Err(self.error(position, "expected a value")),
        }
    }

    fn unquoted(
        &self,
        position: usize,
        text: &str,
        any_quote: bool,
    ) -> Result<String, ParseFilterError> {
        if !any_quote && !text.starts_with('"') {
            return Err(self.error(position, "only a regular expression may have such quotes"));
        }
        unquote(text).ok_or_else(|| self.error(position, "the quoted text is malformed"))
    }
}
