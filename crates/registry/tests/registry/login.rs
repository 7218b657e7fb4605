//! Token authentication: a real registry that checks real signatures, with a token service made
//! here, because the one of Docker Hub cannot be had on a loopback.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use uimgacc_registry::{Client, ClientOptions, CopyOutcome, CredentialSource, Descriptor};
use uimgacc_testkit::process::{Daemon, run};
use uimgacc_testkit::{Need, parts, ready};
use uimgacc_types::{Digest, ImageReference};

use crate::server::{Reply, Request, Server};
use crate::{chain, client, client_as, drain, image, noise, options};

/// A key and a certificate that it signed itself.
pub(crate) struct Identity {
    pub(crate) key: PathBuf,
    pub(crate) certificate: PathBuf,
}

impl Identity {
    pub(crate) fn new(dir: &Path) -> Self {
        Self::make(dir, "ca", &["-addext", "basicConstraints=critical,CA:TRUE"])
    }

    /// One for a server on 127.0.0.1, signed by this one.
    pub(crate) fn sign_server(&self, dir: &Path) -> Self {
        let (key, certificate) = (self.key.display(), self.certificate.display());
        let (key, certificate) = (key.to_string(), certificate.to_string());
        let by = ["-CA", &certificate, "-CAkey", &key];
        let names = ["-addext", "subjectAltName=IP:127.0.0.1"];
        let kind = ["-addext", "basicConstraints=critical,CA:FALSE"];
        Self::make(dir, "server", &[by.as_slice(), &names, &kind].concat())
    }

    fn make(dir: &Path, name: &str, more: &[&str]) -> Self {
        let key = dir.join(format!("{name}.key"));
        let certificate = dir.join(format!("{name}.pem"));
        // An empty configuration, so that no system adds extensions of its own.
        let config = dir.join("openssl.cnf");
        std::fs::write(&config, "[req]\ndistinguished_name = name\n[name]\n").unwrap();
        run(Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args(["-subj", &format!("/CN={name}")])
            .arg("-config")
            .arg(&config)
            .args(more)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate));
        Self { key, certificate }
    }

    /// A JSON web token that grants `access` (distribution's token specification).
    fn token(&self, access: &Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let pem = std::fs::read_to_string(&self.certificate).unwrap();
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
        let claims = json!({
            "iss": "issuer", "sub": "", "aud": "service", "jti": "1", "access": access,
            "iat": now, "nbf": now - 10, "exp": now + 300,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&head), encode(&claims));
        let mut openssl = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(&self.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut openssl.stdin.take().unwrap(), signed.as_bytes()).unwrap();
        let output = openssl.wait_with_output().unwrap();
        assert!(output.status.success());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(output.stdout))
    }
}

/// Starts docker-registry with further lines in its configuration.
pub(crate) fn start_registry(dir: &Path, http: &str, auth: &str) -> (Daemon, String) {
    for _ in 0..5 {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let config = dir.join("config.yml");
        let storage = dir.join("storage");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
                 http:\n  addr: 127.0.0.1:{port}\n  secret: test\n{http}{auth}",
                storage.display()
            ),
        )
        .unwrap();
        let mut command = Command::new(parts::program("docker-registry"));
        command
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none");
        let mut daemon = Daemon::spawn("docker-registry", &mut command, &dir.join("log"));
        let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        if daemon.wait_ready(answers) && daemon.exit_status().is_none() {
            return (daemon, format!("127.0.0.1:{port}"));
        }
    }
    panic!("the registry did not start");
}

/// The pairs of a query or form.
fn pairs(text: &str) -> Vec<(String, String)> {
    let url: reqwest::Url = format!("http://x/?{text}").parse().unwrap();
    url.query_pairs().into_owned().collect()
}

