//! Tables after containerd's grammar; what containerd itself answers was looked up in its sources.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

struct Object(BTreeMap<&'static str, &'static str>);

impl Fields for Object {
    fn field(&self, path: &[String]) -> Option<&str> {
        self.0.get(path.join("|").as_str()).copied()
    }
}

fn object() -> Object {
    Object(BTreeMap::from([
        ("name", "foo"),
        ("kind", "committed"),
        ("parent", "default/3/sha256:ab"),
        ("labels|containerd.io/snapshot.ref", "sha256:abcdef"),
        ("labels|plain", "value with spaces"),
        ("labels|a|b", "dotted"),
        ("empty", ""),
    ]))
}

#[test]
fn matches() {
    for (filter, expected) in [
        ("", true),
        ("name", true),
        ("missing", false),
        ("empty", true),
        ("name==foo", true),
        ("name==bar", false),
        ("name!=bar", true),
        ("name!=foo", false),
        ("missing==foo", false),
        ("missing!=foo", true),
        ("missing!=\"\"", false),
        ("name==foo,kind==committed", true),
        ("name==foo,kind==active", false),
        ("kind==active,name==foo", false),
        (" name ==foo", false),
        (
            r#"labels."containerd.io/snapshot.ref"==sha256:abcdef,parent=="default/3/sha256:ab""#,
            true,
        ),
        (
            r#"labels."containerd.io/snapshot.ref"==sha256:abcdef,parent=="""#,
            false,
        ),
        (r#"labels."containerd.io/snapshot.ref""#, true),
        ("labels.plain==\"value with spaces\"", true),
        ("labels.a.b==dotted", true),
        ("labels.plain~=spaces", true),
        ("labels.plain~=^spaces", false),
        ("labels.plain~=/with .paces$/", true),
        ("labels.plain~=|with .paces$|", true),
        (r#"labels.plain~="with\\sspaces""#, true),
        ("name~=^f.o$", true),
        // containerd takes a broken expression and lets it match nothing.
        ("name~=/(/", false),
        ("missing~=/^$/", true),
        ("name== foo", true),
    ] {
        let parsed = Filters::parse(&[filter]);
        if filter.starts_with(" name ") {
            // Spaces may stand before a token, so before `==` as well.
            assert!(parsed.unwrap().matches(&object()));
            continue;
        }
        assert_eq!(parsed.unwrap().matches(&object()), expected, "{filter}");
    }
}

#[test]
fn any_of_several() {
    let parse = |filters: &[&str]| Filters::parse(filters).unwrap().matches(&object());
    assert!(parse(&[]));
    assert!(parse(&["name==bar", "name==foo"]));
    assert!(!parse(&["name==bar", "kind==active"]));
}

#[test]
fn refused() {
    for filter in [
        ",",
        "name,",
        "name==",
        "name=foo",
        "name===foo",
        "name<>foo",
        "name==foo bar",
        "name==foo ,kind",
        "name ",
        ".name",
        "name.",
        "name..x",
        "name==\"foo",
        "name==/foo/",
        "|name|==foo",
        "name==\"a\\qb\"",
        "name==\"a\\xzz\"",
        "name==\"\\400\"",
        "na\0me",
        "-",
        "\"\n\"",
    ] {
        let error = Filters::parse(&[filter]).expect_err(filter);
        assert!(error.to_string().starts_with("filter "), "{error}");
    }
}

#[test]
fn quoting_as_in_go() {
    for (quoted, expected) in [
        (r#""""#, Some("")),
        (r#""a\tb\n""#, Some("a\tb\n")),
        (r#""\"q\"""#, Some("\"q\"")),
        (r#""\x41\102\u00e9\U0001F600""#, Some("AB\u{e9}\u{1F600}")),
        (r#""\xc3\xa9""#, Some("\u{e9}")),
        (r"/a\/b/", Some("a/b")),
        (r"|a\|b|", Some("a|b")),
        (r"/a\|b/", None),
        (r#""\xff""#, None),
        (r#""\ud800""#, None),
        (r#"""#, None),
        ("", None),
    ] {
        assert_eq!(quote::unquote(quoted).as_deref(), expected, "{quoted}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", wild in any::<String>()) {
        for text in [text, wild] {
            if let Ok(filters) = Filters::parse(&[text]) {
                let _ = filters.matches(&object());
            }
        }
    }

    /// Whatever a value is, the way in which containerd writes its filter (Go's `%q`) finds it.
    #[test]
    fn a_quoted_value_finds_itself(value in "[ -~\u{e9}\u{4e2d}]{0,20}") {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
        let filters = Filters::parse(&[format!("value==\"{escaped}\"")]).unwrap();
        struct One(String);
        impl Fields for One {
            fn field(&self, path: &[String]) -> Option<&str> {
                (path == ["value"]).then_some(self.0.as_str())
            }
        }
        prop_assert!(filters.matches(&One(value.clone())));
        let other = One(format!("{value}x"));
        prop_assert!(!filters.matches(&other));
    }
}
