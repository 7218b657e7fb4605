//! Which parameters an action has, and whether the signed text of a request has one reading only.
//!
//! The signature covers keys and values without separators (see [`crate::signature`]), so the same
//! text can be cut in other places. [`check`] refuses what no client has reason to send; [`unique`]
//! enumerates the cuts that are left. A cut counts where [`check`] and [`Action::parse`] accept it and
//! its public key is the same (another key has another private key).
//!
//! Guarantee: of all requests with the same signed text that pass [`check`] and [`Action::parse`],
//! [`unique`] accepts either one, and no other, or none. That depends on the text alone, not on
//! clusters or rights, which change.
//!
//! Work: a cut is a path through states (key, start of its value, whether a password came before);
//! a state that leads nowhere is visited once. Values are no longer than [`LONGEST_VALUE`], so with
//! k keys (10 at most) and n bytes there are at most 2kn states with k·[`LONGEST_VALUE`] steps each;
//! the rules for values leave far fewer.

use std::collections::HashSet;

use uimgacc_types::{ImageReference, NfsAddress};

use crate::action::{Action, Verb};
use crate::parameters::{LONGEST_VALUE, Parameters};
use crate::refusal::Refusal;
use crate::signature::{SIGNATURE, signed_text};

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The name of an action.
    Action,
    /// That of the request.
    PublicKey,
    /// A name that an operator chooses: it contains no name of a parameter that can follow it.
    Label,
    /// A reference of an image.
    Image,
    /// The address of the store.
    Nfs,
    /// Any text, if the user's name follows.
    Password,
    /// Any text, if a password comes before.
    User,
}

#[derive(Debug, PartialEq, Eq)]
struct Key {
    name: &'static str,
    rule: Rule,
    is_required: bool,
}

const fn optional(name: &'static str, rule: Rule) -> Key {
    Key {
        name,
        rule,
        is_required: false,
    }
}

const fn required(name: &'static str, rule: Rule) -> Key {
    Key {
        name,
        rule,
        is_required: true,
    }
}

const ACTION: Key = required("Action", Rule::Action);
const CLUSTER: Key = required("ClusterId", Rule::Label);
const PROJECT: Key = optional("ProjectId", Rule::Label);
const PUBLIC: Key = required("PublicKey", Rule::PublicKey);
const REGION: Key = optional("Region", Rule::Label);
// UCloud's SDKs send it beside credentials that expire.
const TOKEN: Key = optional("SecurityToken", Rule::Label);

/// Sorted as they are signed. `Zone`, which some SDKs can send, is missing on purpose: it would be the
/// last key, so every `TargetImage` could be cut before it.
const fn keys(verb: Verb) -> &'static [Key] {
    match verb {
        Verb::Enable => {
            const {
                &[
                    ACTION,
                    CLUSTER,
                    optional("NfsAddr", Rule::Nfs),
                    PROJECT,
                    PUBLIC,
                    REGION,
                    TOKEN,
                    optional("SubnetId", Rule::Label),
                    optional("UHubPassword", Rule::Password),
                    optional("UHubUsername", Rule::User),
                ]
            }
        }
        Verb::Create => {
            const {
                &[
                    ACTION,
                    CLUSTER,
                    required("OriginalImage", Rule::Image),
                    PROJECT,
                    PUBLIC,
                    REGION,
                    TOKEN,
                    required("TargetImage", Rule::Image),
                ]
            }
        }
        Verb::Delete => {
            const {
                &[
                    ACTION,
                    CLUSTER,
                    required("Image", Rule::Image),
                    PROJECT,
                    PUBLIC,
                    REGION,
                    TOKEN,
                ]
            }
        }
        Verb::Get | Verb::Disable => const { &[ACTION, CLUSTER, PROJECT, PUBLIC, REGION, TOKEN] },
    }
}

/// The name of a parameter that a value of `key` must not contain, where this one does.
///
/// Names that operators choose contain none that can follow. Images and addresses of stores do not
/// contain `ProjectId`: most clients send it, some do not, so the text of a client that does can always
/// be read as that of one that does not.
#[must_use]
pub fn name_inside(key: &str, value: &str) -> Option<&'static str> {
    let own = all_keys().find(|one| one.name == key)?;
    match own.rule {
        Rule::Label => all_keys()
            .map(|one| one.name)
            .find(|name| *name > key && value.contains(name)),
        Rule::Image | Rule::Nfs if key < PROJECT.name => {
            value.contains(PROJECT.name).then_some(PROJECT.name)
        }
        _ => None,
    }
}

fn all_keys() -> impl Iterator<Item = &'static Key> {
    Verb::ALL.into_iter().flat_map(keys)
}

/// Refuses parameters that the action does not have, and values that no client has reason to send.
///
/// # Errors
/// [`Refusal::UnknownParameter`], [`Refusal::TooLong`] and [`Refusal::NameInside`].
pub fn check(verb: Verb, parameters: &Parameters) -> Result<(), Refusal> {
    for (key, value) in parameters.iter().filter(|(key, _)| *key != SIGNATURE) {
        let Some(own) = keys(verb).iter().find(|own| own.name == key) else {
            return Err(Refusal::UnknownParameter(key.chars().take(64).collect()));
        };
        if value.len() > LONGEST_VALUE {
            return Err(Refusal::TooLong(own.name));
        }
        if let Some(name) = name_inside(key, value) {
            return Err(Refusal::NameInside {
                key: own.name,
                name,
            });
        }
    }
    Ok(())
}

