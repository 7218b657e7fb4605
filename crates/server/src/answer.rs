//! Answers from what is known of a cluster. Pure.

use uimgacc_api::action::Verb;
use uimgacc_api::answer::{Answer, Image, Status, Task};
use uimgacc_control::{ClusterImages, ClusterStatus, ImageView};
use uimgacc_objects::Phase;

/// The answer of `GetUK8SImageAccelerate`, of what is known of a cluster.
#[must_use]
pub(crate) fn of(cluster: &ClusterImages) -> Answer {
    let is_at_rest = cluster.agent_ready
        && !matches!(
            cluster.status,
            ClusterStatus::Creating | ClusterStatus::Deleting
        );
    let images = cluster.images.iter();
    let (ready, others): (Vec<&ImageView>, Vec<&ImageView>) =
        images.partition(|image| image.status == Phase::Ready);
    let (images, hidden) = if is_at_rest {
        (ready, Vec::new())
    } else {
        (Vec::new(), ready)
    };
    Answer {
        enable: Some(cluster.enable),
        nfs_ready: Some(cluster.nfs_ready),
        agent_ready: Some(cluster.agent_ready),
        status: Some(match cluster.status {
            ClusterStatus::Ready => Status::Ready,
            ClusterStatus::Creating => Status::Creating,
            ClusterStatus::CreateError => Status::CreateError,
            ClusterStatus::Deleting => Status::Deleting,
            ClusterStatus::DeleteError => Status::DeleteError,
            ClusterStatus::Unknown => Status::Unknown,
        }),
        error: Some(cluster.error.clone()),
        images: Some(images.into_iter().map(image).collect()),
        subnet_id: Some(cluster.subnet_id.clone()),
        nfs_addr: Some(cluster.nfs_addr.clone()),
        tasks: Some(others.into_iter().chain(hidden).map(task).collect()),
        nodes: Some(cluster.nodes.into()),
        ready_nodes: Some(cluster.ready_nodes.into()),
        store_bytes: cluster.store_bytes,
        ..Answer::done(Verb::Get)
    }
}

/// Of a cluster that does not answer, with where its store was last. It counts as enabled, so that
/// nobody takes it for disabled.
#[must_use]
pub(crate) fn unknown(last: Option<&ClusterImages>, why: &str) -> Answer {
    Answer {
        enable: Some(true),
        nfs_ready: Some(false),
        agent_ready: Some(false),
        status: Some(Status::Unknown),
        error: Some(why.to_owned()),
        images: Some(Vec::new()),
        subnet_id: Some(last.map(|last| last.subnet_id.clone()).unwrap_or_default()),
        nfs_addr: Some(last.map(|last| last.nfs_addr.clone()).unwrap_or_default()),
        tasks: Some(Vec::new()),
        nodes: Some(0),
        ready_nodes: Some(0),
        ..Answer::done(Verb::Get)
    }
}

fn image(image: &ImageView) -> Image {
    Image {
        original_image: image.original_image.clone(),
        target_image: image.target_image.clone(),
        size: Some(image.size.unwrap_or_default()),
        layers: Some(image.layers.unwrap_or_default().into()),
    }
}

fn task(image: &ImageView) -> Task {
    let progress = image.progress.as_ref();
    Task {
        original_image: image.original_image.clone(),
        target_image: image.target_image.clone(),
        status: match image.status {
            Phase::Ready => Status::Ready,
            Phase::Creating => Status::Creating,
            Phase::CreateError => Status::CreateError,
            Phase::Deleting => Status::Deleting,
            Phase::DeleteError => Status::DeleteError,
        },
        error: Some(image.error.clone()),
        percent: Some(match (image.status, progress) {
            (Phase::Ready, _) => 100,
            (_, Some(progress)) => progress.percent.into(),
            (_, None) => 0,
        }),
        stage: Some(progress.map(|p| p.stage.clone()).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(target: &str, status: Phase) -> ImageView {
        ImageView {
            profile: None,
            original_image: "r.example/a:1".to_owned(),
            target_image: target.to_owned(),
            size: (status == Phase::Ready).then_some(1234),
            layers: (status == Phase::Ready).then_some(5),
            status,
            error: String::new(),
            failures: 0,
            name: String::new(),
            progress: None,
            unique_bytes: None,
            platform: String::new(),
            created: String::new(),
            original_digest: None,
            target_digest: None,
        }
    }

    fn cluster(status: ClusterStatus, images: Vec<ImageView>) -> ClusterImages {
        ClusterImages {
            enable: true,
            nfs_ready: true,
            agent_ready: true,
            status,
            error: String::new(),
            images,
            subnet_id: "subnet-1".to_owned(),
            nfs_addr: "10.0.0.1:/".to_owned(),
            ready_nodes: 1,
            nodes: 2,
            store_bytes: None,
        }
    }

    #[test]
    fn at_rest_the_images_are_told() {
        let all = vec![image("r.example/a:fast", Phase::Ready)];
        let answer = serde_json::to_value(of(&cluster(ClusterStatus::Ready, all))).unwrap();
        let expected = json!({
            "RetCode": 0, "Action": "GetUK8SImageAccelerateResponse",
            "Enable": true, "NfsReady": true, "AgentReady": true, "Status": "Ready", "Error": "",
            "Images": [{
                "OriginalImage": "r.example/a:1", "TargetImage": "r.example/a:fast",
                "Size": 1234, "Layers": 5,
            }],
            "SubnetId": "subnet-1", "NfsAddr": "10.0.0.1:/",
            "Tasks": [], "Nodes": 2, "ReadyNodes": 1,
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn while_something_goes_on_no_image_is_told() {
        let both = || {
            vec![
                image("r.example/a:fast", Phase::Ready),
                image("r.example/b:fast", Phase::Creating),
            ]
        };
        let mut away = cluster(ClusterStatus::Unknown, both());
        away.agent_ready = false;
        for state in [
            cluster(ClusterStatus::Creating, both()),
            cluster(ClusterStatus::Deleting, both()),
            away,
        ] {
            let (status, answer) = (state.status, of(&state));
            assert_eq!(answer.images.unwrap(), [], "{status:?}");
            let tasks = answer.tasks.iter().flatten();
            let told: Vec<_> = tasks.map(|one| (&*one.target_image, one.percent)).collect();
            assert_eq!(
                told,
                [
                    ("r.example/b:fast", Some(0)),
                    ("r.example/a:fast", Some(100))
                ]
            );
        }
        // The store may be away for a while.
        let rest = [
            ClusterStatus::CreateError,
            ClusterStatus::DeleteError,
            ClusterStatus::Unknown,
        ];
        for status in rest {
            assert_eq!(of(&cluster(status, both())).images.unwrap().len(), 1);
        }
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_not_disabled() {
        let never = unknown(None, "no answer");
        assert_eq!((never.enable, never.agent_ready), (Some(true), Some(false)));
        assert_eq!(never.state(), Status::Unknown);
        assert_eq!(never.error.as_deref(), Some("no answer"));
        let mut last = cluster(ClusterStatus::Ready, Vec::new());
        last.enable = false;
        let now = unknown(Some(&last), "");
        assert_eq!(now.enable, Some(true));
        assert_eq!(now.nfs_addr.as_deref(), Some("10.0.0.1:/"));
    }
}
