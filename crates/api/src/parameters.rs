//! What a request says: flat parameters, from a query, a form and JSON, in any mix.
//!
//! Values of JSON flatten as the SDKs flatten them before they sign: `K.0` for items of lists, `K.sub`
//! for fields, `true` and `false`, whole numbers without a point, and nothing for null. Everything
//! here is hostile until its signature was checked, so what could mean two things is refused: a key
//! that is there twice, wherever it came from. Sizes are bounded by the caller's limit of bytes, and by
//! [`MOST`] and [`DEEPEST`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How many parameters a request may have.
pub const MOST: usize = 1000;
/// How many bytes keys and values may have together: nested values repeat the keys above them, so a short body can be many.
pub const LONGEST: usize = 64 << 10;
/// How many bytes a key may have.
pub const LONGEST_KEY: usize = 256;
/// How many bytes a value may have.
pub const LONGEST_VALUE: usize = 4096;
/// How deep values may be nested.
pub const DEEPEST: usize = 8;

/// Why parameters cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// The body is no JSON object.
    #[error("the body is no JSON object: {0}")]
    Json(String),
    /// A key is there more than once.
    #[error("{0:?} is there more than once")]
    Twice(String),
    /// The body is of a type that no client sends.
    #[error("a body of type {0:?} cannot be read: send application/json or a form")]
    Type(String),
    /// They are longer than [`LONGEST`], or a key is than [`LONGEST_KEY`].
    #[error("the parameters are too long")]
    TooLong,
    /// There are more than [`MOST`].
    #[error("there are more than {MOST} parameters")]
    TooMany,
}

/// The parameters of a request, in the order of their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    pairs: BTreeMap<String, String>,
    bytes: usize,
}

impl Parameters {
    /// Those of a request: of its query and of its body. A body without a type is JSON where it
    /// begins like an object, else a form.
    ///
    /// # Errors
    /// See [`ParameterError`].
    pub fn of_request(
        query: Option<&str>,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Self, ParameterError> {
        let mut parameters = Self::default();
        parameters.add_form(query.unwrap_or_default().as_bytes())?;
        // RFC 9110, section 8.3.1: the type itself has no case, parameters come behind it.
        let kind = content_type.unwrap_or_default().split(';').next();
        let kind = kind.unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            _ if body.is_empty() => {}
            "application/json" => parameters.add_json(body)?,
            "" if body.trim_ascii_start().starts_with(b"{") => parameters.add_json(body)?,
            "" | "application/x-www-form-urlencoded" => parameters.add_form(body)?,
            _ => return Err(ParameterError::Type(kind.chars().take(64).collect())),
        }
        Ok(parameters)
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    /// All of them, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.pairs.iter();
        pairs.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`ParameterError::Twice`], [`ParameterError::TooMany`] and [`ParameterError::TooLong`].
    pub fn add(&mut self, key: String, value: String) -> Result<(), ParameterError> {
        if self.pairs.len() >= MOST {
            return Err(ParameterError::TooMany);
        }
        let bytes = self.bytes.saturating_add(key.len() + value.len());
        if key.len() > LONGEST_KEY || bytes > LONGEST {
            return Err(ParameterError::TooLong);
        }
        match self.pairs.entry(key) {
            Entry::Occupied(there) => Err(ParameterError::Twice(there.key().clone())),
            Entry::Vacant(place) => {
                place.insert(value);
                self.bytes = bytes;
                Ok(())
            }
        }
    }

