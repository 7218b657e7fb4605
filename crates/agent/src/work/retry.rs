//! Asking an API server that may be away for a while: work goes on when it is back, and does not
//! fail for that.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Context as _;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::failure::Failure;

/// How often it is asked at most, with a pause in between: ten minutes.
const TRIES: u32 = 120;
const PAUSE: Duration = Duration::from_secs(5);

/// Whether the API server may take the same request later.
fn is_transient(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500 || status.code == 401,
        _ => true,
    }
}

/// Asks until there is an answer, or an error that stays.
///
/// # Errors
/// The last error.
pub(super) async fn retrying<T, A>(mut ask: impl FnMut() -> A) -> kube::Result<T>
where
    A: Future<Output = kube::Result<T>>,
{
    let mut left = TRIES;
    loop {
        match ask().await {
            Err(error) if left > 0 && is_transient(&error) => {
                tracing::warn!(%error, "the API server does not answer; it is asked again");
                left -= 1;
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// The object of that name.
///
/// # Errors
/// There is none, or the last error; the object may be there later.
pub(super) async fn read<K>(api: &Api<K>, name: &str) -> Result<K, Failure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    retrying(|| api.get(name))
        .await
        .with_context(|| format!("cannot read the {} {name}", K::kind(&())))
        .map_err(Failure::retried)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use kube::core::Status;

    use super::*;

    fn refused(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(Status {
            code,
            ..Status::default()
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_waited_for() {
        for (code, fails, expected) in [
            (503, 3, true),
            (401, 1, true),
            (404, 1, false),
            (500, 999, false),
        ] {
            let asked = AtomicU32::new(0);
            let answer = retrying(|| async {
                match asked.fetch_add(1, Ordering::Relaxed) {
                    number if number < fails => Err(refused(code)),
                    number => Ok(number),
                }
            })
            .await;
            assert_eq!(answer.is_ok(), expected, "{code}");
        }
    }
}
