use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::action::tests::of;

const CREATE: (&str, &str) = ("Action", "CreateUK8SImageAccelerate");
const ENABLE: (&str, &str) = ("Action", "EnableUK8SImageAccelerate");
const DELETE: (&str, &str) = ("Action", "DeleteUK8SImageAccelerate");
const CLUSTER: (&str, &str) = ("ClusterId", "uk8s-a");
const PUBLIC: (&str, &str) = ("PublicKey", "team-a");
const PROJECT: (&str, &str) = ("ProjectId", "org-a");
const REGION: (&str, &str) = ("Region", "cn-bj2");
const ORIGINAL: (&str, &str) = ("OriginalImage", "r/a:1");

#[test]
fn what_clients_send_is_accepted() {
    let (target, token) = (("TargetImage", "r/a:fast"), ("SecurityToken", "t+/="));
    for pairs in [
        &[CREATE, CLUSTER, PUBLIC, ORIGINAL, target][..],
        &[CREATE, CLUSTER, PUBLIC, PROJECT, REGION, ORIGINAL, target],
        &[
            CREATE, CLUSTER, PUBLIC, PROJECT, REGION, token, ORIGINAL, target,
        ],
        // No parameter can follow there.
        &[
            CREATE,
            CLUSTER,
            PUBLIC,
            PROJECT,
            ORIGINAL,
            ("TargetImage", "r/a:TimeZone-Region"),
        ],
        &[
            DELETE,
            CLUSTER,
            PUBLIC,
            PROJECT,
            REGION,
            ("Image", "r/a:fast"),
        ],
        &[ENABLE, CLUSTER, PUBLIC],
        // The SDK sends what is empty.
        &[
            ENABLE,
            CLUSTER,
            PUBLIC,
            ("NfsAddr", ""),
            ("ProjectId", ""),
            ("Region", ""),
            ("SubnetId", ""),
            ("UHubPassword", ""),
            ("UHubUsername", ""),
        ],
        &[
            ENABLE,
            CLUSTER,
            PUBLIC,
            PROJECT,
            REGION,
            ("NfsAddr", "10.0.0.1:/data/Region-A"),
            ("SubnetId", "subnet-1"),
            ("UHubPassword", "SubnetId1 Region=&"),
            ("UHubUsername", "me@example.com"),
        ],
    ] {
        let admitted = admit(&of(pairs));
        assert!(admitted.is_ok(), "{pairs:?}: {admitted:?}");
    }
}

#[test]
fn what_no_action_has_is_refused() {
    for key in [
        "_fast",
        "",
        "action",
        "Zone",
        "Image",
        "ClusterId.0",
        "a\u{0}",
    ] {
        let pairs = [
            ("Action", "GetUK8SImageAccelerate"),
            CLUSTER,
            PUBLIC,
            (key, "x"),
        ];
        let refused = admit(&of(&pairs));
        assert_eq!(refused, Err(Refusal::UnknownParameter(key.to_owned())));
    }
    let long = "x".repeat(LONGEST_VALUE + 1);
    let refused = admit(&of(&[CREATE, CLUSTER, PUBLIC, ("Region", &long)]));
    assert_eq!(refused, Err(Refusal::TooLong("Region")));
}

#[test]
fn values_with_names_of_parameters() {
    for (key, value, name) in [
        ("ClusterId", "aProjectIdb", "ProjectId"),
        ("ClusterId", "a-Image", "Image"),
        ("ProjectId", "aPublicKey", "PublicKey"),
        ("Region", "cn-bj2TargetImagex", "TargetImage"),
        (
            "SubnetId",
            "subnet-1UHubPasswordxUHubUsernamey",
            "UHubPassword",
        ),
        ("OriginalImage", "r/a:1ProjectIdorg-a", "ProjectId"),
        ("NfsAddr", "10.0.0.1:/ProjectId", "ProjectId"),
    ] {
        assert_eq!(name_inside(key, value), Some(name), "{key}={value}");
    }
    for (key, value) in [
        ("ClusterId", "Action"),
        ("Region", "ClusterIdPublicKey"),
        ("TargetImage", "r/a:ProjectId"),
        ("UHubPassword", "UHubUsername"),
        ("PublicKey", "Region"),
    ] {
        assert_eq!(name_inside(key, value), None, "{key}={value}");
    }
}

