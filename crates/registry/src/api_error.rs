//! What a registry or token service says in the body of a refusal. Pure.
//!
//! The specified form is `{"errors": [{"code", "message", "detail"}]}` (OCI distribution spec,
//! "Error Codes"); token services use several others. Text from the network ends up on terminals, so
//! control characters are dropped and lengths cut.

use std::fmt;

use serde_json::Value;

use crate::limits::MAX_MESSAGE_CHARS;

/// Most errors of one answer that are kept.
const MAX_ERRORS: usize = 4;

/// One error as the registry put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Such as `MANIFEST_UNKNOWN`; empty where the answer had none.
    pub code: String,
    /// The registry's words; may be empty.
    pub message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.is_empty(), self.message.is_empty()) {
            (false, false) => write!(f, "{}: {}", self.code, self.message),
            (false, true) => f.write_str(&self.code),
            (true, _) => f.write_str(&self.message),
        }
    }
}

/// Reads the errors out of a body; empty where it says nothing of use.
pub(crate) fn parse(body: &[u8]) -> Vec<ApiError> {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => of_json(&value),
        Err(_) => of_text(body),
    }
}

fn of_json(value: &Value) -> Vec<ApiError> {
    let text_of = |value: &Value, key: &str| clean(value.get(key).and_then(Value::as_str));
    if let Some(list) = value.get("errors").and_then(Value::as_array) {
        let said = list.iter().map(|one| ApiError {
            code: text_of(one, "code"),
            message: text_of(one, "message"),
        });
        return said
            .filter(|one| !(one.code.is_empty() && one.message.is_empty()))
            .take(MAX_ERRORS)
            .collect();
    }
    // OAuth2 has error and error_description, Docker Hub details, proxies message.
    let code = text_of(value, "error");
    let message = ["error_description", "details", "message"]
        .iter()
        .map(|key| text_of(value, key))
        .find(|text| !text.is_empty())
        .unwrap_or_default();
    if code.is_empty() && message.is_empty() {
        return Vec::new();
    }
    vec![ApiError { code, message }]
}

/// The first line of a plain text; nothing of a web page.
fn of_text(body: &[u8]) -> Vec<ApiError> {
    let text = String::from_utf8_lossy(body);
    let line = text.trim().lines().next().unwrap_or_default();
    let message = clean(Some(line));
    if message.is_empty() || message.starts_with('<') {
        return Vec::new();
    }
    vec![ApiError {
        code: String::new(),
        message,
    }]
}

/// `text` fit for a terminal.
pub(crate) fn clean(text: Option<&str>) -> String {
    let text = text.unwrap_or_default().trim();
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_MESSAGE_CHARS)
        .collect()
}

#[cfg(test)]
mod tests;
