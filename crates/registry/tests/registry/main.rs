//! The client against a real registry, and against servers that misbehave as no real one can be made to.
//!
//! `real`, `login` and `tls` run Debian's docker-registry and let skopeo check what was pushed;
//! `hostile`, `limits` and `uploads` run [`server::Server`].
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy takes the helpers of tests for production code"
)]

mod hostile;
mod limits;
mod login;
mod real;
mod server;
mod tls;
mod uploads;

use std::time::Duration;

use uimgacc_registry::{
    BlobStream, Client, ClientOptions, CredentialSource, PlainHttp, RetryPolicy,
};
use uimgacc_types::{Digest, ImageReference};

/// Options for loopback: plain HTTP, as anybody, short waits.
fn options() -> ClientOptions {
    ClientOptions {
        plain_http: PlainHttp::default().and_loopback(),
        credentials: CredentialSource::Anonymous,
        retry: RetryPolicy {
            base_delay: Duration::from_millis(5),
            ..RetryPolicy::default()
        },
        ..ClientOptions::default()
    }
}

fn client() -> Client {
    Client::new(options()).unwrap()
}

fn client_as(registry: &str, username: &str, password: &str) -> Client {
    Client::new(ClientOptions {
        credentials: CredentialSource::Explicit {
            registry: registry.to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
        },
        ..options()
    })
    .unwrap()
}

fn image(text: &str) -> ImageReference {
    text.parse().unwrap()
}

/// All bytes of a stream.
async fn drain(mut stream: BlobStream) -> uimgacc_registry::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        assert!(!chunk.is_empty());
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Bytes that no compression or accident makes up.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 32);
    for block in 0_u64.. {
        if bytes.len() >= len {
            break;
        }
        bytes.extend_from_slice(Digest::of(&block.to_le_bytes()).as_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The message with all its causes, as a user gets to see it.
fn chain(error: &uimgacc_registry::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
