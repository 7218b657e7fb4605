//! The answer of each action, in the shape that clients know; one type for servers and clients.
//!
//! Lenient where that does no harm: a field that is absent or null is `None`, never `false` or empty, so
//! that nothing is taken from an answer that it does not say. Fields that are ours come last.

use serde::{Deserialize, Deserializer, Serialize};
use uimgacc_types::{Meant, meant, normalised};

use crate::action::Verb;

/// An answer. But for the first fields only `GetUK8SImageAccelerate` has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Answer {
    /// 0, or why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ret_code: Option<i64>,
    /// The action with `Response` behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// For people, where `ret_code` is not 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why not, for programs. (Ours.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The cluster is enabled, or not yet disabled in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable: Option<bool>,
    /// The store can be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nfs_ready: Option<bool>,
    /// The agent runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_ready: Option<bool>,
    /// Of all images together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The first error there is; empty where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The images that can be used. Empty while one is being made or deleted, and while the agent is
    /// not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<Image>>,
    /// The subnet of the store, as `EnableUK8SImageAccelerate` was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<String>,
    /// Address of the store, `server:/path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nfs_addr: Option<String>,
    /// All images that are not in `images`, those that are being worked on first. (Ours.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<Task>>,
    /// Nodes that are to run accelerated images. (Ours.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u64>,
    /// Nodes that can. (Ours.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_nodes: Option<u64>,
    /// Bytes of the store, where they were counted. (Ours.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_bytes: Option<u64>,
}

/// Where an image stands, or all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Status {
    /// Ready; of all images together: all of them.
    Ready,
    /// Being made.
    Creating,
    /// It could not be made.
    CreateError,
    /// Being deleted.
    Deleting,
    /// It cannot be deleted.
    DeleteError,
    /// `Unknown`, none, or a word that is not known.
    #[default]
    Unknown,
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Option::<String>::deserialize(deserializer)?;
        Ok(match word.as_deref() {
            Some("Ready") => Self::Ready,
            Some("Creating") => Self::Creating,
            Some("CreateError") => Self::CreateError,
            Some("Deleting") => Self::Deleting,
            Some("DeleteError") => Self::DeleteError,
            _ => Self::Unknown,
        })
    }
}

/// An image that can be used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Image {
    /// Reference of the original.
    pub original_image: String,
    /// Reference of the accelerated image.
    pub target_image: String,
    /// Bytes of all files.
    #[serde(deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Layers.
    #[serde(deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub layers: Option<u64>,
}

/// An image that is being made or deleted, or could not be; or one that is ready while another is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Task {
    /// Reference of the original.
    pub original_image: String,
    /// Reference of the accelerated image.
    pub target_image: String,
    /// Where it stands.
    pub status: Status,
    /// What holds it up; empty where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How far it is, 0 to 100.
    #[serde(deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
    /// What is being done, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
}

impl Task {
    /// Where it stands, in a word or two.
    #[must_use]
    pub fn state(&self) -> String {
        let percent = self.percent.filter(|_| self.status == Status::Creating);
        let percent = percent.map(|percent| format!(" {percent} %"));
        self.status.name().to_owned() + &percent.unwrap_or_default()
    }
}

/// A number that only people read: what is none is not known.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(serde_json::Value::deserialize(deserializer)?.as_u64())
}

