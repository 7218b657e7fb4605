//! What the service answers to a Get: the fields of DESIGN section 7, then ours, which may be absent.
//!
//! Lenient where that does no harm: a field that is absent or null is `None`, never `false` or empty,
//! so that nothing is taken from an answer that it does not say.

use serde::{Deserialize, Deserializer};
use uimgacc_types::ImageReference;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Answer {
    /// 0, or why not.
    pub ret_code: Option<i64>,
    /// For people, where `ret_code` is not 0.
    pub message: Option<String>,
    /// Why not, for programs. (Ours.)
    pub reason: Option<String>,
    /// The cluster is enabled.
    pub enable: Option<bool>,
    /// The store can be written.
    pub nfs_ready: Option<bool>,
    /// The agent runs.
    pub agent_ready: Option<bool>,
    /// Of all images together.
    pub status: Status,
    /// The first error there is.
    pub error: Option<String>,
    /// The images that are ready, while nothing is made or deleted.
    pub images: Option<Vec<Image>>,
    /// The store.
    pub nfs_addr: Option<String>,
    /// The images that are not ready. (Ours.)
    pub tasks: Option<Vec<Task>>,
    /// Nodes that are to run accelerated images. (Ours.)
    pub nodes: Option<u64>,
    /// Nodes that can. (Ours.)
    pub ready_nodes: Option<u64>,
}

/// Of all images together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Status {
    /// All images are ready.
    Ready,
    /// An image is being made.
    Creating,
    /// An image could not be made.
    CreateError,
    /// An image is being deleted.
    Deleting,
    /// An image cannot be deleted.
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

/// Where one image stands: the same words, of it alone.
pub type TaskStatus = Status;

/// An image that is ready.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Image {
    /// The original image.
    pub original_image: String,
    /// The accelerated one.
    pub target_image: String,
    /// Bytes of all files.
    #[serde(deserialize_with = "count")]
    pub size: Option<u64>,
    /// Layers.
    #[serde(deserialize_with = "count")]
    pub layers: Option<u64>,
}

/// An image that is not ready.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Task {
    /// The original image.
    pub original_image: String,
    /// The accelerated one.
    pub target_image: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// What holds it up.
    pub error: Option<String>,
    /// 0 to 100.
    #[serde(deserialize_with = "count")]
    pub percent: Option<u64>,
    /// What is being done.
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

/// A reference written out, so that short and long forms are the same; as it stands where it is none.
#[must_use]
pub fn normalised(reference: &str) -> String {
    let parsed = reference.parse::<ImageReference>();
    parsed.map_or_else(|_| reference.to_owned(), |parsed| parsed.to_string())
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

    /// The target that a name means: itself where there is such a target, else that of the only image
    /// with this original. The service goes by the same rule.
    #[must_use]
    pub fn target_of(&self, name: &str) -> String {
        let wanted = normalised(name);
        let images = self.images.iter().flatten();
        let tasks = self.tasks.iter().flatten();
        let all: Vec<(String, String)> = images
            .map(|one| {
                (
                    normalised(&one.original_image),
                    normalised(&one.target_image),
                )
            })
            .chain(tasks.map(|one| {
                (
                    normalised(&one.original_image),
                    normalised(&one.target_image),
                )
            }))
            .collect();
        let mut of_original = all.iter().filter(|(original, _)| *original == wanted);
        match (of_original.next(), of_original.next()) {
            (Some((_, target)), None) if all.iter().all(|(_, other)| *other != wanted) => {
                target.clone()
            }
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
        assert_eq!(answer.status, Status::Unknown);
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
