//! What has changed between two answers, image by image. Pure.
//!
//! Guarantee: an image is gone only where an answer tells all images and has it not. Without `Tasks`,
//! which are ours, the ready images are not told while anything is made or deleted.

use std::collections::BTreeMap;

use crate::client::Response;
use crate::json::Json;
use uimgacc_api::answer::{Answer, Status, one_line};
use uimgacc_types::normalised;

/// An image that is new or has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The target.
    pub image: String,
    /// Where it stands, in a word or two.
    pub state: String,
    /// What holds it up; empty where nothing does.
    pub error: String,
    /// It was there, and is there no more.
    pub is_gone: bool,
    /// State or error are others than before; else only what `json` has besides.
    pub is_other_state: bool,
    /// As the answer has it, with `Status`; the last one that had it where it is gone.
    pub json: Json,
}

/// All images as they were told last.
#[derive(Debug, Default)]
pub struct Changes {
    /// Only that target, else those of that original.
    only: Option<String>,
    known: BTreeMap<String, Change>,
    has_begun: bool,
}

impl Changes {
    /// Of one image (its target or its original), or of all.
    #[must_use]
    pub fn new(only: Option<&str>) -> Self {
        Self {
            only: only.map(normalised),
            known: BTreeMap::new(),
            has_begun: false,
        }
    }

    /// What this answer changes.
    ///
    /// # Errors
    /// The image that was named, where the first answer that tells all has it not.
    pub fn see(&mut self, response: &Response) -> Result<Vec<Change>, String> {
        let now = self.told(response);
        let mut changes = Vec::new();
        if tells_all(&response.answer) {
            let was_first = !std::mem::replace(&mut self.has_begun, true);
            if let Some(only) = self.only.as_ref().filter(|_| was_first)
                && now.is_empty()
                && self.known.is_empty()
            {
                return Err(only.clone());
            }
            let gone = self
                .known
                .extract_if(.., |image, _| !now.contains_key(image));
            changes.extend(gone.map(|(_, last)| Change {
                is_gone: true,
                is_other_state: true,
                ..last
            }));
        }
        for (image, mut change) in now {
            if let Some(known) = self.known.get(&image) {
                if known.json == change.json {
                    continue;
                }
                change.is_other_state =
                    (&known.state, &known.error) != (&change.state, &change.error);
            }
            self.known.insert(image, change.clone());
            changes.push(change);
        }
        Ok(changes)
    }

    fn told(&self, response: &Response) -> BTreeMap<String, Change> {
        let answer = &response.answer;
        let ready = Status::Ready.name();
        let images = answer.images.iter().flatten().map(|one| {
            let names = (&one.original_image, &one.target_image);
            (names, ready.to_owned(), String::new())
        });
        let tasks = answer.tasks.iter().flatten().map(|one| {
            let names = (&one.original_image, &one.target_image);
            let error = one.error.as_deref().unwrap_or_default();
            (names, one.state(), one_line(error))
        });
        let items = |key| response.json.get(key).into_iter().flat_map(Json::items);
        // The same lists, read in the same order.
        let all = images.zip(items("Images")).chain(tasks.zip(items("Tasks")));
        let is_meant = self.only.as_deref().map(|only| answer.is_meant(only));
        all.filter(|(((original, target), ..), _)| {
            is_meant.as_ref().is_none_or(|is| is(original, target))
        })
        .map(|(((_, target), state, error), json)| {
            let target = normalised(target);
            let change = Change {
                image: one_line(&target),
                state,
                error,
                is_gone: false,
                is_other_state: true,
                json: with_status(json.clone()),
            };
            (target, change)
        })
        .collect()
    }
}

/// What is ready is told without it.
fn with_status(mut json: Json) -> Json {
    if let Json::Object(fields) = &mut json
        && !fields.iter().any(|(key, _)| key == "Status")
    {
        let ready = Json::Text(Status::Ready.name().to_owned());
        fields.push(("Status".to_owned(), ready));
    }
    json
}

