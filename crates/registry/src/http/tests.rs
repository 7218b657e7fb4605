use super::*;

fn target(from: &str, location: &str) -> Result<String, String> {
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, location.parse().unwrap());
    redirect_target(&Task::new("test"), &from.parse().unwrap(), &headers)
        .map(|url| url.to_string())
        .map_err(|error| error.to_string())
}

#[test]
fn redirects_never_lose_tls() {
    assert_eq!(
        target("https://a/v2/x", "/y?z=1").as_deref(),
        Ok("https://a/y?z=1")
    );
    assert_eq!(
        target("http://a/v2/x", "https://b:1/y").as_deref(),
        Ok("https://b:1/y")
    );
    assert_eq!(
        target("https://a/x", "https://user:pw@b/y").as_deref(),
        Ok("https://b/y")
    );
    assert!(
        target("https://a/x", "http://a/x")
            .unwrap_err()
            .contains("plain HTTP")
    );
    assert!(target("https://a/x", "file:///etc/passwd").is_err());
    assert!(target("https://a/x", "https://").is_err());
}

#[test]
fn delays_grow_within_bounds() {
    let policy = RetryPolicy::default();
    for attempt in 1..40 {
        let full = policy
            .base_delay
            .saturating_mul(1 << (attempt - 1).min(16))
            .min(policy.max_delay);
        let delay = policy.delay(attempt);
        assert!(delay >= full / 2 && delay <= full, "{attempt}: {delay:?}");
    }
}
