//! What first starts on this node read, handed to the cluster.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::api::{Api, PostParams};
use uimgacc_objects::{StartRecord, StartRecordSpec, names};
use uimgacc_types::{ChainId, ChainToken};

/// How long an API server that takes no record is left alone.
const PAUSE: Duration = Duration::from_secs(30);

/// Sends records.
pub(super) struct Records {
    api: Api<StartRecord>,
    node: String,
    not_before: Option<Instant>,
}

impl Records {
    pub(super) fn new(client: &Client, node: &str) -> Self {
        Self {
            api: Api::all(client.clone()),
            node: node.to_owned(),
            not_before: None,
        }
    }

    /// Whether it is time to send one.
    pub(super) fn may_send(&self) -> bool {
        self.not_before.is_none_or(|time| Instant::now() >= time)
    }

    /// Sends one. Where one of the same image waits already, by this node or another, this one is not
    /// needed.
    pub(super) async fn send(&mut self, chain: ChainId, record: &[u8]) -> kube::Result<()> {
        let token = ChainToken::of(chain).to_string();
        let spec = StartRecordSpec {
            node: self.node.clone(),
            chain_token: token.clone(),
            reads: STANDARD.encode(record),
        };
        let mut object = StartRecord::new(names::record_name(&token), spec);
        let label = (names::PART_OF_LABEL.to_owned(), names::PART_OF.to_owned());
        object.metadata.labels = Some([label].into());
        match self.api.create(&PostParams::default(), &object).await {
            Ok(_) => {
                tracing::info!(
                    token,
                    bytes = record.len(),
                    "what a first start read was sent"
                );
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => {
                self.not_before = Some(Instant::now() + PAUSE);
                Err(error)
            }
        }
    }
}
