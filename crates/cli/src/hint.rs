//! What to do about an error, where that is known apart from its text: one place for all that this
//! command reports.

use uimgacc_convert::CreateError;
use uimgacc_registry::Advice;

/// What to do about it.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(of)
}

fn of(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<uimgacc_remote::Error>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<uimgacc_control::Error>() {
        return error.hint();
    }
    let registry = match error.downcast_ref::<CreateError>() {
        Some(CreateError::Registry(error)) => Some(error),
        _ => error.downcast_ref::<uimgacc_registry::Error>(),
    };
    Some(words(registry?.advice()?).to_owned())
}

/// On a machine of one's own. In a cluster the agent has the words.
const fn words(advice: Advice) -> &'static str {
    match advice {
        Advice::AllowPlainHttp => "it speaks plain HTTP, use --plain-http if that is meant",
        Advice::UseHttps => "it speaks HTTPS, leave out --plain-http",
        Advice::TrustCertificate => {
            "its certificate is not trusted, add its CA to the system's or set SSL_CERT_FILE"
        }
        Advice::LogIn => {
            "check the name, and log in with --username and --password-stdin or docker login"
        }
        Advice::CheckAddress => "nothing listens there, check host and port",
        Advice::CheckHost => "check the host's name",
        Advice::CheckImage => "check the name and the tag",
        Advice::CheckRepository => "check the name of the repository",
        Advice::ChoosePlatform => "choose one of these with --platform",
        Advice::Wait => "wait, or log in for a higher limit",
        Advice::AllowPush => {
            "it takes no pushes: it is read-only or a mirror, choose another or open it"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_advice_has_its_words() {
        let all = [
            Advice::AllowPlainHttp,
            Advice::UseHttps,
            Advice::TrustCertificate,
            Advice::LogIn,
            Advice::CheckAddress,
            Advice::CheckHost,
            Advice::CheckImage,
            Advice::CheckRepository,
            Advice::ChoosePlatform,
            Advice::Wait,
            Advice::AllowPush,
        ];
        let words: BTreeSet<&str> = all.into_iter().map(words).collect();
        assert_eq!(words.len(), all.len());
    }

    #[test]
    fn it_is_found_below_a_context() {
        let reference = "UPPER CASE".parse::<uimgacc_types::ImageReference>();
        let error = uimgacc_control::Error::from(reference.unwrap_err());
        assert_eq!(hint(&error.into()), None);
        let error = anyhow::Error::new(uimgacc_control::Error::NotEnabled).context("not done");
        assert!(hint(&error).unwrap().contains("uimgacc enable"));
    }
}
