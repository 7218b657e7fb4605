//! Requests: signed forms. Pure.

use form_urlencoded::Serializer;
use uimgacc_api::{Parameters, Secret, Verb, recut, signature};

use crate::error::Error;
use crate::setting::Setting;
use crate::settings::Settings;

/// What is asked of the cluster of the settings. Images are as the user wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Set up acceleration.
    Enable {
        /// The store.
        nfs: Option<String>,
        /// Its subnet.
        subnet: Option<String>,
        /// User and password at the image registry.
        login: Option<(String, Secret)>,
    },
    /// Tell how it is.
    Get,
    /// Make an accelerated image.
    Create {
        /// The original image.
        original: String,
        /// The target image.
        target: String,
    },
    /// Delete an accelerated image.
    Delete {
        /// The target image.
        image: String,
    },
    /// Take acceleration away.
    Disable,
}

impl Request {
    /// Which action.
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

    /// The body that asks for it, `application/x-www-form-urlencoded`. It holds the password.
    ///
    /// # Errors
    /// [`Error::NotSet`]: a key or the cluster is missing. [`Error::Unsafe`]: the signature would fit
    /// another request as well.
    pub fn form(&self, settings: &Settings) -> Result<String, Error> {
        let mut pairs = vec![
            ("Action", Some(self.verb().name())),
            ("Region", settings.get(Setting::Region)),
            ("ProjectId", settings.get(Setting::ProjectId)),
            ("PublicKey", Some(settings.required(Setting::PublicKey)?)),
            ("ClusterId", Some(settings.required(Setting::ClusterId)?)),
        ];
        match self {
            Self::Enable { nfs, subnet, login } => pairs.extend([
                ("NfsAddr", nfs.as_deref()),
                ("SubnetId", subnet.as_deref()),
                (
                    "UHubUsername",
                    login.as_ref().map(|(user, _)| user.as_str()),
                ),
                (
                    "UHubPassword",
                    login.as_ref().map(|(_, password)| password.reveal()),
                ),
            ]),
            Self::Create { original, target } => pairs.extend([
                ("OriginalImage", Some(original.as_str())),
                ("TargetImage", Some(target.as_str())),
            ]),
            Self::Delete { image } => pairs.push(("Image", Some(image.as_str()))),
            Self::Get | Self::Disable => {}
        }
        let mut parameters = Parameters::default();
        for (key, value) in pairs {
            if let Some(value) = value {
                // Twelve keys at most, each of them once.
                let _ = parameters.add(key.to_owned(), value.to_owned());
            }
        }
        let is_safe =
            recut::check(self.verb(), &parameters).and_then(|()| recut::unique(&parameters));
        is_safe.map_err(|refusal| Error::Unsafe(refusal.to_string()))?;
        let signed = signature::sign(&parameters, settings.required(Setting::PrivateKey)?);
        let mut form = Serializer::new(String::new());
        form.extend_pairs(parameters.iter());
        form.append_pair(signature::SIGNATURE, &signed);
        Ok(form.finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::Source;

    fn settings() -> Settings {
        let mut settings = Settings::default();
        for (setting, text) in [
            (Setting::Region, "cn-bj2"),
            (Setting::PublicKey, "public"),
            (Setting::PrivateKey, "geheim"),
            (Setting::ClusterId, "uk8s-1"),
        ] {
            settings.set(setting, text.to_owned(), Source::File);
        }
        settings
    }

    fn parsed(form: &str) -> Parameters {
        let kind = Some("application/x-www-form-urlencoded");
        Parameters::of_request(None, kind, form.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_not_set_is_not_sent() {
        let form = Request::Get.form(&settings()).unwrap();
        let keys: Vec<_> = parsed(&form)
            .iter()
            .map(|(key, _)| key.to_owned())
            .collect();
        assert_eq!(
            keys,
            ["Action", "ClusterId", "PublicKey", "Region", "Signature"]
        );
        assert!(!form.contains("geheim"));
        for missing in [Setting::PublicKey, Setting::PrivateKey, Setting::ClusterId] {
            let mut few = Settings::default();
            for setting in Setting::ALL
                .into_iter()
                .filter(|setting| *setting != missing)
            {
                few.set(setting, "x".to_owned(), Source::File);
            }
            let refused = Request::Get.form(&few);
            assert!(matches!(refused, Err(Error::NotSet(setting)) if setting == missing));
        }
    }

    #[test]
    fn what_could_be_cut_otherwise_is_not_signed() {
        let create = |original: &str| Request::Create {
            original: original.to_owned(),
            target: "b.c:5000/x:y".to_owned(),
        };
        assert!(create("r/a:1").form(&settings()).is_ok());
        for original in [
            "r/a:1ProjectIdorg",
            "r/a:1PublicKeypublicRegionxTargetImaged",
        ] {
            let refused = create(original).form(&settings()).unwrap_err();
            assert!(matches!(refused, Error::Unsafe(_)), "{refused}");
            assert!(refused.to_string().contains("[OriginalImage]"), "{refused}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let login = Some(("u".to_owned(), Secret::new("geheim".to_owned())));
        let request = Request::Enable {
            nfs: None,
            subnet: None,
            login,
        };
        assert!(!format!("{request:?}").contains("geheim"));
    }

    proptest! {
        /// The server reads what was meant, and the signature fits.
        #[test]
        fn what_is_sent_is_read(texts in prop::array::uniform5("\\PC{0,30}"), which in 0..3) {
            let [a, b, user, password, key] = texts;
            let mut settings = settings();
            settings.set(Setting::PrivateKey, key.clone(), Source::File);
            let (request, expected) = match which {
                0 => (
                    Request::Create { original: a.clone(), target: b.clone() },
                    vec![("OriginalImage", a), ("TargetImage", b)],
                ),
                1 => (Request::Delete { image: a.clone() }, vec![("Image", a)]),
                _ => (
                    Request::Enable {
                        nfs: Some(a.clone()),
                        subnet: Some(b.clone()),
                        login: Some((user.clone(), Secret::new(password.clone()))),
                    },
                    vec![("NfsAddr", a), ("SubnetId", b), ("UHubUsername", user), ("UHubPassword", password)],
                ),
            };
            let read = parsed(&request.form(&settings).unwrap());
            prop_assert!(signature::is_signed_by(&read, &key));
            prop_assert_eq!(Verb::of(&read), Ok(request.verb()));
            for (name, value) in expected {
                prop_assert_eq!(read.get(name), Some(value.as_str()));
            }
        }
    }
}