/// Refuses parameters whose signed text has another valid reading.
///
/// # Errors
/// [`Refusal::Ambiguous`] names the first parameter that differs in the other reading.
pub fn unique(parameters: &Parameters) -> Result<(), Refusal> {
    let text = signed_text(parameters);
    let public_key = parameters.get(PUBLIC.name).unwrap_or_default();
    for cut in cuts(&text, public_key) {
        let differing = parameters.iter().find_map(|(key, value)| {
            let other = cut.iter().find(|(name, _)| *name == key);
            let is_same = key == SIGNATURE || other.is_some_and(|(_, other)| *other == value);
            let own = all_keys().find(|own| own.name == key)?;
            (!is_same).then_some(own.name)
        });
        if let Some(key) = differing {
            return Err(Refusal::Ambiguous(key));
        }
    }
    Ok(())
}

type Cut<'t> = Vec<(&'static str, &'t str)>;

/// The first two valid cuts of a signed text, or as many as there are.
fn cuts<'t>(text: &'t str, public_key: &'t str) -> Vec<Cut<'t>> {
    let mut found = Vec::new();
    for verb in Verb::ALL {
        let mut search = Search {
            text,
            public_key,
            verb,
            dead: HashSet::new(),
            path: Vec::new(),
            found: &mut found,
        };
        // Every other key sorts behind it.
        if text.starts_with(ACTION.name) {
            search.visit(0, ACTION.name.len(), false);
        }
    }
    found
}

struct Search<'t, 'f> {
    text: &'t str,
    public_key: &'t str,
    verb: Verb,
    /// States from which no valid cut goes on.
    dead: HashSet<(usize, usize, bool)>,
    path: Cut<'t>,
    found: &'f mut Vec<Cut<'t>>,
}

impl<'t> Search<'t, '_> {
    /// Whether two cuts are known, so that no more need be looked for.
    fn is_done(&self) -> bool {
        self.found.len() >= 2
    }

    /// Goes on with the value of key number `at`, which begins at `start`.
    fn visit(&mut self, at: usize, start: usize, has_password: bool) {
        let state = (at, start, has_password);
        if self.is_done() || self.dead.contains(&state) {
            return;
        }
        let before = self.found.len();
        let all = keys(self.verb);
        let Some(key) = all.get(at) else { return };
        let text = self.text;
        let rest = text.get(start..).unwrap_or_default();
        for (next, one) in all.iter().enumerate().skip(at + 1) {
            for (length, _) in rest.match_indices(one.name) {
                let value = rest.get(..length).unwrap_or_default();
                if self.is_done() || self.is_past(key, value) {
                    break;
                }
                if let Some(password) = self.judge(key, value, has_password) {
                    self.path.push((key.name, value));
                    self.visit(next, start + length + one.name.len(), password);
                    self.path.pop();
                }
            }
            if one.is_required {
                break;
            }
        }
        let is_last = all.iter().skip(at + 1).all(|one| !one.is_required);
        if is_last && !self.is_done() && !self.is_past(key, rest) {
            // A password needs a user's name behind it.
            let ends = self.judge(key, rest, has_password);
            if ends.is_some_and(|password| !password || key.rule == Rule::User) {
                let mut cut = self.path.clone();
                cut.push((key.name, rest));
                self.found.push(cut);
            }
        }
        if self.found.len() == before {
            self.dead.insert(state);
        }
    }

    /// Whether neither this value nor any that goes on after it is one of the key.
    fn is_past(&self, key: &Key, value: &str) -> bool {
        let longest = match key.rule {
            Rule::PublicKey => self.public_key.len(),
            Rule::Action => self.verb.name().len(),
            _ => LONGEST_VALUE,
        };
        value.len() > longest || name_inside(key.name, value).is_some()
    }

    /// Whether that value is valid, and whether a password has come then.
    fn judge(&self, key: &Key, value: &str, has_password: bool) -> Option<bool> {
        let is_valid = match key.rule {
            Rule::Action => value == self.verb.name(),
            Rule::PublicKey => value == self.public_key,
            Rule::Label => !key.is_required || !value.is_empty(),
            Rule::Image => value.parse::<ImageReference>().is_ok(),
            Rule::Nfs => value.is_empty() || value.parse::<NfsAddress>().is_ok(),
            Rule::Password => return Some(!value.is_empty()),
            Rule::User => value.is_empty() != has_password,
        };
        // Between the password and the name there is nothing.
        is_valid.then_some(has_password)
    }
}

/// What the server asks of parameters before it looks at keys and clusters.
///
/// # Errors
/// See [`check`], [`Action::parse`] and [`unique`].
pub fn admit(parameters: &Parameters) -> Result<Action, Refusal> {
    let action = valid(parameters)?;
    unique(parameters)?;
    Ok(action)
}

fn valid(parameters: &Parameters) -> Result<Action, Refusal> {
    let verb = Verb::of(parameters)?;
    check(verb, parameters)?;
    crate::action::required(parameters, PUBLIC.name)?;
    crate::action::required(parameters, CLUSTER.name)?;
    Action::parse(verb, parameters)
}

#[cfg(test)]
mod tests;
