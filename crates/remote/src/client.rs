//! Requests by HTTP: one POST each, with deadlines, of answers that are bounded.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Url, redirect};
use uimgacc_api::exact::{self, Sent};
use uimgacc_api::refusal::IN_USE;
use uimgacc_types::root_cause;

use crate::error::{Cause, Error};
use crate::json::Json;
use crate::request::Request;
use crate::setting::Setting;
use crate::settings::Settings;
use uimgacc_api::answer::{Answer, one_line};

/// Until a connection stands, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// Until an answer is there, whole.
const WHOLE: Duration = Duration::from_secs(30);
/// What the form is.
const FORM: &str = "application/x-www-form-urlencoded";
/// The longest answer that is read: some hundred bytes for each of very many images.
const MAX_BYTES: usize = 16 << 20;

/// A client of one cluster.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    settings: Settings,
}

/// An answer with `RetCode` 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// As far as it is understood.
    pub answer: Answer,
    /// As it came.
    pub json: Json,
}

impl Client {
    /// A client; nothing is connected yet.
    ///
    /// TLS trusts the system's certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`;
    /// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured, but never for this machine itself.
    ///
    /// # Errors
    /// [`Error::NotSet`], [`Error::Setup`].
    pub fn new(settings: Settings) -> Result<Self, Error> {
        // Whatever is missing is said before anything is sent.
        Request::Get.form(&settings)?;
        let base = settings.required(Setting::BaseUrl)?;
        let url: Url = base.parse().map_err(|_| Error::NotSet(Setting::BaseUrl))?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("uimgacc/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            // Keys go where they were meant to go.
            .redirect(redirect::Policy::none())
            .referer(false)
            .https_only(url.scheme() == "https");
        if url.host_str().is_some_and(is_loopback) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(Error::Setup)?;
        Ok(Self {
            http,
            url,
            settings,
        })
    }

    /// The service.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// The cluster's ID.
    #[must_use]
    pub fn cluster(&self) -> &str {
        self.settings.get(Setting::ClusterId).unwrap_or_default()
    }

    /// The second signature; servers that do not know it ignore it.
    fn stamp(&self, body: &str) -> Result<String, Error> {
        let sent = Sent {
            method: "POST",
            query: "",
            content_type: FORM,
            body: body.as_bytes(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nonce = uuid::Uuid::new_v4().into_bytes();
        let private_key = self.settings.required(Setting::PrivateKey)?;
        Ok(sent.sign(private_key, now.map_or(0, |now| now.as_secs()), nonce))
    }

    /// Sends a request, once.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Foreign`], [`Error::Refused`].
    pub async fn send(&self, request: &Request) -> Result<Response, Error> {
        let body = request.form(&self.settings)?;
        let stamp = self.stamp(&body)?;
        let sent = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, FORM)
            .header(exact::HEADER, stamp)
            .body(body)
            .send()
            .await;
        let lost = |error: reqwest::Error| Error::Unreachable {
            url: self.url().to_owned(),
            may_have_arrived: !matches!(request, Request::Get) && !error.is_connect(),
            source: cause(&error),
        };
        let mut answer = sent.map_err(lost)?;
        let status = answer.status();
        let foreign = |problem: String| Error::Foreign {
            url: self.url().to_owned(),
            problem,
        };
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(lost)? {
            if body.len() + bytes.len() > MAX_BYTES {
                return Err(foreign(format!("it is longer than {MAX_BYTES} bytes")));
            }
            body.extend_from_slice(&bytes);
        }
        // A refusal may come with any status.
        let understood = understand(&body);
        let code = match &understood {
            Ok(response) => response.answer.ret_code,
            Err(_) => None,
        };
        if !status.is_success() && code.is_none_or(|code| code == 0) {
            return Err(Error::Http {
                url: self.url().to_owned(),
                status,
            });
        }
        let response = understood.map_err(foreign)?;
        match code {
            Some(0) => Ok(response),
            None => Err(foreign("it has no RetCode".to_owned())),
            Some(code) => Err(Error::Refused {
                verb: request.verb(),
                code,
                is_in_use: response.answer.reason.as_deref() == Some(IN_USE),
                message: one_line(response.answer.message.as_deref().unwrap_or("no message")),
            }),
        }
    }
}

/// An answer's text. Why it is none does not repeat it.
fn understand(body: &[u8]) -> Result<Response, String> {
    let json: Json = serde_json::from_slice(body).map_err(|_| match body.trim_ascii_start() {
        [] => "it is empty".to_owned(),
        [b'<', ..] => "it is a web page, not JSON".to_owned(),
        _ => "it is not JSON".to_owned(),
    })?;
    // A struct can also be read from a list.
    if !matches!(json, Json::Object(_)) {
        return Err("it is no JSON object".to_owned());
    }
    let answer = serde_json::from_slice(body)
        .map_err(|error| one_line(&format!("a field is not what it should be: {error}")))?;
    Ok(Response { answer, json })
}

/// A proxy elsewhere would look for `localhost` at itself.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn cause(error: &reqwest::Error) -> Cause {
    if error.is_timeout() {
        let (what, limit) = match error.is_connect() {
            true => ("no connection", CONNECT),
            false => ("nothing", WHOLE),
        };
        return Cause(format!("{what} within {} s", limit.as_secs()));
    }
    Cause(root_cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_said_without_repeating_it() {
        for (body, problem) in [
            ("", "it is empty"),
            (" <html>geheim", "it is a web page, not JSON"),
            ("geheim", "it is not JSON"),
            ("{\"Enable\": 1}", "a field is not what it should be: "),
            ("[0]", "it is no JSON object"),
        ] {
            let error = understand(body.as_bytes()).unwrap_err();
            assert!(
                error.starts_with(problem) && !error.contains("geheim"),
                "{error}"
            );
        }
        let response = understand(br#"{"RetCode": 0, "Status": "Ready"}"#).unwrap();
        assert_eq!(response.answer.ret_code, Some(0));
    }

    #[test]
    fn this_machine() {
        for (host, is_this) in [
            ("localhost", true),
            ("127.0.0.2", true),
            ("[::1]", true),
            ("10.0.0.1", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), is_this, "{host}");
        }
    }
}
