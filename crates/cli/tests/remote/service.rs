//! A server of the API that plays a script.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use uimgacc_api::{Parameters, Refusal, Verb, signature};

pub(crate) const PUBLIC: &str = "public+key=&1";
pub(crate) const PRIVATE: &str = "46f09bb9fab4f12dfc160dae12273d5332b5debe";
pub(crate) const CLUSTER: &str = "uk8s-1";

/// One answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// To be sent as it stands.
    Text(u16, String),
    /// A part of an answer, then nothing.
    Broken,
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self::Text(200, value.to_string())
    }
}

#[derive(Debug)]
struct Script {
    /// What Get answers; the last one for ever.
    gets: VecDeque<Reply>,
    /// What all else answers.
    others: Reply,
    seen: Vec<Parameters>,
}

/// The server. It stops with the guard.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
    _runtime: Runtime,
}

/// How the cluster is: enabled and ready, with these fields.
pub(crate) fn get(fields: Value) -> Reply {
    let mut whole = json!({"Action": "GetUK8SImageAccelerateResponse", "RetCode": 0, "Enable": true,
        "NfsReady": true, "AgentReady": true, "Status": "Ready", "Error": "", "Images": [],
        "SubnetId": "subnet-1", "NfsAddr": "10.0.0.1:/"});
    for (key, value) in fields.as_object().unwrap() {
        whole[key] = value.clone();
    }
    whole.into()
}

impl Service {
    pub(crate) fn start(gets: impl IntoIterator<Item = Reply>) -> Self {
        Self::refusing(gets, json!({"RetCode": 0}).into())
    }

    /// One that answers `others` to all but Get.
    pub(crate) fn refusing(gets: impl IntoIterator<Item = Reply>, others: Reply) -> Self {
        let script = Arc::new(Mutex::new(Script {
            gets: gets.into_iter().collect(),
            others,
            seen: Vec::new(),
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(script.clone());
        runtime.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            script,
            _runtime: runtime,
        }
    }

    /// What was asked that was signed rightly: `Create OriginalImage=... TargetImage=...`.
    pub(crate) fn seen(&self) -> Vec<String> {
        let common = ["Action", "PublicKey", "ClusterId", "Signature"];
        let script = self.script.lock().unwrap();
        let one = |parameters: &Parameters| {
            let action = parameters.get("Action").unwrap_or_default();
            let action = action.strip_suffix("UK8SImageAccelerate").unwrap_or(action);
            let more = parameters.iter().filter(|(key, _)| !common.contains(key));
            more.fold(action.to_owned(), |text, (key, value)| {
                format!("{text} {key}={value}")
            })
        };
        script.seen.iter().map(one).collect()
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    let mut script = script.lock().unwrap();
    let reply = match admit(kind, &body) {
        Err((action, refusal)) => {
            Reply::from(serde_json::to_value(refusal.answer(&action)).unwrap())
        }
        Ok((verb, parameters)) => {
            script.seen.push(parameters);
            match verb {
                Verb::Get if script.gets.len() > 1 => script.gets.pop_front().unwrap(),
                Verb::Get => script.gets.front().expect("a script for Get").clone(),
                _ => script.others.clone(),
            }
        }
    };
    match reply {
        Reply::Text(status, text) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        Reply::Broken => {
            let parts = [Ok("{\"RetCode\""), Err(io::Error::other("gone"))];
            Body::from_stream(stream::iter(parts)).into_response()
        }
    }
}

/// Refuses what the service would refuse.
fn admit(kind: Option<&str>, body: &[u8]) -> Result<(Verb, Parameters), (String, Refusal)> {
    let parameters = Parameters::of_request(None, kind, body)
        .map_err(|error| (String::new(), Refusal::from(error)))?;
    let action = parameters.get("Action").unwrap_or_default().to_owned();
    let refused = |refusal| (action.clone(), refusal);
    let verb = Verb::of(&parameters).map_err(refused)?;
    if parameters.get("PublicKey") != Some(PUBLIC) {
        return Err(refused(Refusal::UnknownUser));
    }
    if !signature::is_signed_by(&parameters, PRIVATE) {
        return Err(refused(Refusal::WrongSignature));
    }
    if parameters.get("ClusterId") != Some(CLUSTER) {
        return Err(refused(Refusal::NotAvailable("ClusterId".to_owned())));
    }
    Ok((verb, parameters))
}
