//! The five actions, as a request asks for them.

use uimgacc_types::{ImageReference, NfsAddress};

use crate::parameters::Parameters;
use crate::refusal::Refusal;
use crate::secret::Secret;

/// Which action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `EnableUK8SImageAccelerate`
    Enable,
    /// `GetUK8SImageAccelerate`
    Get,
    /// `CreateUK8SImageAccelerate`
    Create,
    /// `DeleteUK8SImageAccelerate`
    Delete,
    /// `DisableUK8SImageAccelerate`
    Disable,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Enable,
        Self::Get,
        Self::Create,
        Self::Delete,
        Self::Disable,
    ];

    /// The name of the action.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enable => "EnableUK8SImageAccelerate",
            Self::Get => "GetUK8SImageAccelerate",
            Self::Create => "CreateUK8SImageAccelerate",
            Self::Delete => "DeleteUK8SImageAccelerate",
            Self::Disable => "DisableUK8SImageAccelerate",
        }
    }

    /// That of a request.
    ///
    /// # Errors
    /// [`Refusal::MissingAction`] and [`Refusal::UnknownAction`].
    pub fn of(parameters: &Parameters) -> Result<Self, Refusal> {
        let asked = optional(parameters, "Action").ok_or(Refusal::MissingAction)?;
        let known = Self::ALL.into_iter().find(|verb| verb.name() == asked);
        known.ok_or_else(|| Refusal::UnknownAction(asked.chars().take(64).collect()))
    }
}

/// What is asked of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Set up acceleration.
    Enable {
        /// The store, as [`NfsAddress`] reads it; must be said the first time.
        nfs: Option<String>,
        /// The subnet of the store, which is only kept and told.
        subnet: Option<String>,
        /// User and password at the cluster's registry.
        login: Option<(String, Secret)>,
    },
    /// Tell how it is.
    Get,
    /// Make an accelerated image.
    Create {
        /// The original image.
        original: ImageReference,
        /// The target image.
        target: ImageReference,
    },
    /// Delete an accelerated image.
    Delete {
        /// The target image.
        image: ImageReference,
    },
    /// Take acceleration away.
    Disable,
}

impl Action {
    /// That action, with what these parameters say of it.
    ///
    /// # Errors
    /// [`Refusal::Missing`] and [`Refusal::NotAvailable`] name a parameter.
    pub fn parse(verb: Verb, parameters: &Parameters) -> Result<Self, Refusal> {
        Ok(match verb {
            Verb::Enable => Self::Enable {
                nfs: optional(parameters, "NfsAddr")
                    .map(|text| match text.parse::<NfsAddress>() {
                        Ok(_) => Ok(text.to_owned()),
                        Err(_) => Err(not_available("NfsAddr")),
                    })
                    .transpose()?,
                subnet: optional(parameters, "SubnetId").map(str::to_owned),
                login: login(parameters)?,
            },
            Verb::Get => Self::Get,
            Verb::Create => Self::Create {
                original: image(parameters, "OriginalImage")?,
                target: image(parameters, "TargetImage")?,
            },
            Verb::Delete => Self::Delete {
                image: image(parameters, "Image")?,
            },
            Verb::Disable => Self::Disable,
        })
    }

    /// Which action it is.
    #[must_use]
    pub const fn verb(&self) -> Verb {
        match self {
            Self::Enable { .. } => Verb::Enable,
            Self::Get => Verb::Get,
            Self::Create { .. } => Verb::Create,
            Self::Delete { .. } => Verb::Delete,
            Self::Disable => Verb::Disable,
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub const fn only_reads(&self) -> bool {
        matches!(self, Self::Get)
    }
}

/// A parameter that must be there. An empty one is as good as none.
///
/// # Errors
/// [`Refusal::Missing`].
pub fn required<'p>(parameters: &'p Parameters, key: &str) -> Result<&'p str, Refusal> {
    optional(parameters, key).ok_or_else(|| Refusal::Missing(key.to_owned()))
}

fn optional<'p>(parameters: &'p Parameters, key: &str) -> Option<&'p str> {
    parameters.get(key).filter(|value| !value.is_empty())
}

fn not_available(key: &str) -> Refusal {
    Refusal::NotAvailable(key.to_owned())
}

