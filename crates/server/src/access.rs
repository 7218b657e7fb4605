//! Who may do what: keys, their projects, and the clusters of these.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use uimgacc_api::action::{Action, Verb, required};
use uimgacc_api::exact::{Sent, Stamp};
use uimgacc_api::parameters::Parameters;
use uimgacc_api::recut;
use uimgacc_api::refusal::Refusal;
use uimgacc_api::secret::Secret;
use uimgacc_api::signature::{SIGNATURE, is_signed_by};

/// What a key may do in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// `GetUK8SImageAccelerate`.
    Read,
    /// Everything.
    Write,
}

/// A pair of keys.
#[derive(Debug, Clone)]
pub struct Key {
    /// What signs.
    pub private_key: Secret,
    /// What it may do, by project.
    pub projects: BTreeMap<String, Right>,
    /// The clusters that it is bound to; `None`: all of its projects.
    pub clusters: Option<BTreeSet<String>>,
}

/// Signatures that every request must have, besides the one in its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Require {
    /// The header of [`uimgacc_api::exact`].
    V2,
}

/// All that is known of keys and clusters.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// What requests must have.
    pub require: Option<Require>,
    /// Whether unknown public keys get an answer of their own (172).
    pub reveal_unknown_keys: bool,
    /// Keys, by public key.
    pub keys: BTreeMap<String, Key>,
    /// The project of each cluster, by its ID.
    pub clusters: BTreeMap<String, String>,
}

/// Who signed a request.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    /// The public key.
    pub public_key: &'a str,
    key: &'a Key,
    verb: Verb,
    /// Time and nonce, where there are any; they are not checked yet.
    pub stamp: Option<Stamp>,
}

/// The second signature, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Exact<'r> {
    /// The header; `None` where it cannot be read.
    pub stamp: Option<Stamp>,
    /// The request.
    pub sent: Sent<'r>,
}

/// A request that may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The cluster's ID.
    pub cluster: String,
    /// What is to be done there.
    pub action: Action,
}

impl Access {
    /// Who signed these parameters, and the request as it was sent where `exact` is there.
    ///
    /// # Errors
    /// See [`Refusal`]. An unknown key and a wrong signature get the same answer after the same work.
    pub fn authenticate<'a>(
        &'a self,
        parameters: &Parameters,
        exact: Option<Exact<'_>>,
    ) -> Result<Signer<'a>, Refusal> {
        let verb = Verb::of(parameters)?;
        if parameters.get(SIGNATURE).is_none_or(str::is_empty) {
            return Err(Refusal::MissingSignature);
        }
        let public_key = required(parameters, "PublicKey")?;
        if exact.is_none() && self.require == Some(Require::V2) {
            return Err(Refusal::MissingExact);
        }
        let known = self.keys.get_key_value(public_key);
        let private_key = known.map_or(STAND_IN, |(_, key)| key.private_key.reveal());
        let is_signed = is_signed_by(parameters, private_key)
            && exact.is_none_or(|exact| {
                let stamp = exact.stamp.as_ref();
                stamp.is_some_and(|stamp| exact.sent.is_signed_by(private_key, stamp))
            });
        match known {
            Some((public_key, key)) if is_signed => Ok(Signer {
                public_key,
                key,
                verb,
                stamp: exact.and_then(|exact| exact.stamp),
            }),
            None if self.reveal_unknown_keys => Err(Refusal::UnknownUser),
            _ => Err(Refusal::WrongSignature),
        }
    }

    /// What these parameters ask for, where their signer may have it.
    ///
    /// A cluster of another project is told as one that is not there.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn grant(&self, signer: Signer<'_>, parameters: &Parameters) -> Result<Granted, Refusal> {
        recut::check(signer.verb, parameters)?;
        let key = signer.key;
        let project = key.project(parameters.get("ProjectId").unwrap_or_default())?;
        let cluster = required(parameters, "ClusterId")?;
        let is_theirs = self.clusters.get(cluster).is_some_and(|of| of == project.0)
            && key
                .clusters
                .as_ref()
                .is_none_or(|all| all.contains(cluster));
        if !is_theirs {
            return Err(Refusal::NotAvailable("ClusterId".to_owned()));
        }
        let action = Action::parse(signer.verb, parameters)?;
        if project.1 < Right::Write && !action.only_reads() {
            return Err(Refusal::Denied);
        }
        recut::unique(parameters)?;
        Ok(Granted {
            cluster: cluster.to_owned(),
            action,
        })
    }
}

