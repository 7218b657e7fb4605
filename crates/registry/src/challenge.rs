//! Reads `WWW-Authenticate` (RFC 9110, section 11.6.1). Pure.
//!
//! One header may hold several challenges, and commas part challenges as well as parameters: a
//! token that is followed by `=` is a parameter of the challenge before it, any other starts a new
//! one. What does not fit is skipped; a malformed header gives fewer challenges, never a failure.

/// One way in that the server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case, such as `bearer`.
    pub(crate) scheme: String,
    /// Names in lower case, values without quotes, in the order given.
    params: Vec<(String, String)>,
}

impl Challenge {
    /// The first value of the parameter `name`.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header value.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = Cursor { text: header };
    let mut found: Vec<Challenge> = Vec::new();
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        if rest.text.is_empty() {
            return found;
        }
        let token = rest.take(is_token_char);
        if token.is_empty() {
            // Not a token: drop one character and go on, so that the loop ends.
            rest.skip_one();
            continue;
        }
        rest.skip(|c| c.is_ascii_whitespace());
        if let Some(after) = rest.text.strip_prefix('=') {
            rest.text = after;
            rest.skip(|c| c.is_ascii_whitespace());
            let value = rest.value();
            if let Some(challenge) = found.last_mut() {
                challenge.params.push((token.to_ascii_lowercase(), value));
            }
        } else {
            found.push(Challenge {
                scheme: token.to_ascii_lowercase(),
                params: Vec::new(),
            });
        }
    }
}

struct Cursor<'a> {
    text: &'a str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.text.find(|c| !wanted(c)).unwrap_or(self.text.len());
        let (taken, rest) = self.text.split_at(end);
        self.text = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.take(unwanted);
    }

    fn skip_one(&mut self) {
        let mut chars = self.text.chars();
        chars.next();
        self.text = chars.as_str();
    }

    /// A quoted string or a token; what is missing at the end is taken as said.
    fn value(&mut self) -> String {
        let Some(quoted) = self.text.strip_prefix('"') else {
            return self
                .take(|c| c != ',' && !c.is_ascii_whitespace())
                .to_owned();
        };
        let mut value = String::new();
        let mut chars = quoted.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => value.extend(chars.next()),
                c => value.push(c),
            }
        }
        self.text = chars.as_str();
        value
    }
}

/// RFC 9110, section 5.6.2.
fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests;
