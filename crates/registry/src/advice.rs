//! What a user can do about an error of a registry. Which words name the way depends on where the work
//! is done, so these are those of whoever shows the error.

use crate::api_error::ApiError;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// The registry speaks plain HTTP; allow that.
    AllowPlainHttp,
    /// The registry speaks HTTPS; do not name it as one of plain HTTP.
    UseHttps,
    /// The registry's certificate is not trusted; add its CA.
    TrustCertificate,
    /// Other credentials are needed.
    LogIn,
    /// Nothing listens there; check host and port.
    CheckAddress,
    /// The host cannot be resolved; check its name.
    CheckHost,
    /// Check the name and the tag of the image.
    CheckImage,
    /// Check the name of the repository.
    CheckRepository,
    /// The image is not there for the platform; choose another.
    ChoosePlatform,
    /// The registry limits requests; wait, or log in.
    Wait,
    /// The registry accepts no pushes.
    AllowPush,
}

/// About a connection that failed with that text.
pub(crate) fn of_connect(said: &str) -> Option<Advice> {
    let said = said.to_lowercase();
    if said.contains("certificate") || said.contains("unknownissuer") {
        Some(Advice::TrustCertificate)
    } else if said.contains("refused") {
        Some(Advice::CheckAddress)
    } else if said.contains("dns") || said.contains("lookup") {
        Some(Advice::CheckHost)
    } else {
        None
    }
}

/// About an answer.
pub(crate) fn of_refusal(status: u16, errors: &[ApiError]) -> Option<Advice> {
    let has = |code: &str| errors.iter().any(|error| error.code == code);
    if has("MANIFEST_UNKNOWN") {
        return Some(Advice::CheckImage);
    }
    if has("NAME_UNKNOWN") {
        return Some(Advice::CheckRepository);
    }
    if has("TOOMANYREQUESTS") {
        return Some(Advice::Wait);
    }
    if has("UNAUTHORIZED") || has("DENIED") {
        return Some(Advice::LogIn);
    }
    let is_tls = |error: &ApiError| error.message.contains("HTTP request to an HTTPS server");
    if errors.iter().any(is_tls) {
        return Some(Advice::UseHttps);
    }
    match status {
        401 | 403 => Some(Advice::LogIn),
        404 => Some(Advice::CheckImage),
        405 => Some(Advice::AllowPush),
        429 => Some(Advice::Wait),
        _ => None,
    }
}
