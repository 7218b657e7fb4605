//! Answers of what was done, in the shape that clients know. Fields that are ours come last.

use serde::{Deserialize, Serialize};
use uimgacc_control::{ClusterImages, ClusterStatus, ImageView};
use uimgacc_objects::Phase;

use crate::action::Verb;

/// An action was done, or begun where it takes long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Done {
    /// 0.
    pub ret_code: u16,
    /// The action with `Response` behind it.
    pub action: String,
}

impl Done {
    /// Of that action.
    #[must_use]
    pub fn of(verb: Verb) -> Self {
        Self {
            ret_code: 0,
            action: format!("{}Response", verb.name()),
        }
    }
}

/// The answer of `GetUK8SImageAccelerate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// Code and action.
    #[serde(flatten)]
    pub done: Done,
    /// The cluster is enabled, or not yet disabled in full.
    pub enable: bool,
    /// The store can be written.
    pub nfs_ready: bool,
    /// The agent runs.
    pub agent_ready: bool,
    /// `Ready`, `Creating`, `CreateError`, `Deleting`, `DeleteError` or `Unknown`.
    pub status: String,
    /// The first error there is; empty where there is none.
    pub error: String,
    /// The images that can be used. Empty while one is being made or deleted, and while the agent is
    /// not ready.
    pub images: Vec<Image>,
    /// The subnet of the store, as `EnableUK8SImageAccelerate` was told.
    pub subnet_id: String,
    /// Address of the store, `server:/path`.
    pub nfs_addr: String,
    /// All images that are not in `images`, those that are being worked on first.
    #[serde(default)]
    pub tasks: Vec<Progress>,
    /// Nodes that are to run accelerated images.
    #[serde(default)]
    pub nodes: u32,
    /// Those that can.
    #[serde(default)]
    pub ready_nodes: u32,
    /// Bytes of the store, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_bytes: Option<u64>,
}

/// An image that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// Reference of the original.
    pub original_image: String,
    /// Reference of the accelerated image.
    pub target_image: String,
    /// Bytes of all files.
    pub size: u64,
    /// Layers.
    pub layers: u32,
}

/// An image that is being made or deleted, or could not be; or one that is ready while another is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Progress {
    /// Reference of the original.
    pub original_image: String,
    /// Reference of the accelerated image.
    pub target_image: String,
    /// `Creating`, `CreateError`, `Deleting`, `DeleteError` or `Ready`.
    pub status: String,
    /// What holds it up; empty where nothing does.
    pub error: String,
    /// How far it is, 0 to 100.
    pub percent: u32,
    /// What is being done, in a few words.
    pub stage: String,
}

impl Status {
    /// Of what is known of a cluster.
    #[must_use]
    pub fn of(cluster: &ClusterImages) -> Self {
        let is_at_rest = cluster.agent_ready
            && !matches!(
                cluster.status,
                ClusterStatus::Creating | ClusterStatus::Deleting
            );
        let (ready, others): (Vec<&ImageView>, Vec<&ImageView>) = cluster
            .images
            .iter()
            .partition(|image| image.status == Phase::Ready);
        let (images, hidden) = if is_at_rest {
            (ready, Vec::new())
        } else {
            (Vec::new(), ready)
        };
        Self {
            done: Done::of(Verb::Get),
            enable: cluster.enable,
            nfs_ready: cluster.nfs_ready,
            agent_ready: cluster.agent_ready,
            status: format!("{:?}", cluster.status),
            error: cluster.error.clone(),
            images: images.into_iter().map(Image::of).collect(),
            subnet_id: cluster.subnet_id.clone(),
            nfs_addr: cluster.nfs_addr.clone(),
            tasks: others.into_iter().chain(hidden).map(Progress::of).collect(),
            nodes: cluster.nodes,
            ready_nodes: cluster.ready_nodes,
            store_bytes: cluster.store_bytes,
        }
    }

    /// Of a cluster that does not answer, with where its store was last. It counts as enabled, so that
    /// nobody takes it for disabled.
    #[must_use]
    pub fn unknown(last: Option<&ClusterImages>, why: &str) -> Self {
        Self {
            done: Done::of(Verb::Get),
            enable: true,
            nfs_ready: false,
            agent_ready: false,
            status: format!("{:?}", ClusterStatus::Unknown),
            error: why.to_owned(),
            images: Vec::new(),
            subnet_id: last.map(|last| last.subnet_id.clone()).unwrap_or_default(),
            nfs_addr: last.map(|last| last.nfs_addr.clone()).unwrap_or_default(),
            tasks: Vec::new(),
            nodes: 0,
            ready_nodes: 0,
            store_bytes: None,
        }
    }
}

impl Image {
    fn of(image: &ImageView) -> Self {
        Self {
            original_image: image.original_image.clone(),
            target_image: image.target_image.clone(),
            size: image.size.unwrap_or_default(),
            layers: image.layers.unwrap_or_default(),
        }
    }
}

impl Progress {
    fn of(image: &ImageView) -> Self {
        let progress = image.progress.as_ref();
        Self {
            original_image: image.original_image.clone(),
            target_image: image.target_image.clone(),
            status: format!("{:?}", image.status),
            error: image.error.clone(),
            percent: match (image.status, progress) {
                (Phase::Ready, _) => 100,
                (_, Some(progress)) => progress.percent,
                (_, None) => 0,
            },
            stage: progress.map(|p| p.stage.clone()).unwrap_or_default(),
        }
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
        let answer = serde_json::to_value(Status::of(&cluster(ClusterStatus::Ready, all))).unwrap();
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
            let (status, answer) = (state.status, Status::of(&state));
            assert!(answer.images.is_empty(), "{status:?}");
            let tasks = answer.tasks.iter();
            let told: Vec<_> = tasks.map(|one| (&*one.target_image, one.percent)).collect();
            assert_eq!(told, [("r.example/b:fast", 0), ("r.example/a:fast", 100)]);
        }
        // The store may be away for a while.
        let rest = [
            ClusterStatus::CreateError,
            ClusterStatus::DeleteError,
            ClusterStatus::Unknown,
        ];
        for status in rest {
            assert_eq!(Status::of(&cluster(status, both())).images.len(), 1);
        }
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_not_disabled() {
        let never = Status::unknown(None, "no answer");
        assert!(never.enable && !never.agent_ready && never.images.is_empty());
        assert_eq!((&*never.status, &*never.error), ("Unknown", "no answer"));
        let mut last = cluster(ClusterStatus::Ready, Vec::new());
        last.enable = false;
        let now = Status::unknown(Some(&last), "");
        assert!(now.enable && now.nfs_addr == "10.0.0.1:/");
    }
}