/// A text of the service as one line for a terminal, of bounded length.
#[must_use]
pub fn one_line(text: &str) -> String {
    const LONGEST: usize = 1000;
    let plain = text.replace(|c: char| c.is_control(), " ");
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

impl Answer {
    /// An action was done, or begun where it takes long.
    #[must_use]
    pub fn done(verb: Verb) -> Self {
        Self {
            ret_code: Some(0),
            action: Some(format!("{}Response", verb.name())),
            ..Self::default()
        }
    }

    /// Where all images together stand.
    #[must_use]
    pub fn state(&self) -> Status {
        self.status.unwrap_or_default()
    }

    /// What of the cluster as a whole is wrong; empty where nothing is.
    #[must_use]
    pub fn problem(&self) -> String {
        one_line(self.error.as_deref().unwrap_or_default())
    }

    /// The ready image of that target.
    #[must_use]
    pub fn image(&self, target: &str) -> Option<&Image> {
        let target = normalised(target);
        let mut images = self.images.iter().flatten();
        images.find(|image| normalised(&image.target_image) == target)
    }

    /// Whether an image is meant by a name, by its original and its target: the image of that target,
    /// else those of that original.
    pub fn is_meant(&self, name: &str) -> impl Fn(&str, &str) -> bool + use<> {
        let is_target = self.image(name).is_some() || self.task(name).is_some();
        let name = normalised(name);
        move |original, target| normalised(if is_target { target } else { original }) == name
    }

    /// The target that a name means; the name itself where it means none, or several.
    #[must_use]
    pub fn target_of(&self, name: &str) -> String {
        let images = self.images.iter().flatten();
        let images = images.map(|one| (one.original_image.as_str(), one.target_image.as_str()));
        let tasks = self.tasks.iter().flatten();
        let tasks = tasks.map(|one| (one.original_image.as_str(), one.target_image.as_str()));
        match meant(name, images.chain(tasks), |(original, target)| {
            (original, target)
        }) {
            Meant::One((_, target)) if normalised(target) != normalised(name) => normalised(target),
            _ => name.to_owned(),
        }
    }

    /// What is said of the target apart from others.
    #[must_use]
    pub fn task(&self, target: &str) -> Option<&Task> {
        let target = normalised(target);
        let mut tasks = self.tasks.iter().flatten();
        tasks.find(|task| normalised(&task.target_image) == target)
    }
}

impl Status {
    /// The word of the API.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Creating => "Creating",
            Self::CreateError => "CreateError",
            Self::Deleting => "Deleting",
            Self::DeleteError => "DeleteError",
            Self::Unknown => "Unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_not_known() {
        for text in [
            "{}",
            r#"{"Enable": null, "Status": null, "Images": null, "Tasks": null}"#,
        ] {
            assert_eq!(
                serde_json::from_str::<Answer>(text).unwrap(),
                Answer::default()
            );
        }
        let text = r#"{"Status": "Resting", "Images": [{"TargetImage": "nginx", "Size": "1 GB", "New": 1}]}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert_eq!(answer.state(), Status::Unknown);
        let image = answer.image("docker.io/library/nginx:latest").unwrap();
        assert_eq!(image.size, None);
        assert!(answer.image("nginx:fast").is_none());
        assert!(serde_json::from_str::<Answer>(r#"{"Enable": "yes"}"#).is_err());
    }

    #[test]
    fn texts_are_safe_to_print() {
        assert_eq!(one_line("a\u{1b}[2J\n\n b"), "a [2J b");
        assert_eq!(one_line(&"ä".repeat(2000)).chars().count(), 1003);
    }

    #[test]
    fn what_a_name_means() {
        let answer: Answer = serde_json::from_value(serde_json::json!({
            "RetCode": 0,
            "Images": [
                {"OriginalImage": "docker.io/library/nginx:latest", "TargetImage": "r.io/nginx:fast"},
                {"OriginalImage": "r.io/a:1", "TargetImage": "r.io/a:x"},
            ],
            "Tasks": [{"OriginalImage": "r.io/a:1", "TargetImage": "r.io/a:y", "Status": "Creating"}],
        }))
        .unwrap();
        for (name, target) in [
            ("nginx", "r.io/nginx:fast"),
            ("r.io/nginx:fast", "r.io/nginx:fast"),
            // Of several targets none, and of none none.
            ("r.io/a:1", "r.io/a:1"),
            ("mongo", "mongo"),
        ] {
            assert_eq!(answer.target_of(name), target);
        }
    }
}
