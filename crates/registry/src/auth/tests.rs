use super::*;

#[test]
fn scopes_are_merged() {
    let mut scope = Scope::push("a/b").and("c", &["pull"]);
    scope.add_text("repository:a/b:pull repository:host:5000/d:pull registry:catalog:* odd");
    assert_eq!(
        scope.texts(),
        [
            "registry:catalog:*",
            "repository:a/b:pull,push",
            "repository:c:pull",
            "repository:host:5000/d:pull",
        ]
    );
}

#[test]
fn passwords_go_in_the_header_and_identity_tokens_in_the_body() {
    let realm: Url = "https://auth.example/token?x=1".parse().unwrap();
    let scopes = [
        "repository:a:pull".to_owned(),
        "repository:b:push".to_owned(),
    ];
    let task = Task::new("test");

    let nobody = token_request(&task, realm.clone(), "s", &scopes, None);
    assert_eq!(nobody.authorization, None);
    assert_eq!(
        nobody.url.query(),
        Some("x=1&service=s&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apush")
    );

    let password = Credentials::Password {
        username: "u".to_owned(),
        password: "hunter2".to_owned(),
    };
    let request = token_request(&task, realm.clone(), "s", &scopes, Some(&password));
    let header = request.authorization.clone().unwrap();
    assert!(header.is_sensitive());
    assert_eq!(header.to_str().unwrap(), "Basic dTpodW50ZXIy");
    assert!(!request.url.as_str().contains("hunter2"));
    assert!(!format!("{request:?}").contains("dTpodW50ZXIy"));

    let token = Credentials::IdentityToken("a&b=c".to_owned());
    let request = token_request(&task, realm, "s", &scopes, Some(&token));
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.authorization, None);
    assert_eq!(
        std::str::from_utf8(&request.body).unwrap(),
        "grant_type=refresh_token&service=s&client_id=uimgacc\
         &scope=repository%3Aa%3Apull+repository%3Ab%3Apush&refresh_token=a%26b%3Dc"
    );
}

#[tokio::test]
async fn only_a_plain_registry_may_name_a_plain_token_service() {
    let http = Http::new(&crate::ClientOptions {
        plain_http: crate::PlainHttp::registries(["plain.example"]),
        retry: crate::RetryPolicy {
            attempts: 1,
            ..crate::RetryPolicy::default()
        },
        ..crate::ClientOptions::default()
    })
    .unwrap();
    // Nobody listens there.
    let challenge = challenge::parse("Bearer realm=\"http://127.0.0.1:9/token\"").remove(0);
    let task = Task::new("test");
    let refused = async |registry: &str| {
        let scope = Scope::pull("a");
        let token = fetch_token(&http, &task, registry, &scope, &challenge, None);
        token.await.unwrap_err().to_string()
    };
    for registry in ["tls.example", "docker.io"] {
        let text = refused(registry).await;
        assert!(text.contains("not served over HTTPS"), "{registry}: {text}");
    }
    let text = refused("plain.example").await;
    assert!(!text.contains("HTTPS"), "{text}");
}
