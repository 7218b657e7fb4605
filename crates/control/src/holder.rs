//! A Pod that uses an image, and how messages list them. Pure.

use std::fmt;

use serde::Serialize;

/// Names that a message lists at most.
const LISTED: usize = 10;

/// A Pod that uses an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Holder {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its node; empty before it is scheduled.
    pub node: String,
    /// The image, as the Pod names it.
    pub image: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)?;
        if !self.node.is_empty() {
            write!(f, " on {}", self.node)?;
        }
        Ok(())
    }
}

/// `a/b on c, d/e on f and 3 more`.
pub(crate) fn list(holders: &[Holder]) -> String {
    let shown: Vec<String> = holders
        .iter()
        .take(LISTED)
        .map(ToString::to_string)
        .collect();
    let more = holders.len().saturating_sub(LISTED);
    if more > 0 {
        format!("{} and {more} more", shown.join(", "))
    } else {
        shown.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let holders: Vec<Holder> = (0..13)
            .map(|index| Holder {
                namespace: "a".to_owned(),
                pod: format!("p{index}"),
                node: String::new(),
                image: String::new(),
            })
            .collect();
        assert!(
            list(&holders).ends_with("a/p9 and 3 more"),
            "{}",
            list(&holders)
        );
    }
}
