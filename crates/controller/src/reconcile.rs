//! From a key to what is done: looks at the world, decides, and does it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tracing::Instrument as _;
use uimgacc_objects::{ImageAccelerationSpec, Phase, names};

use super::build::{self, JobTask, NewJob};
use super::context::Shared;
use super::decide::job::{FoundJob, JobState, state};
use super::decide::{
    Action, Note, after_status, cluster, deletion, disable, image, job_limit, nodes,
};
use super::execute::{ExecuteError, Executor};
use super::metrics::{Kind, Outcome};
use super::view::{AccelerationNodeView, ClusterView, ImageView, JobView};
use super::world::{Key, World};

/// How many nodes are written to at once.
const ASKED_AT_ONCE: usize = 8;
/// From which pause on conflicts are not ordinary any more.
const LONG_CONFLICT: Duration = Duration::from_secs(5);

/// Works on keys until it is dropped, or ends after one where it is told to.
pub async fn work(shared: Arc<Shared>, executor: Executor, mut end: watch::Receiver<bool>) {
    let _running = shared.worker();
    loop {
        let key = tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => return,
            key = shared.queue.next() => key,
        };
        let kind = key.kind();
        let begun = std::time::Instant::now();
        let span = tracing::debug_span!("reconcile", ?key);
        let result = reconcile(&shared, &executor, &key).instrument(span).await;
        let seconds = begun.elapsed().as_secs_f64();
        shared
            .metrics
            .seconds
            .get_or_create(&Kind { kind })
            .observe(seconds);
        let result = match result {
            Ok(again) => {
                shared.queue.done(&key, again);
                "done"
            }
            // Ordinary: another wrote first, and the next look has the newer object.
            Err(error @ ExecuteError::Changed(_)) => {
                let pause = shared.queue.outdated(&key);
                if pause < LONG_CONFLICT {
                    tracing::debug!(?key, %error, ?pause, "again");
                } else {
                    tracing::warn!(?key, %error, ?pause, "again, though not for the first time");
                }
                "conflict"
            }
            Err(error) => {
                let pause = shared.queue.failed(&key);
                let error = &error as &dyn std::error::Error;
                tracing::warn!(?key, error, ?pause, "again after a pause");
                "failed"
            }
        };
        shared
            .metrics
            .reconciles
            .get_or_create(&Outcome { kind, result })
            .inc();
    }
}

async fn reconcile(
    shared: &Shared,
    executor: &Executor,
    key: &Key,
) -> Result<Option<Duration>, ExecuteError> {
    let again = match key {
        Key::Image(name) => reconcile_image(shared, executor, name).await?,
        Key::Cluster => reconcile_cluster(shared, executor).await?,
        Key::Nodes => {
            let (actions, again) = {
                let world = shared.world();
                let look = |node: &AccelerationNodeView| world.standing(node);
                let disabling = world
                    .cluster()
                    .is_none_or(|one| one.meta.deleting.is_some());
                if disabling {
                    (Vec::new(), None)
                } else {
                    let released = world.released();
                    nodes::decide(
                        world.acceleration_nodes.all(),
                        look,
                        &released,
                        Timestamp::now(),
                    )
                }
            };
            let asking = stream::iter(actions).map(|action| executor.act(action));
            let asked: Vec<_> = asking.buffer_unordered(ASKED_AT_ONCE).collect().await;
            asked.into_iter().fold(Ok(()), worse)?;
            again
        }
        Key::Jobs => {
            let starts = starts(&shared.world(), Timestamp::now());
            let mut first = Ok(());
            for (job, image) in starts {
                let result = start(executor, job, &image).await;
                if result.as_ref().is_err_and(ExecuteError::is_deposed) {
                    return result.map(|()| None);
                }
                first = worse(first, result);
            }
            first?;
            None
        }
    };
    Ok(again.map(|pause| Duration::try_from(pause).unwrap_or(Duration::ZERO)))
}

/// Creates the Job for an image, and tells of it.
async fn start(executor: &Executor, job: NewJob, image: &ImageView) -> Result<(), ExecuteError> {
    let note = match &job.work {
        JobTask::Convert { attempt, .. } => Some(Note {
            warning: false,
            reason: "Converting",
            text: format!("attempt {attempt}, by the Job {}", job.work.job_name()),
        }),
        _ => None,
    };
    executor.act(Action::CreateJob(Box::new(job))).await?;
    if let Some(note) = note {
        executor.tell("AcceleratedImage", &image.meta, &note).await;
    }
    Ok(())
}

