//! What has changed between two answers, image by image. Pure.
//!
//! Guarantee: an image is gone only where an answer tells all images and has it not. While anything is
//! made or deleted, and while the agent is not ready, the ready images are not told (DESIGN section 7).

use std::collections::BTreeMap;

use crate::answer::{Answer, Status, normalised, one_line};
use crate::client::Response;
use crate::json::Json;

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
    /// As the answer has it; the last one that had it where it is gone.
    pub json: Json,
}

/// All images as they were told last.
#[derive(Debug, Default)]
pub struct Changes {
    /// Only that target, or those of that original.
    only: Option<String>,
    known: BTreeMap<String, Change>,
}

impl Changes {
    /// Of one image (its target or its original), or of all.
    #[must_use]
    pub fn new(only: Option<&str>) -> Self {
        Self {
            only: only.map(normalised),
            known: BTreeMap::new(),
        }
    }

    /// What this answer changes.
    pub fn see(&mut self, response: &Response) -> Vec<Change> {
        let now = self.told(response);
        let mut changes = Vec::new();
        if tells_all(&response.answer) {
            let gone = self
                .known
                .extract_if(.., |image, _| !now.contains_key(image));
            changes.extend(gone.map(|(_, last)| Change {
                is_gone: true,
                ..last
            }));
        }
        for (image, change) in now {
            let is_known = self.known.get(&image).is_some_and(|known| {
                (&known.state, &known.error) == (&change.state, &change.error)
            });
            if !is_known {
                self.known.insert(image, change.clone());
                changes.push(change);
            }
        }
        changes
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
        all.filter_map(|(((original, target), state, error), json)| {
            let (original, target) = (normalised(original), normalised(target));
            let only = self.only.as_ref();
            let is_meant = only.is_none_or(|only| *only == target || *only == original);
            let change = Change {
                image: one_line(&target),
                state,
                error,
                is_gone: false,
                json: json.clone(),
            };
            is_meant.then_some((target, change))
        })
        .collect()
    }
}

fn tells_all(answer: &Answer) -> bool {
    let flags = [answer.enable, answer.agent_ready];
    answer.status == Status::Ready && flags == [Some(true); 2]
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
        let all = changes.see(&response(fields));
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
        // Another one is being made: the others are not told, and not gone.
        for (percent, told) in [(10, Some("r.io/c:1 Creating 10 %")), (10, None)] {
            let fields = json!({"Status": "Creating", "Images": [], "Tasks": [task("r.io/c:1", "Creating", percent)]});
            assert_eq!(
                seen(&mut changes, fields),
                told.into_iter().collect::<Vec<_>>()
            );
        }
        for fields in [
            json!({"Status": "Unknown"}),
            json!({"Images": null, "AgentReady": false}),
            json!({"Images": [], "Enable": false}),
            json!({"Status": "Deleting", "Images": [], "Tasks": []}),
        ] {
            assert!(seen(&mut changes, fields).is_empty());
        }
        let fields = json!({"Images": [image("r.io/b:1"), image("r.io/c:1")], "Tasks": []});
        let told = ["r.io/a:1 Ready gone", "r.io/c:1 Ready"];
        assert_eq!(seen(&mut changes, fields), told);
    }

    #[test]
    fn only_one_image() {
        let fields = json!({"Images": [image("r.io/a:1"), image("r.io/b:1")]});
        let of = |name: &str| seen(&mut Changes::new(Some(name)), fields.clone());
        assert_eq!(of("r.io/b:1"), ["r.io/b:1 Ready"]);
        assert_eq!(of("r.io/app:1").len(), 2);
        assert!(of("r.io/c:1").is_empty());
    }
}
