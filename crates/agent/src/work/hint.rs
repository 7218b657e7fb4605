//! What to do about a failed Job, in terms of the cluster: no flag of the command line on a machine.

use std::io::{Error as IoError, ErrorKind};

use uimgacc_convert::CreateError;
use uimgacc_registry::{Advice, Error as RegistryError};

/// What to do about it, where that is known.
pub(super) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(of)
}

fn of(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<IoError>() {
        return is_full(error)
            .then_some("make room on the store's file system, or `uimgacc delete` an image");
    }
    let registry = match error.downcast_ref::<CreateError>() {
        Some(CreateError::Registry(error)) => Some(error),
        _ => error.downcast_ref::<RegistryError>(),
    };
    Some(words(registry?.advice()?))
}

fn is_full(error: &IoError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

const fn words(advice: Advice) -> &'static str {
    match advice {
        Advice::AllowPlainHttp => {
            "it speaks plain HTTP: if that is meant, name it by `uimgacc enable --plain-http-registry HOST[:PORT]`"
        }
        Advice::UseHttps => {
            "it speaks HTTPS: take it out of plainHttpRegistries of the ImageAcceleration"
        }
        Advice::TrustCertificate => {
            "its certificate is not trusted: it needs one of a CA that the agent's image knows"
        }
        Advice::LogIn => {
            "check the name, and the registry's user and password: \
             `uimgacc enable --registry HOST --username USER --password-stdin` replaces them"
        }
        Advice::CheckAddress => "nothing listens there: check host and port",
        Advice::CheckHost => "check the host's name, and whether Pods resolve it",
        Advice::CheckImage => "check the name and the tag",
        Advice::CheckRepository => "check the name of the repository",
        Advice::ChoosePlatform => "choose one of these with `uimgacc create --platform`",
        Advice::Wait => "the next attempt may succeed; credentials give a higher limit",
        Advice::AllowPush => {
            "it takes no pushes: it is read-only or a mirror, choose another or open it"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store() {
        for number in [28, 122] {
            let error =
                anyhow::Error::new(IoError::from_raw_os_error(number)).context("cannot write");
            assert!(hint(&error).unwrap().contains("make room"));
        }
        let other = anyhow::Error::new(IoError::from_raw_os_error(5));
        assert_eq!(hint(&other), None);
    }

    #[test]
    fn nothing_of_local_mode() {
        for advice in [Advice::AllowPlainHttp, Advice::LogIn, Advice::UseHttps] {
            let words = words(advice);
            assert!(
                !words.contains("docker login") && !words.contains("--plain-http "),
                "{words}"
            );
        }
    }
}
