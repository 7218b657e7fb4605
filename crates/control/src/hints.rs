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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert!(api(403, "Forbidden", "").is_some_and(|hint| hint.contains("cluster-admin")));
        assert_eq!(api(422, "Invalid", "x"), None);
    }
}