/// Requests whose text has two readings, both of them valid by themselves.
#[test]
fn both_readings_are_refused() {
    let password = |password, user| {
        vec![
            ENABLE,
            CLUSTER,
            PUBLIC,
            ("UHubPassword", password),
            ("UHubUsername", user),
        ]
    };
    let short = "r/a:1PublicKeyteam-aTargetImageb.c";
    let host = "b.cPublicKeyteam-aTargetImaged:5000/x:y";
    let cases = [
        (
            password("aUHubUsernameb", "c"),
            password("a", "bUHubUsernamec"),
            "UHubPassword",
        ),
        (
            vec![
                CREATE,
                CLUSTER,
                PUBLIC,
                ("OriginalImage", short),
                ("TargetImage", "d:5000/x:y"),
            ],
            vec![CREATE, CLUSTER, PUBLIC, ORIGINAL, ("TargetImage", host)],
            "OriginalImage",
        ),
        (
            vec![
                ENABLE,
                CLUSTER,
                PUBLIC,
                ("NfsAddr", "10.0.0.1:/aPublicKeyteam-aUHubPassword"),
                ("UHubPassword", "p"),
                ("UHubUsername", "u"),
            ],
            vec![
                ENABLE,
                CLUSTER,
                PUBLIC,
                ("NfsAddr", "10.0.0.1:/a"),
                ("UHubPassword", "PublicKeyteam-aUHubPasswordp"),
                ("UHubUsername", "u"),
            ],
            "NfsAddr",
        ),
    ];
    for (one, other, key) in cases {
        let (one, other) = (of(&one), of(&other));
        assert_eq!(signed_text(&one), signed_text(&other));
        assert!(
            valid(&one).is_ok() && valid(&other).is_ok(),
            "{one:?} {other:?}"
        );
        assert_eq!(admit(&one), Err(Refusal::Ambiguous(key)));
        assert_eq!(admit(&other), Err(Refusal::Ambiguous(key)));
    }
}

