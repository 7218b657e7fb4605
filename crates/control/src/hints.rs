//! What to do about an error that another part reports as text. Pure.

/// What to do about an answer of the API server.
pub(crate) fn api(code: u16, reason: &str, message: &str) -> Option<String> {
    let hint = match (code, reason) {
        (401, _) => "the kubeconfig's credentials are not (or no longer) valid; log in again",
        (403, _) => {
            "ask an administrator: `enable` and `disable` need the role cluster-admin, the other verbs \
             need access to acceleratedimages.uimgacc.io"
        }
        (404, _)
            if message.contains("could not find the requested resource")
                || message.contains("page not found") =>
        {
            "image acceleration is not enabled in this cluster; `uimgacc enable --nfs ADDR` enables it"
        }
        (409, "Conflict") => "somebody changed it at the same time; try again",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// What to do about a conversion that failed with this text.
pub(crate) fn conversion(message: &str) -> Option<String> {
    let text = message.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    // Digests and names of files have all digits in any order.
    let answered = |codes: &[&str]| {
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|word| codes.contains(&word))
    };
    let hint = if answered(&["401", "403"])
        || has(&["unauthorized", "denied", "forbidden", "authentication"])
    {
        "check the registry's user and password: `uimgacc enable --registry HOST --username USER --password-stdin` \
         replaces them"
    } else if has(&["no space", "quota", "enospc", "disk full"]) {
        "make room on the store's file system, or `uimgacc delete` an image"
    } else if answered(&["404"])
        || has(&[
            "manifest unknown",
            "name unknown",
            "not found",
            "no such image",
        ])
    {
        "check the name and the tag of the original image"
    } else if has(&["tls", "certificate", "https", "wrong version number"]) {
        "a registry without TLS must be named by `uimgacc enable --plain-http-registry HOST[:PORT]`"
    } else if has(&[
        "connection refused",
        "timed out",
        "unreachable",
        "dns",
        "resolve",
    ]) {
        "check that the nodes reach the registry and the store's server"
    } else if has(&["platform"]) {
        "choose one by --platform"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions() {
        for (message, part) in [
            ("registry answered 401 Unauthorized", "--password-stdin"),
            (
                "write packs/aa/x: No space left on device (os error 28)",
                "make room",
            ),
            (
                "layer 3 (sha256:5840340140404): cannot write tmp/create-518b70c904034/pack-0: No space left on device",
                "make room",
            ),
            ("HEAD /v2/a: 404 Not Found", "the tag"),
            ("a/b:1: manifest unknown", "the tag"),
            (
                "invalid peer certificate: UnknownIssuer",
                "--plain-http-registry",
            ),
            (
                "tcp connect error: Connection refused",
                "reach the registry",
            ),
            ("no image for platform linux/riscv64", "--platform"),
        ] {
            let hint = conversion(message).unwrap_or_default();
            assert!(hint.contains(part), "{message}: {hint}");
        }
        assert_eq!(conversion("the moon is full"), None);
    }

    #[test]
    fn answers() {
        assert!(api(403, "Forbidden", "").is_some_and(|hint| hint.contains("cluster-admin")));
        assert_eq!(api(422, "Invalid", "x"), None);
    }
}
