//! A real registry with TLS: trusted only when the certificate is.

use std::process::Command;

use uimgacc_registry::{Advice, Client, ClientOptions};
use uimgacc_testkit::{Need, ready};
use uimgacc_types::Digest;

use crate::login::{Identity, start_registry};
use crate::{chain, client, image, options};

/// Set in the process that this test starts of itself, because `SSL_CERT_FILE` counts for a whole
/// process.
const CHILD: &str = "UIMGACC_TEST_TLS_REGISTRY";

fn https() -> Client {
    Client::new(ClientOptions {
        plain_http: uimgacc_registry::PlainHttp::default(),
        ..options()
    })
    .unwrap()
}

#[tokio::test]
async fn only_trusted_certificates_are_taken() {
    if let Ok(address) = std::env::var(CHILD) {
        let name = image(&format!("{address}/app:1"));
        let bytes = b"over TLS".as_slice();
        let digest = Digest::of(bytes);
        let client = https();
        let pushed = client.push_blob_bytes(&name, digest, bytes.into()).await;
        pushed.map_err(|error| chain(&error)).unwrap();
        assert!(client.blob_exists(&name, digest).await.unwrap());
        return;
    }
    if !ready(&[Need::Parts]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = Identity::new(dir.path());
    let identity = authority.sign_server(dir.path());
    let http = format!(
        "  tls:\n    certificate: {}\n    key: {}\n",
        identity.certificate.display(),
        identity.key.display()
    );
    let (_registry, address) = start_registry(dir.path(), &http, "");
    let name = image(&format!("{address}/app:1"));

    let error = https().pull_manifest(&name).await.unwrap_err();
    let advice = Some(Advice::TrustCertificate);
    assert_eq!(error.advice(), advice, "{}", chain(&error));
    let error = client().pull_manifest(&name).await.unwrap_err();
    let advice = Some(Advice::UseHttps);
    assert_eq!(error.advice(), advice, "{}", chain(&error));

    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tls::only_trusted_certificates_are_taken",
            "--nocapture",
        ])
        .env(CHILD, &address)
        .env("SSL_CERT_FILE", &authority.certificate)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}"
    );
}
