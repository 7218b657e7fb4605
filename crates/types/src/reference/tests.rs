use proptest::prelude::*;

use super::*;

const HASH: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn normal(text: &str) -> String {
    text.parse::<ImageReference>().expect(text).to_string()
}

fn problem(text: &str) -> ReferenceProblem {
    match text.parse::<ImageReference>() {
        Ok(reference) => panic!("{text:?} parsed as {reference}"),
        Err(error) => error.problem,
    }
}

#[test]
fn short_names_are_written_out() {
    for (text, expected) in [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("user/x", "docker.io/user/x:latest"),
        ("library/alpine", "docker.io/library/alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("host.tld/x", "host.tld/x:latest"),
        ("HOST/x", "HOST/x:latest"),
        ("127.0.0.1:5000/a/b/c:T_1", "127.0.0.1:5000/a/b/c:T_1"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("a__b/c---d.e", "docker.io/a__b/c---d.e:latest"),
    ] {
        assert_eq!(normal(text), expected, "{text}");
    }
    assert_eq!(
        normal(&format!("alpine@{HASH}")),
        format!("docker.io/library/alpine@{HASH}")
    );
    assert_eq!(
        normal(&format!("alpine:3@{HASH}")),
        format!("docker.io/library/alpine:3@{HASH}")
    );
}

#[test]
fn parts_are_told_apart() {
    let reference: ImageReference = format!("alpine:3@{HASH}").parse().unwrap();
    assert_eq!(reference.registry(), "docker.io");
    assert_eq!(reference.registry_host(), "registry-1.docker.io");
    assert_eq!(reference.repository(), "library/alpine");
    assert_eq!(reference.tag(), Some("3"));
    assert_eq!(reference.digest(), Some(HASH.parse().unwrap()));

    let other: ImageReference = "quay.io/a/b".parse().unwrap();
    assert_eq!(other.registry_host(), "quay.io");
    assert!(!other.same_registry(&reference));
    let by_digest = other.with_digest(HASH.parse().unwrap());
    assert_eq!(by_digest.to_string(), format!("quay.io/a/b@{HASH}"));
}

#[test]
fn errors_say_what_is_wrong() {
    use ReferenceProblem as P;
    assert_eq!(problem(""), P::Empty);
    assert_eq!(
        problem("https://quay.io/x"),
        P::Scheme("https://".to_owned())
    );
    assert_eq!(problem("quay.io/"), P::NoRepository);
    assert_eq!(problem(":tag"), P::NoRepository);
    assert_eq!(problem("Alpine"), P::UpperCase("Alpine".to_owned()));
    assert_eq!(problem("quay.io/A/b"), P::UpperCase("A/b".to_owned()));
    assert_eq!(problem("a//b"), P::Component(String::new()));
    assert_eq!(problem("a/../b"), P::Component("..".to_owned()));
    assert_eq!(problem("a___b"), P::Component("a___b".to_owned()));
    assert_eq!(problem("-a"), P::Component("-a".to_owned()));
    assert_eq!(problem("a b"), P::Component("a b".to_owned()));
    assert_eq!(problem("a?b"), P::Component("a?b".to_owned()));
    assert_eq!(problem("x:"), P::Tag(String::new()));
    assert_eq!(problem("x:.a"), P::Tag(".a".to_owned()));
    assert_eq!(problem("x:a:b"), P::Tag("a:b".to_owned()));
    assert_eq!(problem("x@sha256:0"), P::Digest("sha256:0".to_owned()));
    assert_eq!(problem("-a.b/x"), P::Registry("-a.b".to_owned()));
    assert_eq!(problem("a.b:x/x"), P::Registry("a.b:x".to_owned()));
    assert_eq!(problem("a.b:99999/x"), P::Registry("a.b:99999".to_owned()));
    assert_eq!(problem("[::1/x"), P::Registry("[::1".to_owned()));
    assert_eq!(problem(&"a".repeat(64)), P::ImageId);
    assert_eq!(
        problem(&format!("quay.io/{}", "a".repeat(256))),
        P::RepositoryTooLong(256)
    );
    assert_eq!(
        problem(&format!("x:{}", "a".repeat(129))),
        P::Tag("a".repeat(129))
    );
    let message = "Alpine".parse::<ImageReference>().unwrap_err().to_string();
    assert_eq!(
        message,
        r#"image reference "Alpine": the repository "Alpine" must be in lower case"#
    );
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused_without_panic(text in "\\PC{0,80}") {
        if let Ok(reference) = text.parse::<ImageReference>() {
            prop_assert_eq!(reference.to_string().parse::<ImageReference>(), Ok(reference));
        }
    }

    #[test]
    fn near_misses_round_trip_too(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,40}(@sha256:[0-9a-f]{64})?") {
        if let Ok(reference) = text.parse::<ImageReference>() {
            let shown = reference.to_string();
            prop_assert!(shown.ends_with(text.trim_start_matches("index.docker.io/")) || shown.ends_with(":latest"));
            prop_assert_eq!(shown.parse::<ImageReference>(), Ok(reference));
        }
    }

    #[test]
    fn the_grammar_is_taken(
        registry in "([a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?\\.){1,3}[a-z]{2,5}(:[1-9][0-9]{0,3})?",
        path in "[a-z0-9]{1,8}(([._]|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}){1,3}",
        tag in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}"),
        digest in proptest::option::of(any::<[u8; 32]>()),
    ) {
        prop_assume!(registry != LEGACY_DEFAULT_REGISTRY);
        let digest = digest.map(Digest::from_bytes);
        let mut text = format!("{registry}/{path}");
        if let Some(tag) = &tag {
            text.push_str(&format!(":{tag}"));
        }
        if let Some(digest) = &digest {
            text.push_str(&format!("@{digest}"));
        }
        let reference: ImageReference = text.parse().unwrap();
        prop_assert_eq!(reference.registry(), &registry);
        prop_assert_eq!(reference.repository(), &path);
        prop_assert_eq!(reference.digest(), digest);
        let expected_tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        prop_assert_eq!(reference.tag(), expected_tag.as_deref());
    }
}
