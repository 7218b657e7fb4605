use proptest::prelude::*;

use super::*;

fn shown(body: &str) -> Vec<String> {
    parse(body.as_bytes())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_forms_in_use() {
    assert_eq!(
        shown(
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#
        ),
        ["MANIFEST_UNKNOWN: manifest unknown"]
    );
    assert_eq!(
        shown(r#"{"errors":[{"code":"DENIED"},{"message":"no"}]}"#),
        ["DENIED", "no"]
    );
    assert_eq!(
        shown(r#"{"details":"incorrect username or password"}"#),
        ["incorrect username or password"]
    );
    assert_eq!(
        shown(r#"{"error":"invalid_grant","error_description":"expired"}"#),
        ["invalid_grant: expired"]
    );
    assert_eq!(
        shown("Client sent an HTTP request to an HTTPS server.\n"),
        ["Client sent an HTTP request to an HTTPS server."]
    );
    for empty in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"errors":[{}]}"#,
        "<html>x</html>",
    ] {
        assert_eq!(shown(empty), Vec::<String>::new(), "{empty}");
    }
}

#[test]
fn terminals_are_safe() {
    let body = r#"{"errors":[{"code":"A\u001b[2J","message":"a\nb\u0007"}]}"#;
    assert_eq!(shown(body), ["A[2J: ab"]);
    let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "ä".repeat(5000));
    assert_eq!(shown(&long)[0].chars().count(), MAX_MESSAGE_CHARS);
}

proptest! {
    #[test]
    fn any_body(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for error in parse(&body) {
            let said = error.to_string();
            prop_assert!(!said.is_empty() && !said.contains(char::is_control));
        }
    }
}