/// As long as the private keys that the guide makes; signs for keys that nobody has, so that they take
/// as long as others.
const STAND_IN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Key {
    /// The project that is asked for; without a name the only one.
    fn project(&self, asked: &str) -> Result<(&String, Right), Refusal> {
        let mut projects = self.projects.iter();
        let found = if asked.is_empty() && self.projects.len() == 1 {
            projects.next()
        } else {
            self.projects.get_key_value(asked)
        };
        let none = || Refusal::NoProject(asked.chars().take(64).collect());
        found.map(|(name, right)| (name, *right)).ok_or_else(none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uimgacc_api::signature::sign;

    fn access() -> Access {
        let key = |private: &str, projects: &[(&str, Right)], clusters: Option<&[&str]>| Key {
            private_key: Secret::new(private.to_owned()),
            projects: projects
                .iter()
                .map(|(name, right)| ((*name).to_owned(), *right))
                .collect(),
            clusters: clusters.map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
        };
        let both = [("org-a", Right::Write), ("org-b", Right::Read)];
        let keys = [
            ("a", key("pa", &[("org-a", Right::Write)], None)),
            ("b", key("pb", &[("org-b", Right::Write)], None)),
            ("both", key("pboth", &both, None)),
            (
                "one",
                key("pone", &[("org-a", Right::Write)], Some(&["a-2"])),
            ),
        ];
        let clusters = [("a-1", "org-a"), ("a-2", "org-a"), ("b-1", "org-b")];
        Access {
            keys: keys.map(|(name, key)| (name.to_owned(), key)).into(),
            clusters: clusters
                .map(|(id, project)| (id.to_owned(), project.to_owned()))
                .into(),
            ..Access::default()
        }
    }

    fn asked(text: &str, private_key: Option<&str>) -> Result<Granted, Refusal> {
        let mut parameters = Parameters::default();
        for (key, value) in text
            .split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
        {
            parameters.add(key.to_owned(), value.to_owned()).unwrap();
        }
        if let Some(private_key) = private_key {
            let signature = sign(&parameters, private_key);
            parameters.add(SIGNATURE.to_owned(), signature).unwrap();
        }
        let access = access();
        let signer = access.authenticate(&parameters, None)?;
        access.grant(signer, &parameters)
    }

    const GET: &str = "Action=GetUK8SImageAccelerate";
    const DISABLE: &str = "Action=DisableUK8SImageAccelerate";

    #[test]
    fn refusals_come_in_their_order() {
        let all = format!("{GET} PublicKey=a ClusterId=a-1 ProjectId=org-a");
        assert_eq!(asked(&all, Some("pa")).unwrap().cluster, "a-1");
        let missing = |key: &str| Refusal::Missing(key.to_owned());
        for (text, private_key, refusal) in [
            ("PublicKey=a", Some("pa"), Refusal::MissingAction),
            (
                "Action=X PublicKey=a",
                Some("pa"),
                Refusal::UnknownAction("X".to_owned()),
            ),
            (&*all, None, Refusal::MissingSignature),
            (GET, Some("pa"), missing("PublicKey")),
            (
                &all.replace("PublicKey=a", "PublicKey=z"),
                Some("pa"),
                // As one that somebody has.
                Refusal::WrongSignature,
            ),
            (&all, Some("pb"), Refusal::WrongSignature),
            (
                &all.replace("org-a", "org-b"),
                Some("pa"),
                Refusal::NoProject("org-b".to_owned()),
            ),
            (
                &format!("{GET} PublicKey=a"),
                Some("pa"),
                missing("ClusterId"),
            ),
        ] {
            assert_eq!(asked(text, private_key), Err(refusal), "{text}");
        }
    }

    #[test]
    fn unknown_keys_are_told_where_that_is_asked_for() {
        let parameters = |private_key: &str| {
            let mut parameters = Parameters::default();
            for (key, value) in [("Action", "GetUK8SImageAccelerate"), ("PublicKey", "z")] {
                parameters.add(key.to_owned(), value.to_owned()).unwrap();
            }
            let signature = sign(&parameters, private_key);
            parameters.add(SIGNATURE.to_owned(), signature).unwrap();
            parameters
        };
        let mut access = access();
        // Not even who knows the stand-in is let in.
        for private_key in ["pa", STAND_IN] {
            let refused = access.authenticate(&parameters(private_key), None);
            assert_eq!(refused.unwrap_err(), Refusal::WrongSignature);
        }
        access.reveal_unknown_keys = true;
        let refused = access.authenticate(&parameters("pa"), None);
        assert_eq!(refused.unwrap_err(), Refusal::UnknownUser);
    }

    #[test]
    fn the_second_signature_is_checked_where_it_is_there() {
        let mut parameters = Parameters::default();
        for (key, value) in [("Action", "GetUK8SImageAccelerate"), ("PublicKey", "a")] {
            parameters.add(key.to_owned(), value.to_owned()).unwrap();
        }
        let signature = sign(&parameters, "pa");
        parameters.add(SIGNATURE.to_owned(), signature).unwrap();
        let sent = Sent {
            method: "POST",
            query: "",
            content_type: "",
            body: b"x",
        };
        let stamp = |private_key: &str| Stamp::parse(&sent.sign(private_key, 7, [1; 16]));
        let mut access = access();
        for (stamp, is_right) in [(stamp("pa"), true), (stamp("pb"), false), (None, false)] {
            let signer = access.authenticate(&parameters, Some(Exact { stamp, sent }));
            match is_right {
                true => assert_eq!(signer.unwrap().stamp, stamp),
                false => assert_eq!(signer.unwrap_err(), Refusal::WrongSignature),
            }
        }
        access.require = Some(Require::V2);
        let refused = access.authenticate(&parameters, None);
        assert_eq!(refused.unwrap_err(), Refusal::MissingExact);
    }

    #[test]
    fn keys_of_one_project_neither_see_nor_touch_clusters_of_another() {
        let no_cluster = Err(Refusal::NotAvailable("ClusterId".to_owned()));
        for (who, project, cluster, may) in [
            ("a", "org-a", "a-1", true),
            ("a", "", "a-1", true),
            ("a", "org-a", "b-1", false),
            ("a", "", "b-1", false),
            ("b", "org-b", "b-1", true),
            ("b", "org-b", "a-1", false),
            ("both", "org-a", "a-1", true),
            ("both", "org-b", "b-1", true),
            ("both", "org-a", "b-1", false),
            ("one", "", "a-2", true),
            ("one", "", "a-1", false),
            // One that is nowhere is refused in the same words.
            ("a", "org-a", "c-1", false),
        ] {
            let text = format!("{GET} PublicKey={who} ProjectId={project} ClusterId={cluster}");
            let answer = asked(&text, Some(&format!("p{who}")));
            if may {
                assert!(answer.is_ok(), "{text}");
            } else {
                assert_eq!(answer, no_cluster, "{text}");
            }
        }
        // Of two projects one must be named.
        let text = format!("{GET} PublicKey=both ClusterId=a-1");
        let refused = asked(&text, Some("pboth"));
        assert_eq!(refused, Err(Refusal::NoProject(String::new())));
    }

    #[test]
    fn who_may_read_may_not_write() {
        let with = |action: &str, project: &str, cluster: &str| {
            let text = format!("{action} PublicKey=both ProjectId={project} ClusterId={cluster}");
            asked(&text, Some("pboth"))
        };
        assert!(with(GET, "org-b", "b-1").is_ok());
        assert_eq!(with(DISABLE, "org-b", "b-1"), Err(Refusal::Denied));
        assert!(with(DISABLE, "org-a", "a-1").is_ok());
    }
}
