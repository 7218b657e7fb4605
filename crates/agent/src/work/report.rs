//! What Jobs write into the status of objects: by merge patch, tried again while the API server is
//! away.

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use serde_json::{Value, json};
use uimgacc_objects::{AcceleratedImage, ImageAcceleration, ProfileSummary, Progress, names};
use uimgacc_profile::Profile;
use uimgacc_store::{ImageRecord, StoreReader};
use uimgacc_types::{ChainId, ChainToken, chain_ids};

use super::failure::Failure;
use super::retry::retrying;

fn parameters() -> PatchParams {
    PatchParams {
        field_manager: Some(names::CONVERT.to_owned()),
        ..PatchParams::default()
    }
}

async fn patch<K>(api: &Api<K>, name: &str, status: &Value) -> Result<(), Failure>
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let patch = Patch::Merge(json!({ "status": status }));
    let parameters = parameters();
    let patched = retrying(|| api.patch_status(name, &parameters, &patch)).await;
    patched.map(|_| ()).map_err(Failure::retried)
}

/// How far an image is. Once: the next report says more.
pub(super) async fn progress(images: &Api<AcceleratedImage>, name: &str, progress: &Progress) {
    let patch = Patch::Merge(json!({ "status": { "progress": progress } }));
    if let Err(error) = images.patch_status(name, &parameters(), &patch).await {
        tracing::debug!(%error, "progress is not taken");
    }
}

/// An image that is done.
pub(super) async fn image(
    images: &Api<AcceleratedImage>,
    name: &str,
    record: &ImageRecord,
    unique_bytes: Option<u64>,
    profile: Option<&Profile>,
) -> Result<(), Failure> {
    let mut chains = chain_ids(&record.diff_ids);
    chains.pop();
    // Many may read this status: a chain ID in it would let them claim to have the image.
    let token = |chain: &ChainId| ChainToken::of(*chain).to_string();
    let base: Vec<String> = chains.iter().map(token).collect();
    let status = json!({
        "size": record.size,
        "layers": record.diff_ids.len(),
        "uniqueBytes": unique_bytes,
        "originalDigest": record.original_digest.to_string(),
        "targetDigest": record.target_digest.map(|digest| digest.to_string()),
        "chainToken": token(&record.chain_id),
        "baseChainTokens": base,
        "profile": profile.map(summary),
        "progress": {
            "doneBytes": record.compressed_size,
            "totalBytes": record.compressed_size,
            "percent": 100,
            "stage": "done",
        },
    });
    patch(images, name, &status).await
}

/// An image's profile.
pub(super) async fn profile(
    images: &Api<AcceleratedImage>,
    name: &str,
    profile: &Profile,
) -> Result<(), Failure> {
    patch(images, name, &json!({ "profile": summary(profile) })).await
}

fn summary(profile: &Profile) -> ProfileSummary {
    ProfileSummary {
        recorded: profile.recorded.clone(),
        origin: profile.origin.clone(),
        starts: profile.starts,
        files: profile.files.len() as u64,
        bytes: profile.len_bytes(),
        read_ahead_kb: profile.read_ahead_kb,
    }
}

/// The store as it is now.
pub(super) async fn store(client: &Client, store: &StoreReader) -> Result<(), Failure> {
    let counted = {
        let store = store.clone();
        super::blocking(move || uimgacc_store::stat(&store).map_err(Failure::retried)).await?
    };
    let status = json!({
        "storeId": counted.store_id,
        "storeBytes": counted.pack_bytes + counted.metadata_bytes,
    });
    let api: Api<ImageAcceleration> = Api::all(client.clone());
    patch(&api, names::DEFAULT, &status).await
}

/// The time of a sweep.
pub(super) async fn swept(client: &Client, now: &str) -> Result<(), Failure> {
    let api: Api<ImageAcceleration> = Api::all(client.clone());
    patch(&api, names::DEFAULT, &json!({ "lastSweep": now })).await
}