/// The first failure, but a conflict only where there is no other.
fn worse(
    first: Result<(), ExecuteError>,
    second: Result<(), ExecuteError>,
) -> Result<(), ExecuteError> {
    match (first, second) {
        (Ok(()) | Err(ExecuteError::Changed(_)), Err(second)) => Err(second),
        (first, _) => first,
    }
}

/// Does all of them though one fails; see [`worse`] for what is reported.
async fn act_all(executor: &Executor, actions: Vec<Action>) -> Result<(), ExecuteError> {
    let mut first = Ok(());
    for action in actions {
        let result = executor.act(action).await;
        if result.as_ref().is_err_and(ExecuteError::is_deposed) {
            return result;
        }
        first = worse(first, result);
    }
    first
}

async fn reconcile_image(
    shared: &Shared,
    executor: &Executor,
    name: &str,
) -> Result<Option<SignedDuration>, ExecuteError> {
    let looked = {
        let world = shared.world();
        let image = world.images.get(name).cloned();
        image.map(|image| {
            let decision = decide_image(&world, &image, Timestamp::now());
            (image, decision)
        })
    };
    let Some((image, decision)) = looked else {
        return Ok(None);
    };
    let mut actions = decision.actions;
    if decision.status != image::Status::of(&image) || !image.has_status {
        let written = executor.image_status(&image.meta, &decision.status).await?;
        actions = written.map_or_else(Vec::new, |written| after_status(actions, &written));
    }
    if let Some(note) = &decision.note {
        executor.tell("AcceleratedImage", &image.meta, note).await;
    }
    act_all(executor, actions).await?;
    Ok(decision.again)
}

async fn reconcile_cluster(
    shared: &Shared,
    executor: &Executor,
) -> Result<Option<SignedDuration>, ExecuteError> {
    let looked = {
        let world = shared.world();
        let cluster = world.cluster().cloned();
        cluster.map(|cluster| (decide_cluster(&world, &cluster), cluster))
    };
    let Some((decision, cluster)) = looked else {
        return leftovers(shared, executor).await;
    };
    let mut actions = decision.actions;
    if decision.status != cluster::Status::of(&cluster) {
        let status = &decision.status;
        let written = executor.cluster_status(&cluster.meta, status).await?;
        actions = written.map_or_else(Vec::new, |written| after_status(actions, &written));
    }
    for note in &decision.notes {
        executor
            .tell("ImageAcceleration", &cluster.meta, note)
            .await;
    }
    act_all(executor, actions).await?;
    Ok(decision.again)
}

/// Without an `ImageAcceleration` (somebody took its finalizer away) nothing of ours may run.
async fn leftovers(
    shared: &Shared,
    executor: &Executor,
) -> Result<Option<SignedDuration>, ExecuteError> {
    let mut actions = Vec::new();
    {
        let world = shared.world();
        for set in world.installers.all().values() {
            if set.meta.deleting.is_none() {
                actions.push(Action::DeleteInstaller(set.meta.clone()));
            }
        }
        for job in world.jobs.all().values() {
            if job.meta.deleting.is_none() {
                actions.push(Action::DeleteJob(job.meta.clone()));
            }
        }
    }
    act_all(executor, actions).await?;
    Ok(None)
}

/// The Jobs that bear an image's name and are not of it.
fn strays<'a>(world: &'a World, image: &ImageView) -> Vec<&'a JobView> {
    ["convert", "record", "delete"]
        .into_iter()
        .filter_map(|component| job_of(world, component, Some(&image.meta.name)))
        .filter(|job| is_stray(job, image))
        .collect()
}

/// Whether a Job was made for another image of that name, or is to delete one that is to stay: the
/// request of a leader that leads no more may come late.
fn is_stray(job: &JobView, image: &ImageView) -> bool {
    let other = job
        .image_uid
        .as_ref()
        .is_some_and(|uid| *uid != image.meta.uid);
    other || (job.component == "delete" && image.meta.deleting.is_none())
}

/// The Job of that component for that image.
fn job_of<'a>(world: &'a World, component: &str, image: Option<&str>) -> Option<&'a JobView> {
    world
        .jobs
        .get(&build::job::job_name(component, image))
        .map(|job| &**job)
}

fn state_of(
    world: &World,
    job: Option<&JobView>,
    work: &JobTask,
    spec: Option<&ImageAccelerationSpec>,
    image: Option<&ImageView>,
    now: Timestamp,
) -> JobState {
    let Some(found) = job else {
        return JobState::None;
    };
    let inputs = spec.map(|spec| NewJob::new(work.clone(), spec, image.map(Into::into)).inputs);
    let inputs = inputs.unwrap_or_else(|| found.inputs.clone());
    state(job, world.pod_of(&found.meta.name), &inputs, now)
}

