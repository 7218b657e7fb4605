//! The OpenAPI description says what the code does, and the guide's pages say what the description does.
//!
//! `UIMGACC_UPDATE=1 cargo test -p uimgacc-api --test reference` writes the pages anew.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; clippy knows only functions marked as tests"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use uimgacc_api::action::Verb;
use uimgacc_api::{Answer, OPENAPI, Refusal, Status};

/// What a page says in its language.
struct Words {
    language: &'static str,
    key: &'static str,
    title: &'static str,
    about: &'static str,
    actions: &'static str,
    common: &'static str,
    answers: &'static str,
    refusals: &'static str,
    parameter: &'static str,
    field: &'static str,
    meaning: &'static str,
    required: &'static str,
}

const PAGES: [Words; 2] = [
    Words {
        language: "en",
        key: "description",
        title: "API reference",
        about: "[中文](../zh/api-reference.md)\n\nMade from the OpenAPI description, which `uimgacc-api openapi` prints.",
        actions: "Actions",
        common: "Parameters of every action",
        answers: "Answers",
        refusals: "Codes",
        parameter: "Parameter",
        field: "Field",
        meaning: "What it means",
        required: "required",
    },
    Words {
        language: "zh",
        key: "x-zh",
        title: "API 参考",
        about: "[English](../en/api-reference.md)\n\n本页由 OpenAPI 描述生成；`uimgacc-api openapi` 会打印这份描述（英文）。",
        actions: "操作",
        common: "公共参数",
        answers: "回答",
        refusals: "返回码",
        parameter: "参数",
        field: "字段",
        meaning: "含义",
        required: "必填",
    },
];

fn description() -> Value {
    serde_norway::from_str(OPENAPI).unwrap()
}

fn schema<'d>(all: &'d Value, name: &str) -> &'d Value {
    let found = &all["components"]["schemas"][name];
    assert!(found.is_object(), "there is no schema {name}");
    found
}

fn text(of: &Value, words: &Words) -> String {
    let text = of[words.key].as_str();
    let text = text.unwrap_or_else(|| panic!("no {} in {of}", words.key));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// A table of properties.
fn table(page: &mut String, of: &Value, head: &str, words: &Words) {
    let _ = writeln!(page, "| {head} | {} |\n| --- | --- |", words.meaning);
    let properties = of["properties"].as_object().unwrap();
    // A value that is always the same is no news.
    for (name, one) in properties
        .iter()
        .filter(|(_, one)| one.get("description").is_some())
    {
        let is_required = strings(&of["required"]).any(|required| required == name);
        let must = match is_required && head == words.parameter {
            true => format!(" ({})", words.required),
            false => String::new(),
        };
        let values: Vec<String> = strings(&one["enum"])
            .map(|value| format!("`{value}`"))
            .collect();
        let told = format!("{} {}", text(one, words), values.join(", "));
        let _ = writeln!(page, "| `{name}`{must} | {} |", told.trim_end());
    }
    page.push('\n');
}

fn page(all: &Value, words: &Words) -> String {
    let about = all["info"][words.key].as_str().unwrap();
    let mut page = format!("# {}\n\n{}\n\n{about}\n", words.title, words.about);
    let _ = writeln!(page, "## {}\n", words.common);
    table(&mut page, schema(all, "Common"), words.parameter, words);
    let _ = writeln!(page, "## {}\n", words.actions);
    for verb in Verb::ALL {
        let one = schema(all, verb.name());
        let _ = writeln!(page, "### {}\n\n{}\n", verb.name(), text(one, words));
        let own = &one["allOf"][1];
        if own["properties"].as_object().unwrap().len() > 1 {
            table(&mut page, own, words.parameter, words);
        }
    }
    let _ = writeln!(page, "## {}\n", words.answers);
    for name in ["Done", "Status", "Image", "Task", "Refusal"] {
        let one = schema(all, name);
        let _ = writeln!(page, "### {name}\n\n{}\n", text(one, words));
        table(&mut page, one, words.field, words);
    }
    let _ = writeln!(page, "## {}\n", words.refusals);
    let _ = writeln!(page, "| RetCode | {} |\n| --- | --- |", words.meaning);
    for one in codes(all) {
        let _ = writeln!(page, "| {} | {} |", one["const"], text(one, words));
    }
    page
}

fn codes(all: &Value) -> &[Value] {
    let codes = &schema(all, "Refusal")["properties"]["RetCode"]["oneOf"];
    codes.as_array().unwrap()
}

#[test]
fn the_pages_are_up_to_date() {
    let all = description();
    for words in &PAGES {
        let path = format!(
            "{}/../../docs/{}/api-reference.md",
            env!("CARGO_MANIFEST_DIR"),
            words.language
        );
        let page = page(&all, words);
        if std::env::var_os("UIMGACC_UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
            continue;
        }
        assert!(
            std::fs::read_to_string(&path).unwrap() == page,
            "{path} is out of date; run UIMGACC_UPDATE=1 cargo test -p uimgacc-api --test reference"
        );
    }
}

#[test]
fn the_description_has_what_the_code_has() {
    let all = description();
    assert_eq!(all["info"]["version"], env!("CARGO_PKG_VERSION"));
    let references = schema(&all, "Request")["oneOf"].as_array().unwrap();
    let actions: BTreeSet<&str> = references
        .iter()
        .filter_map(|one| one["$ref"].as_str()?.rsplit('/').next())
        .collect();
    assert_eq!(actions, Verb::ALL.map(Verb::name).into());

    let told: BTreeSet<u64> = codes(&all)
        .iter()
        .filter_map(|one| one["const"].as_u64())
        .collect();
    let text = String::new;
    let refusals = [
        Refusal::Gateway(text()),
        Refusal::Unavailable(text()),
        Refusal::Throttled,
        Refusal::MissingAction,
        Refusal::UnknownAction(text()),
        Refusal::MissingSignature,
        Refusal::WrongSignature,
        Refusal::UnknownUser,
        Refusal::Missing(text()),
        Refusal::NotAvailable(text()),
        Refusal::NoProject(text()),
        Refusal::Denied,
    ];
    let known: BTreeSet<u64> = refusals.iter().map(|one| u64::from(one.code())).collect();
    assert_eq!(told, known);

    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    // All fields but those of a refusal.
    let answer = Answer {
        ret_code: Some(0),
        action: Some(text()),
        message: None,
        reason: None,
        enable: Some(true),
        nfs_ready: Some(true),
        agent_ready: Some(true),
        status: Some(Status::Ready),
        error: Some(text()),
        images: Some(Vec::new()),
        subnet_id: Some(text()),
        nfs_addr: Some(text()),
        tasks: Some(Vec::new()),
        nodes: Some(0),
        ready_nodes: Some(0),
        store_bytes: Some(1),
    };
    let answer = serde_json::to_value(answer).unwrap();
    assert_eq!(keys(&schema(&all, "Status")["properties"]), keys(&answer));
    let refusal = serde_json::to_value(Refusal::InUse(text()).answer("X")).unwrap();
    assert_eq!(keys(&schema(&all, "Refusal")["properties"]), keys(&refusal));
}
