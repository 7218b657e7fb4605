use proptest::prelude::*;

use super::*;

fn normal(text: &str) -> String {
    text.parse::<Platform>().expect(text).to_string()
}

fn accepted(text: &str) -> Vec<String> {
    let platform: Platform = text.parse().expect(text);
    platform
        .accepted()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn names_are_normalised() {
    for (text, expected) in [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("LINUX/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("armhf", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/riscv64", "linux/riscv64"),
        ("macos/arm64", "darwin/arm64"),
    ] {
        assert_eq!(normal(text), expected, "{text}");
    }
    for bad in [
        "",
        "/",
        "linux/",
        "linux",
        "a/b/c/d",
        "linux/a b",
        "linux//v7",
    ] {
        assert!(bad.parse::<Platform>().is_err(), "{bad}");
    }
}

#[test]
fn older_variants_are_accepted() {
    assert_eq!(accepted("linux/amd64"), ["linux/amd64", "linux/386"]);
    assert_eq!(
        accepted("linux/amd64/v3"),
        [
            "linux/amd64/v3",
            "linux/amd64/v2",
            "linux/amd64",
            "linux/386"
        ]
    );
    assert_eq!(
        accepted("linux/arm/v7"),
        ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]
    );
    assert_eq!(
        accepted("linux/arm64"),
        [
            "linux/arm64",
            "linux/arm/v8",
            "linux/arm/v7",
            "linux/arm/v6",
            "linux/arm/v5"
        ]
    );
    assert_eq!(accepted("linux/s390x"), ["linux/s390x"]);
}

#[test]
fn the_host_has_a_go_name() {
    let host = Platform::host();
    assert_eq!(host.os(), "linux");
    assert!(!["x86_64", "aarch64"].contains(&host.architecture()));
}

proptest! {
    #[test]
    fn normal_form_is_stable(text in "[a-z0-9_/.-]{0,20}") {
        if let Ok(platform) = text.parse::<Platform>() {
            prop_assert_eq!(platform.to_string().parse(), Ok(platform.clone()));
            prop_assert!(platform.accepted().len() < 12);
        }
    }
}
