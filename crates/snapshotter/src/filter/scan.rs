//! A filter's text into tokens.

/// A token and where it starts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    End,
    /// With its quotes.
    Quoted(&'a str),
    Value(&'a str),
    Field(&'a str),
    Separator(char),
    Operator(&'a str),
    Illegal(&'static str),
}

pub(super) struct Scanner<'a> {
    text: &'a str,
    position: usize,
    /// After an operator comes a value, whose alphabet is larger than a field's.
    value: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            position: 0,
            value: false,
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or_default()
    }

    /// The next character, which stays.
    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn next_char(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.position += next.len_utf8();
        Some(next)
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&belongs) {
            self.next_char();
        }
    }

    /// The next token and where it starts.
    pub(super) fn scan(&mut self) -> (usize, Token<'a>) {
        // Spaces in front of a token do not count.
        while self.peek().is_some_and(char::is_whitespace) {
            self.next_char();
        }
        let start = self.position;
        let Some(first) = self.next_char() else {
            return (start, Token::End);
        };
        let token = match first {
            '\0' => Token::Illegal("unexpected NUL"),
            '/' | '|' | '"' => match self.quoted(first) {
                Ok(()) => Token::Quoted(self.since(start)),
                Err(reason) => Token::Illegal(reason),
            },
            ',' | '.' => {
                self.value = false;
                Token::Separator(first)
            }
            '=' | '!' | '~' => {
                self.take_while(|c| matches!(c, '=' | '!' | '~'));
                self.value = true;
                Token::Operator(self.since(start))
            }
            _ if self.value => {
                self.take_while(is_value);
                self.value = false;
                Token::Value(self.since(start))
            }
            _ if is_field(first) => {
                self.take_while(is_field);
                Token::Field(self.since(start))
            }
            _ => Token::Illegal("unexpected character"),
        };
        (start, token)
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.position).unwrap_or_default()
    }

    /// Up to the closing quote; a backslash takes the next character along.
    fn quoted(&mut self, quote: char) -> Result<(), &'static str> {
        loop {
            match self.next_char() {
                None | Some('\n') => return Err("quoted text does not end"),
                Some('\0') => return Err("unexpected NUL"),
                Some('\\') if self.next_char().is_none() => {
                    return Err("quoted text does not end");
                }
                Some(next) if next == quote => return Ok(()),
                Some(_) => {}
            }
        }
    }
}

fn is_field(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

fn is_value(c: char) -> bool {
    c != ',' && !c.is_whitespace() && !c.is_control()
}