/// Grants anybody `pull` on `public`, and the user all.
fn grant(identity: &Identity, request: &Request) -> Reply {
    let query = request
        .target
        .split_once('?')
        .map_or("", |(_, query)| query);
    let form = if request.method == "POST" {
        &request.body
    } else {
        query
    };
    let pairs = pairs(form);
    let of = |name: &str| {
        pairs
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, v)| v.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("service"), ["service"]);
    let basic = format!("Basic {}", STANDARD.encode("user:hunter2"));
    let known = match (request.method.as_str(), request.header("authorization")) {
        ("POST", None) => of("refresh_token") == ["refresh-me"],
        ("GET", None) => false,
        ("GET", Some(header)) if header == basic => true,
        _ => {
            let body = br#"{"details":"incorrect username or password"}"#;
            return Reply::new(401, &[], body);
        }
    };
    let scopes = of("scope").join(" ");
    let mut access = Vec::new();
    for scope in scopes.split(' ') {
        let (resource, actions) = scope.rsplit_once(':').unwrap();
        let name = resource.strip_prefix("repository:").unwrap();
        let actions: Vec<&str> = actions
            .split(',')
            .filter(|action| known || (*action == "pull" && name == "public"))
            .collect();
        access.push(json!({"type": "repository", "name": name, "actions": actions}));
    }
    let token = identity.token(&access.into());
    let field = if request.method == "POST" {
        "access_token"
    } else {
        "token"
    };
    Reply::new(
        200,
        &[],
        json!({field: token, "expires_in": 300})
            .to_string()
            .as_bytes(),
    )
}

#[tokio::test]
async fn tokens_are_fetched_scoped_and_kept() {
    if !ready(&[Need::Parts]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new(dir.path());
    let certificate = identity.certificate.clone();
    let tokens = Server::start(move |request, _| grant(&identity, request)).await;
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: service\n    issuer: issuer\n    rootcertbundle: {}\n",
        tokens.address(),
        certificate.display()
    );
    let (_registry, address) = start_registry(dir.path(), "", &auth);
    let public = image(&format!("{address}/public:1"));
    let private = image(&format!("{address}/private:1"));

    // As anybody: no push, and the service's answer is not taken for a login.
    let bytes = noise(100_000);
    let digest = Digest::of(&bytes);
    let push = async |client: &Client, target: &ImageReference| {
        client
            .push_blob_bytes(target, digest, bytes.clone().into())
            .await
    };
    let error = push(&client(), &public).await.unwrap_err();
    assert!(error.is_unauthorized(), "{}", chain(&error));

    let user = client_as(&address, "user", "hunter2");
    let before = tokens.seen().len();
    push(&user, &public).await.unwrap();
    // One token to look (pull), one to write (pull and push).
    assert_eq!(tokens.seen().len() - before, 2);
    let layer = Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        digest,
        size: bytes.len().try_into().unwrap(),
        annotations: std::collections::BTreeMap::new(),
    };
    for _ in 0..3 {
        let stream = user.blob(&public, &layer, 0).await.unwrap();
        assert_eq!(drain(stream).await.unwrap(), bytes);
    }
    assert_eq!(tokens.seen().len() - before, 2, "tokens are kept");

    // Pull on the source and push on the target, in one token.
    let outcome = user.copy_blob(&public, &private, &layer).await.unwrap();
    assert_eq!(outcome, CopyOutcome::Mounted);
    let asked = tokens.seen().last().unwrap().target.clone();
    let scopes: Vec<String> = pairs(asked.split_once('?').unwrap().1)
        .into_iter()
        .filter_map(|(key, value)| (key == "scope").then_some(value))
        .collect();
    assert_eq!(
        scopes,
        ["repository:private:pull,push", "repository:public:pull"]
    );

    let anybody = client();
    let stream = anybody.blob(&public, &layer, 0).await.unwrap();
    assert_eq!(drain(stream).await.unwrap(), bytes);
    let error = anybody.blob(&private, &layer, 0).await.unwrap_err();
    assert!(error.is_unauthorized(), "{}", chain(&error));

    let wrong = client_as(&address, "user", "hunter3");
    let text = chain(&wrong.blob(&private, &layer, 0).await.unwrap_err());
    assert!(text.contains("incorrect username or password"), "{text}");
    assert!(text.contains("log in to"), "{text}");

    // With an identity token, as docker login leaves it.
    let config = dir.path().join("config.json");
    let auths = json!({"auths": {&address: {"identitytoken": "refresh-me"}}});
    std::fs::write(&config, auths.to_string()).unwrap();
    let by_token = Client::new(ClientOptions {
        credentials: CredentialSource::DockerConfigFile(config),
        ..options()
    })
    .unwrap();
    let stream = by_token.blob(&private, &layer, 0).await.unwrap();
    assert_eq!(drain(stream).await.unwrap(), bytes);
    assert_eq!(tokens.seen().last().unwrap().method, "POST");
}

