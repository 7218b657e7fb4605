//! Any request: a refusal, or parameters whose signature is theirs alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uimgacc_api::action::Verb;
use uimgacc_api::parameters::MOST;
use uimgacc_api::signature::{SIGNATURE, is_signed_by, sign};
use uimgacc_api::{Action, Parameters, recut};

const KINDS: [Option<&str>; 4] = [
    None,
    Some("application/json"),
    Some("application/x-www-form-urlencoded"),
    Some("text/plain"),
];

fuzz_target!(|request: (u8, &str, &[u8])| {
    let (kind, query, body) = request;
    let kind = KINDS[usize::from(kind) % KINDS.len()];
    let Ok(parameters) = Parameters::of_request(Some(query), kind, body) else {
        return;
    };
    assert!(parameters.iter().count() <= MOST);
    let signature = sign(&parameters, "private");
    let was_signed = parameters.get(SIGNATURE).is_some();
    assert_eq!(
        is_signed_by(&parameters, "private"),
        parameters.get(SIGNATURE) == Some(signature.as_str())
    );
    if !was_signed && parameters.iter().count() < MOST {
        let mut signed = parameters.clone();
        signed.add(SIGNATURE.to_owned(), signature).expect("a key that is not there");
        assert!(is_signed_by(&signed, "private"));
        assert!(!is_signed_by(&signed, "private2"));
    }
    for verb in Verb::ALL {
        let _ = Action::parse(verb, &parameters);
    }
    let _ = Verb::of(&parameters);
    // The same signed text with one key fewer: never are both accepted.
    let pairs: Vec<_> = parameters.iter().filter(|(key, _)| *key != SIGNATURE).collect();
    if recut::admit(&parameters).is_ok() {
        for left_out in 1..pairs.len() {
            let mut other = Parameters::default();
            for (at, (key, value)) in pairs.iter().enumerate().filter(|(at, _)| *at != left_out) {
                let more = pairs.get(at + 1).filter(|_| at + 1 == left_out);
                let more = more.map_or(String::new(), |(key, value)| format!("{key}{value}"));
                other.add((*key).to_owned(), format!("{value}{more}")).expect("no more than before");
            }
            assert!(recut::admit(&other).is_err(), "{parameters:?} {other:?}");
        }
    }
});
