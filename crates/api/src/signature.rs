//! Signatures: lowercase hex SHA-1 over key and value of every parameter but `Signature`, sorted by
//! key, then the private key, with nothing between and nothing escaped.

use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

use crate::parameters::Parameters;

/// The parameter that has it.
pub const SIGNATURE: &str = "Signature";

/// What is signed of these parameters, without the private key.
#[must_use]
pub fn signed_text(parameters: &Parameters) -> String {
    let pairs = parameters.iter().filter(|(key, _)| *key != SIGNATURE);
    pairs.flat_map(|(key, value)| [key, value]).collect()
}

/// The signature of these parameters by this private key, 40 hex digits.
#[must_use]
pub fn sign(parameters: &Parameters, private_key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(signed_text(parameters));
    hash.update(private_key);
    let hex = |byte: &u8| [byte >> 4, byte & 15].map(|nibble| char::from_digit(nibble.into(), 16));
    let digest = hash.finalize();
    digest.iter().flat_map(hex).flatten().collect()
}

/// Whether the parameters' own signature is that of this private key. How long that takes does not
/// depend on where a wrong one differs.
#[must_use]
pub fn is_signed_by(parameters: &Parameters, private_key: &str) -> bool {
    let expected = sign(parameters, private_key);
    let given = parameters.get(SIGNATURE).unwrap_or_default();
    expected.as_bytes().ct_eq(given.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "ucloudsomeone@example.com1296235120854146120";
    const PRIVATE: &str = "46f09bb9fab4f12dfc160dae12273d5332b5debe";

    fn of(text: &str) -> Parameters {
        let mut parameters = Parameters::default();
        let pairs = text.split_whitespace();
        for (key, value) in pairs.map(|pair| pair.split_once('=').unwrap()) {
            parameters.add(key.to_owned(), value.to_owned()).unwrap();
        }
        parameters
            .add("PublicKey".to_owned(), PUBLIC.to_owned())
            .unwrap();
        parameters
    }

    const CREATE: &str = "Action=CreateUHostInstance CPU=2 ChargeType=Month DiskSpace=10 \
        ImageId=f43736e1-65a5-4bea-ad2e-8a46e18883c2 LoginMode=Password Memory=2048 Name=Host01 \
        Password=VUNsb3VkLmNu Quantity=1 Region=cn-bj2 Zone=cn-bj2-04";

    #[test]
    fn signatures_are_those_of_the_clients() {
        let simple = of("Action=DescribeUHostInstance Limit=10 Region=cn-bj2");
        let token = of(&format!("{CREATE} SecurityToken=some_stoken"));
        let backends = ["foo", "bar", "42"].into_iter().cycle().take(12);
        let backends: Vec<String> = backends
            .enumerate()
            .map(|(number, value)| format!("Backends.{number}={value}"))
            .collect();
        let listed = of(&format!(
            "Action=AllocateBackendBatch {}",
            backends.join(" ")
        ));
        for (parameters, signature) in [
            (simple, "cba5cf5ec4d4233d206b1b54951e3787350a642f"),
            (of(CREATE), "4f9ef5df2abab2c6fccd1e9515cb7e2df8c6bb65"),
            (token, "170c480ad176a247b324eb92a2cfe536aacfbd04"),
            (listed, "6bc32642779f8cb0bb3d3f128b1c0688abf9a1a3"),
        ] {
            assert_eq!(sign(&parameters, PRIVATE), signature);
        }
    }

    #[test]
    fn the_same_by_json_with_nested_values() {
        let json = format!(
            r#"{{"Action": "AllocateBackendBatch", "PublicKey": "{PUBLIC}", "Backends":
            ["foo", "bar", 42, "foo", "bar", 42.0, "foo", "bar", 42, "foo", "bar", 42]}}"#
        );
        let mut parameters = Parameters::default();
        parameters.add_json(json.as_bytes()).unwrap();
        let signature = "6bc32642779f8cb0bb3d3f128b1c0688abf9a1a3";
        assert_eq!(sign(&parameters, PRIVATE), signature);
    }

    #[test]
    fn only_the_right_signature_is_one() {
        let right = sign(&of("Action=X"), PRIVATE);
        let first = if right.starts_with('0') { "1" } else { "0" };
        let other = first.to_owned() + right.split_at(1).1;
        for (signature, is_right) in [
            (right.clone(), true),
            (right.to_uppercase(), false),
            (other, false),
            (right.split_at(39).0.to_owned(), false),
            (right.clone() + "0", false),
            (String::new(), false),
        ] {
            let parameters = of(&format!("Action=X Signature={signature}"));
            assert_eq!(is_signed_by(&parameters, PRIVATE), is_right, "{signature}");
        }
        assert!(!is_signed_by(&of("Action=X"), PRIVATE));
        let changed = of(&format!("Action=Y Signature={right}"));
        assert!(!is_signed_by(&changed, PRIVATE));
    }
}
