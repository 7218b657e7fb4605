//! Waiting until an enabled cluster is ready.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster_state::{ClusterState, SAID};
use crate::error::Error;
use crate::images::not_enabled;
use crate::observe::next_before;
use crate::{Cluster, Progress};

impl Cluster {
    /// Waits until the agent runs, the store can be written and all nodes that are up can run
    /// accelerated images; returns how many those are.
    ///
    /// # Errors
    /// Not in time: what is missing, node by node.
    pub async fn wait_enabled(
        &self,
        within: Duration,
        progress: &dyn Progress,
    ) -> Result<u32, Error> {
        let deadline = Instant::now() + within;
        let mut changes = ClusterState::watch(self);
        let mut state = ClusterState::default();
        let mut said: Vec<String> = Vec::new();
        while let Some(change) = next_before(&mut changes, deadline)
            .await
            .map_err(not_enabled)?
        {
            state.apply(change);
            if !state.is_listed() {
                continue;
            }
            let missing = state.missing();
            if missing.is_empty() {
                return Ok(state.status().nodes.ready);
            }
            for line in missing
                .iter()
                .filter(|line| !said.contains(line))
                .take(SAID)
            {
                progress.say(&format!("waiting: {line}"));
            }
            said = missing;
        }
        Err(Error::Timeout {
            what: "image acceleration is not ready".to_owned(),
            after: within,
            missing: said,
        })
    }
}