fn tells_all(answer: &Answer) -> bool {
    let flags = [answer.enable, answer.agent_ready];
    flags == [Some(true); 2] && (answer.state() == Status::Ready || answer.tasks.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn response(fields: Value) -> Response {
        let mut whole =
            json!({"RetCode": 0, "Enable": true, "AgentReady": true, "Status": "Ready"});
        for (key, value) in fields.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let text = whole.to_string();
        Response {
            answer: serde_json::from_str(&text).unwrap(),
            json: serde_json::from_str(&text).unwrap(),
        }
    }

    fn image(target: &str) -> Value {
        json!({"OriginalImage": "r.io/app:1", "TargetImage": target, "Size": 1, "Layers": 1})
    }

    fn task(target: &str, status: &str, percent: u8) -> Value {
        json!({"OriginalImage": "r.io/app:1", "TargetImage": target, "Status": status, "Percent": percent})
    }

    fn seen(changes: &mut Changes, fields: Value) -> Vec<String> {
        let all = changes.see(&response(fields)).unwrap();
        all.iter()
            .map(|one| {
                let gone = if one.is_gone { " gone" } else { "" };
                format!("{} {}{gone}", one.image, one.state)
            })
            .collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let mut changes = Changes::new(None);
        let all = json!({"Images": [image("r.io/a:1"), image("r.io/b:1")]});
        let both = ["r.io/a:1 Ready", "r.io/b:1 Ready"];
        assert_eq!(seen(&mut changes, all.clone()), both);
        assert!(seen(&mut changes, all).is_empty());
        // Another one is being made or deleted: the others are not told, and not gone.
        for fields in [
            json!({"Status": "Creating", "Images": []}),
            json!({"Status": "Unknown", "Images": []}),
            json!({"Images": null, "AgentReady": false}),
            json!({"Images": [], "Enable": false}),
            json!({"Status": "Deleting", "Images": [], "AgentReady": false, "Tasks": []}),
        ] {
            assert!(seen(&mut changes, fields).is_empty());
        }
        let fields = json!({"Images": [image("r.io/b:1"), image("r.io/c:1")]});
        let told = ["r.io/a:1 Ready gone", "r.io/c:1 Ready"];
        assert_eq!(seen(&mut changes, fields), told);
    }

    #[test]
    fn tasks_tell_all() {
        let mut changes = Changes::new(None);
        let creating = |percent, others: &[Value]| {
            let mut tasks = vec![task("r.io/c:1", "Creating", percent)];
            tasks.extend(others.iter().cloned());
            json!({"Status": "Creating", "Images": [], "Tasks": tasks})
        };
        let ready = |target| task(target, "Ready", 100);
        let fields = creating(10, &[ready("r.io/a:1"), ready("r.io/b:1")]);
        assert_eq!(
            seen(&mut changes, fields),
            ["r.io/a:1 Ready", "r.io/b:1 Ready", "r.io/c:1 Creating 10 %"]
        );
        let fields = creating(20, &[ready("r.io/a:1")]);
        assert_eq!(
            seen(&mut changes, fields),
            ["r.io/b:1 Ready gone", "r.io/c:1 Creating 20 %"]
        );
        // One that failed stays so, and the others go on.
        let failed = json!({"Status": "CreateError", "Images": [image("r.io/a:1")],
            "Tasks": [task("r.io/c:1", "CreateError", 0)]});
        let all = changes.see(&response(failed)).unwrap();
        let told: Vec<_> = all
            .iter()
            .map(|one| {
                (
                    &*one.image,
                    one.is_other_state,
                    one.json.get("Size").is_some(),
                )
            })
            .collect();
        assert_eq!(told, [("r.io/a:1", false, true), ("r.io/c:1", true, false)]);
        let status = all[0].json.get("Status").and_then(Json::as_text);
        assert_eq!(status, Some("Ready"));
        let fields = json!({"Status": "CreateError", "Images": [], "Tasks": [task("r.io/c:1", "CreateError", 0)]});
        assert_eq!(seen(&mut changes, fields), ["r.io/a:1 Ready gone"]);
    }

    #[test]
    fn only_one_image() {
        let fields = json!({"Images": [image("r.io/a:1"), image("r.io/b:1")]});
        let of = |name: &str| seen(&mut Changes::new(Some(name)), fields.clone());
        assert_eq!(of("r.io/b:1"), ["r.io/b:1 Ready"]);
        assert_eq!(of("r.io/app:1").len(), 2);
        let mut changes = Changes::new(Some("r.io/c:1"));
        assert!(seen(&mut changes, json!({"Status": "Unknown"})).is_empty());
        let missing = changes.see(&response(fields.clone()));
        assert_eq!(missing, Err("r.io/c:1".to_owned()));
        // One that was there may go.
        let mut changes = Changes::new(Some("r.io/b:1"));
        assert_eq!(seen(&mut changes, fields), ["r.io/b:1 Ready"]);
        let fields = json!({"Images": [image("r.io/a:1")]});
        assert_eq!(seen(&mut changes, fields), ["r.io/b:1 Ready gone"]);
        assert!(seen(&mut changes, json!({"Images": []})).is_empty());
    }
}