/// Every cut of a text into sorted keys of the API and values, by trying all.
fn all_cuts(text: &str) -> Vec<Vec<(&'static str, String)>> {
    fn go(
        text: &str,
        at: usize,
        so_far: &mut Vec<(&'static str, String)>,
        all: &mut Vec<Vec<(&'static str, String)>>,
    ) {
        let names: BTreeSet<&str> = all_keys().map(|key| key.name).collect();
        let last = so_far.last().map_or("", |(key, _)| key);
        for name in names
            .into_iter()
            .filter(|name| *name > last && text[at..].starts_with(name))
        {
            let start = at + name.len();
            for end in start..=text.len() {
                // A value ends where another key begins.
                if end < text.len() && !all_keys().any(|key| text[end..].starts_with(key.name)) {
                    continue;
                }
                let name = all_keys().find(|key| key.name == name).unwrap().name;
                so_far.push((name, text[start..end].to_owned()));
                if end == text.len() {
                    all.push(so_far.clone());
                } else {
                    go(text, end, so_far, all);
                }
                so_far.pop();
            }
        }
    }
    let mut all = Vec::new();
    go(text, 0, &mut Vec::new(), &mut all);
    all
}

/// The same decision by brute force.
fn readings(text: &str, public_key: &str) -> Vec<Parameters> {
    all_cuts(text)
        .into_iter()
        .map(|cut| {
            let pairs: Vec<_> = cut
                .iter()
                .map(|(key, value)| (*key, value.as_str()))
                .collect();
            of(&pairs)
        })
        .filter(|cut| cut.get("PublicKey") == Some(public_key) && valid(cut).is_ok())
        .collect()
}

fn compare(text: &str, public_key: &str) {
    let expected = readings(text, public_key);
    let found: Vec<Parameters> = cuts(text, public_key).iter().map(|cut| of(cut)).collect();
    assert_eq!(found.len(), expected.len().min(2), "{text}: {expected:?}");
    for one in &found {
        assert!(expected.contains(one), "{text}: {one:?}");
    }
    assert!(found.len() < 2 || found[0] != found[1], "{text}");
    for one in &expected {
        assert_eq!(admit(one).is_ok(), expected.len() == 1, "{text}: {one:?}");
    }
}

/// Every order of a few words behind the name of an action, compared with brute force.
#[test]
fn all_short_texts() {
    const WORDS: [&str; 9] = [
        "PublicKeyP",
        "ProjectId",
        "Region",
        "OriginalImage",
        "TargetImage",
        "UHubPassword",
        "UHubUsername",
        "SubnetId",
        "a",
    ];
    let mut compared = 0;
    for verb in [Verb::Create, Verb::Enable, Verb::Get] {
        for length in 1..=4_u32 {
            for mut number in 0..WORDS.len().pow(length) {
                let mut text = format!("Action{}ClusterIdc", verb.name());
                for _ in 0..length {
                    text.push_str(WORDS[number % WORDS.len()]);
                    number /= WORDS.len();
                }
                // Without it there is no reading at all.
                if text.contains("PublicKeyP") {
                    compare(&text, "P");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 5_000, "{compared}");
}

fn piece() -> impl Strategy<Value = String> {
    let names: Vec<String> = all_keys()
        .map(|key| key.name.to_owned())
        .chain(
            [
                "PublicKeyP",
                "a",
                "b/c",
                ":1",
                "10.0.0.1:/",
                "UHub",
                "Target",
            ]
            .map(str::to_owned),
        )
        .collect();
    prop::sample::select(names)
}

fn value() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A recut is identical, invalid, or both are refused.
    #[test]
    fn recuts_of_random_requests(verb in 0..5_usize, values in prop::collection::vec(value(), 10), left_out in any::<u16>()) {
        let verb = Verb::ALL[verb];
        let mut parameters = Parameters::default();
        for (number, (key, value)) in keys(verb).iter().zip(values).enumerate() {
            let value = match (key.rule, key.name) {
                (Rule::Action, _) => verb.name().to_owned(),
                (Rule::PublicKey, _) => "P".to_owned(),
                (Rule::Image, _) => format!("a:{value}"),
                (Rule::Nfs, _) => format!("10.0.0.1:/{value}"),
                (_, "ClusterId") => "c".to_owned(),
                _ => value,
            };
            if key.is_required || left_out & (1 << number) == 0 {
                parameters.add(key.name.to_owned(), value).unwrap();
            }
        }
        let text = signed_text(&parameters);
        prop_assume!(text.len() < 220);
        // The random one, where it is accepted, is the only one that is.
        let accepted: Vec<_> = readings(&text, "P").into_iter().filter(|cut| admit(cut).is_ok()).collect();
        prop_assert!(accepted.len() <= 1, "{:?}", accepted);
        if admit(&parameters).is_ok() {
            prop_assert_eq!(accepted, vec![parameters]);
        }
        compare(&text, "P");
    }
}

/// Texts that are made to have as many states as can be.
#[test]
fn hostile_texts_take_bounded_time() {
    let many = |piece: &str, bytes: usize| piece.repeat(bytes / piece.len());
    let nfs = format!("10.0.0.1:/{}", many("PublicKeyPSubnetIdUHubPassword", 4000));
    let password = many("UHubUsernameUHubPassword", LONGEST_VALUE);
    let image = format!("r/a:{}", many("PublicKeyPTargetImage", 4000));
    for pairs in [
        vec![
            ENABLE,
            CLUSTER,
            ("PublicKey", "P"),
            ("NfsAddr", &*nfs),
            ("UHubPassword", &*password),
            ("UHubUsername", &*password),
        ],
        vec![
            CREATE,
            CLUSTER,
            ("PublicKey", "P"),
            ("OriginalImage", &*image),
            ("TargetImage", &*image),
        ],
    ] {
        let parameters = of(&pairs);
        let began = Instant::now();
        let found = cuts(&signed_text(&parameters), "P").len();
        let took = began.elapsed();
        println!(
            "{} bytes, {found} cuts, {took:?}",
            signed_text(&parameters).len()
        );
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
