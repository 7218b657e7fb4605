//! Which work starts now: so many at once, those that wait longest first.

use k8s_openapi::jiff::Timestamp;

use super::super::build::JobTask;

/// The work that starts now.
///
/// `running` counts Jobs of the same kind that have not ended. Conversions and deletions each have
/// `most` places, so that neither waits for the other. What failed waits from its last attempt on,
/// so it never keeps a place from what was not tried yet.
#[must_use]
pub fn decide(
    mut waiting: Vec<(JobTask, Timestamp)>,
    running_conversions: usize,
    running_deletions: usize,
    most: usize,
) -> Vec<JobTask> {
    waiting.sort_by(|(one, a), (other, b)| a.cmp(b).then_with(|| one.image().cmp(&other.image())));
    let mut free = [
        most.saturating_sub(running_conversions),
        most.saturating_sub(running_deletions),
    ];
    waiting
        .into_iter()
        .filter_map(|(work, _)| {
            let place = &mut free[usize::from(matches!(work, JobTask::Delete { .. }))];
            *place = place.checked_sub(1)?;
            Some(work)
        })
        .collect()
}
