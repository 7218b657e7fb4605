use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn config(text: &str) -> (tempfile::TempDir, CredentialSource) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, text).unwrap();
    (dir, CredentialSource::DockerConfigFile(path))
}

fn password(username: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Password {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

#[tokio::test]
async fn auths_of_the_docker_config() {
    // dTpwOnE= is u:p:q, a password with a colon.
    let (_dir, source) = config(
        r#"{"auths": {
            "quay.io": {"auth": "dTpwOnE="},
            "https://index.docker.io/v1/": {"username": "hub", "password": "secret"},
            "host:5000": {"identitytoken": "refresh"},
            "empty.io": {}
        }}"#,
    );
    assert_eq!(
        source.lookup("quay.io").await.unwrap(),
        password("u", "p:q")
    );
    assert_eq!(
        source.lookup("docker.io").await.unwrap(),
        password("hub", "secret")
    );
    assert_eq!(
        source.lookup("host:5000").await.unwrap(),
        Some(Credentials::IdentityToken("refresh".to_owned()))
    );
    assert_eq!(source.lookup("empty.io").await.unwrap(), None);
    assert_eq!(source.lookup("other.io").await.unwrap(), None);
}

#[tokio::test]
async fn helpers_are_run() {
    let dir = tempfile::tempdir().unwrap();
    // The crate runs docker-credential-<name>; a name with a path in it needs no change of $PATH.
    let helper = dir.path().join("helper");
    fs::write(
        &helper,
        "#!/bin/sh\nread server\ncase $server in\n\
         good.io) echo '{\"ServerURL\":\"good.io\",\"Username\":\"u\",\"Secret\":\"s\"}';;\n\
         token.io) echo '{\"ServerURL\":\"x\",\"Username\":\"<token>\",\"Secret\":\"t\"}';;\n\
         bad.io) echo leaked-secret; echo 'locked keyring' >&2; exit 1;;\n\
         *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n",
    )
    .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let up = "../".repeat(20);
    let name = format!("x/{up}{}", helper.display());
    let text = format!(r#"{{"credsStore": "{name}"}}"#);
    // docker-credential-x is a folder that the path walks through, below the current one.
    let step = Path::new("docker-credential-x");
    fs::create_dir_all(step).unwrap();
    let (_config, source) = config(&text);
    let good = source.lookup("good.io").await;
    let token = source.lookup("token.io").await;
    let none = source.lookup("none.io").await;
    let bad = source.lookup("bad.io").await;
    fs::remove_dir(step).unwrap();

    assert_eq!(good.unwrap(), password("u", "s"));
    assert_eq!(
        token.unwrap(),
        Some(Credentials::IdentityToken("t".to_owned()))
    );
    assert_eq!(none.unwrap(), None);
    let bad = bad.unwrap_err().to_string();
    assert!(bad.contains("locked keyring"), "{bad}");
    assert!(!bad.contains("leaked-secret"), "{bad}");
}

#[tokio::test]
async fn broken_configs_are_named_and_absent_ones_are_none() {
    for text in ["", "[]", r#"{"auths": {"a.io": {"auth": "!!!"}}}"#] {
        let (_dir, source) = config(text);
        let error = source.lookup("a.io").await.unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
    }
    let absent = CredentialSource::DockerConfigFile("does/not/exist.json".into());
    assert_eq!(absent.lookup("a.io").await.unwrap(), None);
    assert_eq!(
        CredentialSource::Anonymous.lookup("a.io").await.unwrap(),
        None
    );
}

#[tokio::test]
async fn explicit_ones_are_for_one_registry_and_stay_hidden() {
    let source = CredentialSource::Explicit {
        registry: "a.io".to_owned(),
        username: "u".to_owned(),
        password: "hunter2".to_owned(),
    };
    let own = source.lookup("a.io").await.unwrap();
    assert_eq!(own, password("u", "hunter2"));
    assert_ne!(
        source.lookup("b.io.invalid").await.unwrap(),
        password("u", "hunter2")
    );
    assert!(!format!("{source:?} {own:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_folder_as_kubernetes_mounts_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let source = CredentialSource::DockerConfigFolder(folder.path().to_owned());
    assert_eq!(source.lookup("quay.io").await.unwrap(), None);
    for (name, user) in [(".dockerconfigjson", "a"), ("config.json", "b")] {
        let text =
            format!(r#"{{"auths": {{"quay.io": {{"username": "{user}", "password": "p"}}}}}}"#);
        fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(source.lookup("quay.io").await.unwrap(), password(user, "p"));
    }
}
