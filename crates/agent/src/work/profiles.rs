//! `work profiles`: takes what nodes recorded of first starts, and writes the profiles of their images.
//!
//! Nodes are not trusted with more than their own: what one sends concerns an image that it holds, and
//! only files of that image are ever listed. A record is deleted once it was checked, good or bad.

use anyhow::{Context as _, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client as Kube;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use uimgacc_objects::{AcceleratedImage, AccelerationNode, StartRecord, names};
use uimgacc_profile::{Profile, Record};
use uimgacc_store::{Session, StoreReader, is_profile_due, rfc3339_now};
use uimgacc_types::{ChainId, ChainToken};

use super::failure::Failure;
use super::retry::retrying;
use super::{blocking, leases, report};

pub(super) async fn run(kube: &Kube, store: &StoreReader) -> Result<(), Failure> {
    let records: Api<StartRecord> = Api::all(kube.clone());
    let all = ListParams::default();
    let waiting = retrying(|| records.list_metadata(&all))
        .await
        .map_err(Failure::retried)?;
    for waiting in waiting {
        let name = waiting.name_any();
        let Some(record) = retrying(|| records.get_opt(&name))
            .await
            .map_err(Failure::retried)?
        else {
            continue;
        };
        match Sent::check(kube, &record).await? {
            Ok(sent) => take(kube, store, sent).await?,
            Err(why) => tracing::warn!(record = name, why = format!("{why:#}"), "refused"),
        }
        let only = DeleteParams::default().preconditions(Preconditions {
            uid: record.metadata.uid.clone(),
            resource_version: None,
        });
        match retrying(|| records.delete(&name, &only)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            deleted => drop(deleted.map_err(Failure::retried)?),
        }
    }
    Ok(())
}

/// A record that may be used.
struct Sent {
    node: String,
    token: ChainToken,
    record: Record,
}

impl Sent {
    /// The inner error says why it may not.
    async fn check(kube: &Kube, object: &StartRecord) -> Result<anyhow::Result<Self>, Failure> {
        let spec = &object.spec;
        let parsed = || -> anyhow::Result<Self> {
            ensure!(
                object.name_any() == names::record_name(&spec.chain_token),
                "its name is not that of its chain"
            );
            let bytes = STANDARD.decode(&spec.reads).context("it is not base64")?;
            Ok(Self {
                node: spec.node.clone(),
                token: spec.chain_token.parse()?,
                record: Record::decode(&bytes).context("it cannot be read")?,
            })
        };
        let sent = match parsed() {
            Ok(sent) => sent,
            Err(error) => return Ok(Err(error)),
        };
        let nodes: Api<AccelerationNode> = Api::all(kube.clone());
        let node = retrying(|| nodes.get_opt(&sent.node)).await;
        let node = node.map_err(Failure::retried)?;
        let chains = node.and_then(|node| node.status).unwrap_or_default().chains;
        if !chains.iter().any(|held| held.token == spec.chain_token) {
            return Ok(Err(anyhow!(
                "the node {} does not hold the image",
                sent.node
            )));
        }
        Ok(Ok(sent))
    }
}

async fn take(kube: &Kube, store: &StoreReader, sent: Sent) -> Result<(), Failure> {
    let token = sent.token;
    let reader = store.clone();
    let Some(profile) = blocking(move || write(&reader, sent)).await? else {
        return Ok(());
    };
    tracing::info!(%token, bytes = profile.len_bytes(), files = profile.files.len(), "profile written");
    let images: Api<AcceleratedImage> = Api::all(kube.clone());
    let all = ListParams::default();
    let listed = retrying(|| images.list(&all))
        .await
        .map_err(Failure::retried)?;
    let token = token.to_string();
    for image in listed {
        let of_image = image
            .status
            .as_ref()
            .and_then(|status| status.chain_token.as_ref());
        if of_image == Some(&token) {
            report::profile(&images, &image.name_any(), &profile).await?;
        }
    }
    Ok(())
}

/// Writes the profile; `None` where there is nothing new in it.
fn write(store: &StoreReader, sent: Sent) -> Result<Option<Profile>, Failure> {
    let Some((chain, platform)) = image(store, sent.token)? else {
        tracing::warn!(token = %sent.token, "no image of the store has this chain any more");
        return Ok(None);
    };
    let session = Session::begin(store.clone()).map_err(Failure::retried)?;
    let origin = format!("the first start on node {}", sent.node);
    let new = sent
        .record
        .into_profile(chain, platform, origin, rfc3339_now());
    let new = session.with_contents(new).map_err(Failure::retried)?;
    let known = store.profile(chain).unwrap_or_else(|error| {
        tracing::warn!(%error, "the image's profile is replaced");
        None
    });
    let profile = match known {
        Some(known) => {
            let merged = known.improved_by(new);
            let Some(merged) = merged.filter(|_| is_profile_due(&known)) else {
                tracing::info!("the image has a profile that is as good");
                return Ok(None);
            };
            merged
        }
        None => new,
    };
    if profile.files.is_empty() {
        tracing::warn!("the image has none of the files");
        return Ok(None);
    }
    session
        .publish_profile(&profile)
        .map_err(Failure::retried)?;
    Ok(Some(profile))
}

/// The chain that the token stands for, and its platform, where an image has that chain.
fn image(store: &StoreReader, token: ChainToken) -> Result<Option<(ChainId, String)>, Failure> {
    let chains = leases::chains(store, &[token].into())?;
    let Some(chain) = chains.get(&token).copied() else {
        return Ok(None);
    };
    let images = store.all_images().map_err(Failure::retried)?;
    let image = images
        .readable
        .into_iter()
        .find(|image| image.chain_id == chain);
    Ok(image.map(|image| (chain, image.platform)))
}