fn decide_image(world: &World, image: &ImageView, now: Timestamp) -> image::Decision {
    let cluster = world.cluster().map(|cluster| &**cluster);
    let spec = cluster.map(|cluster| &cluster.spec);
    let store_ready = cluster.is_some_and(cluster::is_store_ready);
    let name = image.meta.name.clone();
    let strays = strays(world, image);
    if !strays.is_empty() {
        return image::Decision::without(image, &strays);
    }
    let find = |work: &JobTask| {
        let job = job_of(world, work.component(), Some(&name));
        let state = state_of(world, job, work, spec, Some(image), now);
        FoundJob { job, state }
    };
    let convert = find(&JobTask::Convert {
        image: name.clone(),
        attempt: 1,
    });
    if image.meta.deleting.is_none() {
        return image::decide(&image::Input {
            image,
            cluster,
            store_ready,
            twin: world.twin(image),
            secret_usable: is_secret_usable(world, image),
            job: convert,
            record: job_of(world, "record", Some(&name)),
            now,
        });
    }
    let delete = find(&JobTask::Delete {
        image: name.clone(),
        attempt: 1,
        force: image.forced,
    });
    deletion::decide(&deletion::Input {
        image,
        cluster,
        store_ready,
        convert,
        delete,
        users: world.users(image, true),
        holders: world.holders(image),
        shared: world.is_shared(image),
        now,
    })
}

/// Whether the image names no Secret, or one that images may name.
fn is_secret_usable(world: &World, image: &ImageView) -> bool {
    let secret = image.spec.pull_secret.as_ref();
    secret.is_none_or(|secret| world.pull_secrets.get(&secret.name).is_some())
}

fn decide_cluster(world: &World, cluster: &ClusterView) -> cluster::Decision {
    let now = Timestamp::now();
    let installer = world.installers.get(names::NODE).map(|set| &**set);
    let spec = Some(&cluster.spec);
    let find = |work: &JobTask| {
        let job = job_of(world, work.component(), None);
        let state = state_of(world, job, work, spec, None, now);
        FoundJob { job, state }
    };
    if cluster.meta.deleting.is_some() {
        let images = world.images.all().values();
        let users = images
            .clone()
            .flat_map(|image| world.users(image, false))
            .collect::<std::collections::BTreeSet<_>>();
        return disable::decide(&disable::Input {
            cluster,
            users: users.into_iter().collect(),
            leases: find(&JobTask::Leases),
            jobs: world.jobs.all().values().map(|job| &**job).collect(),
            nodes: world
                .acceleration_nodes
                .all()
                .iter()
                .map(|(name, node)| (&**node, world.node_uid(name)))
                .collect(),
            installer,
            images: images
                .filter(|image| image.finalizer)
                .map(|image| &**image)
                .collect(),
            now,
        });
    }
    cluster::decide(&cluster::Input {
        cluster,
        init: find(&JobTask::Init),
        sweep: find(&JobTask::Sweep),
        profiles: find(&JobTask::Profiles),
        records: !world.records.all().is_empty(),
        installer,
        restarts: world.restarts(),
        nodes: world.node_totals(),
        images: world.ready_images(),
        reach: world.reach(),
        deleting_images: world.running("delete") > 0,
        now,
    })
}

/// The Jobs that start now, and their images.
fn starts(world: &World, now: Timestamp) -> Vec<(NewJob, Arc<ImageView>)> {
    let Some(cluster) = world.cluster().filter(|one| one.meta.deleting.is_none()) else {
        return Vec::new();
    };
    let most = usize::try_from(cluster.spec.max_conversions).unwrap_or(usize::MAX);
    let conversions = world.running("convert");
    let deletions = world.running("delete");
    if conversions >= most && deletions >= most {
        return Vec::new();
    }
    let waiting = world
        .images
        .all()
        .values()
        .filter(|image| image.status.phase != Phase::Ready || image.meta.deleting.is_some())
        .filter_map(|image| decide_image(world, image, now).wants)
        .collect();
    let starts = job_limit::decide(waiting, conversions, deletions, most);
    let bound = starts.into_iter().filter_map(|work| {
        let image = world.images.get(work.image()?)?;
        let job = NewJob::new(work, &cluster.spec, Some((&**image).into()));
        Some((job, image.clone()))
    });
    bound.collect()
}