#[tokio::test]
async fn a_token_that_is_refused_is_fetched_anew_once() {
    // Registry and service in one: each token serves two requests.
    let server = Server::start(|request, number| {
        if request.target.starts_with("/token") {
            return Reply::new(200, &[], format!(r#"{{"token":"t{number}"}}"#).as_bytes());
        }
        let used: Option<usize> = request
            .header("authorization")
            .and_then(|header| header.strip_prefix("Bearer t")?.parse().ok());
        if used.is_some_and(|fetched| number <= fetched + 2) {
            return Reply::new(200, &[], b"");
        }
        let realm = format!(
            "Bearer realm=\"http://{}/token\"",
            request.header("host").unwrap()
        );
        Reply::new(401, &[("WWW-Authenticate", &realm)], b"")
    })
    .await;
    let name = image(&format!("{}/app:1", server.address()));
    let client = client();
    for _ in 0..4 {
        assert!(client.blob_exists(&name, Digest::of(b"x")).await.unwrap());
    }
    let targets: Vec<bool> = server
        .seen()
        .iter()
        .map(|request| request.target.starts_with("/token"))
        .collect();
    let (blob, token) = (false, true);
    assert_eq!(targets, [blob, token, blob, blob, blob, token, blob, blob]);

    // One that is never content is asked twice, not for ever.
    let never = Server::start(|request, _| {
        if request.target.starts_with("/token") {
            return Reply::new(200, &[], br#"{"token":"t"}"#);
        }
        let realm = format!(
            "Bearer realm=\"http://{}/token\"",
            request.header("host").unwrap()
        );
        Reply::new(401, &[("WWW-Authenticate", &realm)], b"")
    })
    .await;
    let name = image(&format!("{}/app:1", never.address()));
    let error = client
        .blob_exists(&name, Digest::of(b"x"))
        .await
        .unwrap_err();
    assert!(error.is_unauthorized());
    assert_eq!(never.seen().len(), 3);
}

#[tokio::test]
async fn bad_token_services_are_named() {
    for (challenge, body, expected) in [
        ("Bearer service=x", "", "names no token service"),
        (
            "Bearer realm=\"ftp://HOST/token\"",
            "",
            "not served over HTTPS",
        ),
        (
            "Bearer realm=\"http://HOST/token\"",
            "no json s3cr3t",
            "not JSON",
        ),
        ("Bearer realm=\"http://HOST/token\"", "{}", "has no token"),
        (
            "Bearer realm=\"http://HOST/token\"",
            r#"{"token":"a\nb"}"#,
            "no header takes",
        ),
    ] {
        let server = Server::start(move |request, _| {
            if request.target.starts_with("/token") {
                return Reply::new(200, &[], body.as_bytes());
            }
            let challenge = challenge.replace("HOST", request.header("host").unwrap());
            Reply::new(401, &[("WWW-Authenticate", &challenge)], b"")
        })
        .await;
        let name = image(&format!("{}/app:1", server.address()));
        let text = chain(&client().pull_manifest(&name).await.unwrap_err());
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}
