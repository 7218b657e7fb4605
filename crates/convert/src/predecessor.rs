//! The profile of an image that was built anew: that of the one before, as far as its files are the
//! same.

use uimgacc_profile::Profile;
use uimgacc_store::{ImageRecord, Session, SessionError};
use uimgacc_types::{ChainId, ImageReference};

use crate::request::CreateRequest;

/// Gives the new image the profile of its predecessor, where it has none yet. Advice only: what fails
/// is logged.
pub(crate) fn carry_profile_over(session: &Session, request: &CreateRequest, chain_id: ChainId) {
    match carry(session, request, chain_id) {
        Ok(None) => {}
        Ok(Some(from)) => tracing::info!(%from, "the profile of an older image is taken over"),
        Err(error) => tracing::warn!("no profile is taken over: {error}"),
    }
}

fn carry(
    session: &Session,
    request: &CreateRequest,
    chain_id: ChainId,
) -> Result<Option<String>, SessionError> {
    let store = session.reader();
    if matches!(store.profile(chain_id), Ok(Some(_))) {
        return Ok(None);
    }
    for image in predecessors(store.all_images()?.readable, request, chain_id) {
        // One that is damaged is as good as none.
        let Ok(Some(profile)) = store.profile(image.chain_id) else {
            continue;
        };
        let origin = format!("{} (of {})", profile.origin, image.target);
        if let Some(kept) = session.carried_over(profile, chain_id)? {
            session.publish_profile(&Profile { origin, ..kept })?;
            return Ok(Some(image.target));
        }
    }
    Ok(None)
}

/// Other images that this one may be a new build of, the likeliest first: what had the target's name,
/// then what was made of the same repository, the newest first.
fn predecessors(
    images: Vec<ImageRecord>,
    request: &CreateRequest,
    chain_id: ChainId,
) -> Vec<ImageRecord> {
    let target = request.target.to_string();
    let is_of_repository = |image: &ImageRecord| {
        image.original.parse::<ImageReference>().is_ok_and(|other| {
            other.registry() == request.original.registry()
                && other.repository() == request.original.repository()
        })
    };
    let mut found: Vec<ImageRecord> = images
        .into_iter()
        .filter(|image| image.chain_id != chain_id)
        .filter(|image| image.platform == request.platform.to_string())
        .filter(|image| image.target == target || is_of_repository(image))
        .collect();
    found.sort_by(|a, b| {
        let by_target = (b.target == target).cmp(&(a.target == target));
        by_target.then_with(|| b.created.cmp(&a.created))
    });
    found
}