    /// Adds those of a query or of a form (`application/x-www-form-urlencoded`). Bytes that are no
    /// UTF-8 become U+FFFD, so nobody's signature fits them.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_form(&mut self, text: &[u8]) -> Result<(), ParameterError> {
        for (key, value) in form_urlencoded::parse(text) {
            self.add(key.into_owned(), value.into_owned())?;
        }
        Ok(())
    }

    /// Adds the fields of a JSON object.
    ///
    /// # Errors
    /// [`ParameterError::Json`], and as [`Self::add`].
    pub fn add_json(&mut self, text: &[u8]) -> Result<(), ParameterError> {
        let mut refused = None;
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let top = Flatten {
            into: self,
            refused: &mut refused,
            key: String::new(),
            depth: 0,
        };
        let done = top
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        match (refused, done) {
            (Some(refused), _) => Err(refused),
            (None, Err(error)) => Err(ParameterError::Json(error.to_string())),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Adds a value, with all that is in it.
struct Flatten<'p> {
    into: &'p mut Parameters,
    /// Why a parameter could not be added: serde's errors are only text.
    refused: &'p mut Option<ParameterError>,
    key: String,
    depth: usize,
}

impl Flatten<'_> {
    fn add<E: serde::de::Error>(self, value: String) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::custom("not an object"));
        }
        self.into.add(self.key, value).map_err(|error| {
            let text = error.to_string();
            *self.refused = Some(error);
            E::custom(text)
        })
    }

    /// A value in this one.
    fn inner<E: serde::de::Error>(&mut self, name: &str) -> Result<Flatten<'_>, E> {
        if self.depth >= DEEPEST {
            return Err(E::custom(format!("nested deeper than {DEEPEST}")));
        }
        // Before anything is copied.
        if self.key.len() + name.len() > LONGEST_KEY {
            *self.refused = Some(ParameterError::TooLong);
            return Err(E::custom("a key is too long"));
        }
        let key = if self.depth == 0 {
            name.to_owned()
        } else {
            format!("{}.{name}", self.key)
        };
        Ok(Flatten {
            into: self.into,
            refused: self.refused,
            key,
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Flatten<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flatten<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.add(value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.add(value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.add(value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        // A whole number is written without its point; -0.0 is 0 to the SDKs.
        let value = if value == 0.0 { 0.0 } else { value };
        self.add(value.to_string())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.add(value.to_owned())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::custom("not an object"));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        if self.depth == 0 {
            return Err(A::Error::custom("not an object"));
        }
        let mut number = 0_usize;
        while items
            .next_element_seed(self.inner(&number.to_string())?)?
            .is_some()
        {
            number += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<String>()? {
            fields.next_value_seed(self.inner(&name)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Vec<(String, String)>, ParameterError> {
        let mut parameters = Parameters::default();
        parameters.add_json(text.as_bytes())?;
        let pairs = parameters.iter();
        Ok(pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect())
    }

    #[test]
    fn values_flatten_as_the_sdks_flatten_them() {
        let text = r#"{"B": [true, {"sub": "x", "list": [1, -2]}, null, 1.5], "A": 42.0, "E": "", "N": null,
            "F": 0.1, "Z": -0.0, "L": [], "O": {}, "I": 18446744073709551615}"#;
        let expected = [
            ("A", "42"),
            ("B.0", "true"),
            ("B.1.list.0", "1"),
            ("B.1.list.1", "-2"),
            ("B.1.sub", "x"),
            ("B.3", "1.5"),
            ("E", ""),
            ("F", "0.1"),
            ("I", "18446744073709551615"),
            ("Z", "0"),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(json(text).unwrap(), expected);
    }

    #[test]
    fn a_short_body_that_would_be_many_parameters() {
        let long = format!(r#"{{"{}": [{}1]}}"#, "k".repeat(14_000), "1,".repeat(900));
        assert_eq!(json(&long), Err(ParameterError::TooLong));
        let wide = format!(r#"{{"{}": [{}1]}}"#, "k".repeat(250), "1,".repeat(900));
        assert_eq!(json(&wide), Err(ParameterError::TooLong));
        let value = format!(r#"{{"k": "{}"}}"#, "v".repeat(LONGEST));
        assert_eq!(json(&value), Err(ParameterError::TooLong));
        assert_eq!(
            json(&format!(r#"{{"k": "{}"}}"#, "v".repeat(8000)))
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn requests_come_as_query_form_or_json() {
        let of = |query: Option<&str>, kind: Option<&str>, body: &str| {
            let parameters = Parameters::of_request(query, kind, body.as_bytes())?;
            let pairs = parameters
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            Ok(pairs.collect::<Vec<_>>().join(" "))
        };
        let both = Ok("A=1 B=2 3".to_owned());
        let form = Some("application/x-www-form-urlencoded");
        for (query, kind, body) in [
            (Some("A=1&B=2+3"), None, ""),
            (Some("A=1&B=2%203"), Some("text/plain"), ""),
            (None, form, "A=1&B=2+3"),
            (Some("A=1"), form, "B=2+3"),
            (None, None, "B=2+3&A=1"),
            (None, Some("application/json"), r#"{"A": 1, "B": "2 3"}"#),
            (
                None,
                Some("Application/JSON; charset=utf-8"),
                r#"{"A": 1, "B": "2 3"}"#,
            ),
            (Some("A=1"), None, " {\"B\": \"2 3\"}"),
        ] {
            assert_eq!(of(query, kind, body), both, "{query:?} {kind:?} {body}");
        }
        let twice = of(Some("A=1"), form, "A=1");
        assert_eq!(twice, Err(ParameterError::Twice("A".to_owned())));
        let unknown = of(None, Some("multipart/form-data; boundary=x"), "x");
        assert_eq!(
            unknown,
            Err(ParameterError::Type("multipart/form-data".to_owned()))
        );
        assert!(of(None, Some("application/json"), "A=1").is_err());
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        let twice = |key: &str| Err(ParameterError::Twice(key.to_owned()));
        assert_eq!(json(r#"{"A": 1, "A": 1}"#), twice("A"));
        assert_eq!(json(r#"{"A.0": 1, "A": [2]}"#), twice("A.0"));
        assert_eq!(json(r#"{"A": {"b": 1, "b": 2}}"#), twice("A.b"));
        let mut mixed = Parameters::default();
        mixed.add_form(b"Action=Get&x=%20+").unwrap();
        assert_eq!(mixed.get("x"), Some("  "));
        let again = mixed.add_json(br#"{"Action": "Delete"}"#);
        assert_eq!(again, Err(ParameterError::Twice("Action".to_owned())));
        let again = mixed.add_form(b"x=1");
        assert_eq!(again, Err(ParameterError::Twice("x".to_owned())));
    }

    #[test]
    fn bodies_that_are_no_objects_are_refused() {
        for text in [
            "",
            "[]",
            "1",
            "null",
            "\"x\"",
            "{",
            "{}x",
            "{\"a\":1e999}",
            "[[[[",
            "\u{0}",
        ] {
            let refused = json(text);
            assert!(
                matches!(refused, Err(ParameterError::Json(_))),
                "{text:?}: {refused:?}"
            );
        }
        let deep =
            |levels: usize| format!("{}{}{}", "{\"a\":".repeat(levels), "1", "}".repeat(levels));
        assert!(json(&deep(DEEPEST)).is_ok());
        assert!(json(&deep(DEEPEST + 1)).is_err());
        assert!(json(&deep(100_000)).is_err());
        let many = |count: usize| format!("{{\"a\":[{}]}}", vec!["1"; count].join(","));
        assert_eq!(json(&many(MOST)).unwrap().len(), MOST);
        assert_eq!(json(&many(MOST + 1)), Err(ParameterError::TooMany));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut parameters = Parameters::default();
            let _form = parameters.add_form(&bytes);
            let _json = parameters.add_json(&bytes);
        }

        #[test]
        fn forms_come_back(pairs: BTreeMap<String, String>) {
            let mut text = form_urlencoded::Serializer::new(String::new());
            text.extend_pairs(&pairs);
            let mut parameters = Parameters::default();
            parameters.add_form(text.finish().as_bytes()).unwrap();
            let back = parameters.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
            proptest::prop_assert_eq!(back.collect::<BTreeMap<_, _>>(), pairs);
        }
    }
}