fn image(parameters: &Parameters, key: &str) -> Result<ImageReference, Refusal> {
    let text = required(parameters, key)?;
    text.parse().map_err(|_| not_available(key))
}

/// Both or neither.
fn login(parameters: &Parameters) -> Result<Option<(String, Secret)>, Refusal> {
    const USER: &str = "UHubUsername";
    const PASSWORD: &str = "UHubPassword";
    let user = optional(parameters, USER);
    let password = optional(parameters, PASSWORD);
    match (user, password) {
        (None, None) => Ok(None),
        (Some(user), Some(password)) => {
            Ok(Some((user.to_owned(), Secret::new(password.to_owned()))))
        }
        (Some(_), None) => Err(Refusal::Missing(PASSWORD.to_owned())),
        (None, Some(_)) => Err(Refusal::Missing(USER.to_owned())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn of(pairs: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::default();
        for (key, value) in pairs {
            parameters
                .add((*key).to_owned(), (*value).to_owned())
                .unwrap();
        }
        parameters
    }

    #[test]
    fn actions_are_found_by_their_names() {
        let asked = |name: &str| Verb::of(&of(&[("Action", name)]));
        assert_eq!(Verb::of(&of(&[])), Err(Refusal::MissingAction));
        assert_eq!(asked(""), Err(Refusal::MissingAction));
        for (name, verb) in [
            ("EnableUK8SImageAccelerate", Verb::Enable),
            ("GetUK8SImageAccelerate", Verb::Get),
            ("CreateUK8SImageAccelerate", Verb::Create),
            ("DeleteUK8SImageAccelerate", Verb::Delete),
            ("DisableUK8SImageAccelerate", Verb::Disable),
        ] {
            assert_eq!(asked(name), Ok(verb));
        }
        let long = "x".repeat(1000);
        for other in ["getUK8SImageAccelerate", "DescribeUHostInstance", &long] {
            let cut: String = other.chars().take(64).collect();
            assert_eq!(asked(other), Err(Refusal::UnknownAction(cut)));
        }
    }

    #[test]
    fn parameters_are_checked() {
        let missing = |key: &str| Err(Refusal::Missing(key.to_owned()));
        let bad = |key: &str| Err(not_available(key));
        let create = |pairs: &[(&str, &str)]| Action::parse(Verb::Create, &of(pairs));
        let (original, target) = (("OriginalImage", "a/b:1"), ("TargetImage", "a/b:fast"));
        let made = create(&[original, target]).unwrap();
        let reference = |text: &str| text.parse::<ImageReference>().unwrap();
        assert_eq!(
            made,
            Action::Create {
                original: reference("a/b:1"),
                target: reference("a/b:fast"),
            }
        );
        assert!(!made.only_reads());
        assert_eq!(create(&[target]), missing("OriginalImage"));
        assert_eq!(create(&[original]), missing("TargetImage"));
        assert_eq!(
            create(&[original, ("TargetImage", "")]),
            missing("TargetImage")
        );
        assert_eq!(
            create(&[original, ("TargetImage", "A B")]),
            bad("TargetImage")
        );
        assert_eq!(Action::parse(Verb::Delete, &of(&[])), missing("Image"));
        assert_eq!(Action::parse(Verb::Get, &of(&[])), Ok(Action::Get));
        assert!(Action::Get.only_reads());

        let enable = |pairs: &[(&str, &str)]| Action::parse(Verb::Enable, &of(pairs));
        let (user, password) = (("UHubUsername", "u"), ("UHubPassword", "geheim"));
        let enabled = enable(&[user, password, ("NfsAddr", "10.0.0.1:/x")]).unwrap();
        assert!(!format!("{enabled:?}").contains("geheim"));
        let Action::Enable { nfs, subnet, login } = enabled else {
            panic!("{enabled:?}");
        };
        assert!(nfs.is_some() && subnet.is_none());
        assert_eq!(login.unwrap().1.reveal(), "geheim");
        assert_eq!(enable(&[user]), missing("UHubPassword"));
        assert_eq!(enable(&[password]), missing("UHubUsername"));
        assert_eq!(enable(&[("NfsAddr", "a b")]), bad("NfsAddr"));
        assert!(enable(&[]).is_ok());
    }
}
