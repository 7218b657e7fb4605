use proptest::prelude::*;

use super::*;

#[test]
fn docker_hub() {
    let found = parse(
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
    );
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].scheme, "bearer");
    assert_eq!(
        found[0].param("realm"),
        Some("https://auth.docker.io/token")
    );
    assert_eq!(found[0].param("service"), Some("registry.docker.io"));
    assert_eq!(found[0].param("scope"), Some("repository:a/b:pull,push"));
    assert_eq!(found[0].param("error"), None);
}

#[test]
fn several_in_one_header() {
    let found = parse(r#"Negotiate, BASIC Realm = "a \"b\", c" , charset=UTF-8,Bearer realm=x"#);
    let schemes: Vec<_> = found.iter().map(|c| c.scheme.as_str()).collect();
    assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
    assert_eq!(found[1].param("realm"), Some(r#"a "b", c"#));
    assert_eq!(found[1].param("charset"), Some("UTF-8"));
    assert_eq!(found[2].param("realm"), Some("x"));
}

#[test]
fn broken_ones_are_skipped() {
    assert_eq!(parse(""), []);
    assert_eq!(parse(r#"realm="x""#), []);
    assert_eq!(parse("\"\"=,,;"), []);
    assert_eq!(
        parse(r#"Basic realm="open"#)[0].param("realm"),
        Some("open")
    );
}

proptest! {
    #[test]
    fn any_text_ends(text in "\\PC{0,100}") {
        parse(&text);
    }

    #[test]
    fn what_is_quoted_comes_back(values in proptest::collection::vec("[ -~]{0,20}", 1..4)) {
        let params: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(at, value)| {
                let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
                format!("k{at}=\"{escaped}\"")
            })
            .collect();
        let found = parse(&format!("Basic realm=r, Bearer {}", params.join(", ")));
        prop_assert_eq!(found.len(), 2);
        for (at, value) in values.iter().enumerate() {
            prop_assert_eq!(found[1].param(&format!("k{at}")), Some(value.as_str()));
        }
    }
}
