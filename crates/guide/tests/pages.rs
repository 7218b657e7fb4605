//! Links lead somewhere, and both languages have the same pages with the same headings and the same blocks of code.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uimgacc_guide::{LANGUAGES, Page, pages, readmes, root};

fn by_name(language: &str) -> BTreeMap<String, Page> {
    let all = pages(language).unwrap();
    assert!(!all.is_empty(), "docs/{language} has no pages");
    all.into_iter().map(|page| (page.name(), page)).collect()
}

#[test]
fn both_languages_have_the_same_pages() {
    let [english, chinese] = LANGUAGES.map(by_name);
    let names = |pages: &BTreeMap<String, Page>| pages.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&english), names(&chinese));
    let mut wrong = Vec::new();
    for (name, page) in &english {
        let other = &chinese[name];
        let levels = |page: &Page| {
            page.headings
                .iter()
                .map(|(level, _)| *level)
                .collect::<Vec<_>>()
        };
        if levels(page) != levels(other) {
            wrong.push(format!(
                "{name}: the headings differ: {:?} and {:?}",
                page.headings, other.headings
            ));
        }
        let blocks = |page: &Page| {
            let blocks = page.blocks.iter();
            blocks
                .map(|block| (block.language.clone(), without_comments(&block.text)))
                .collect::<Vec<_>>()
        };
        for (one, two) in blocks(page).iter().zip(&blocks(other)) {
            if one != two {
                wrong.push(format!(
                    "{name}: a block of code differs:\n{}\n{}",
                    one.1, two.1
                ));
            }
        }
        if page.blocks.len() != other.blocks.len() {
            wrong.push(format!(
                "{name}: {} and {} blocks of code",
                page.blocks.len(),
                other.blocks.len()
            ));
        }
        for (page, to) in [(page, "zh"), (other, "en")] {
            let link = format!("](../{to}/{name})");
            if name != "SUMMARY.md" && !page.text.contains(&link) {
                wrong.push(format!(
                    "{}: no link to the other language, {link}",
                    page.path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Comments are in the page's language.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let code = line.split(" # ").next().unwrap_or_default().trim_end();
        if line.trim_start().starts_with("# ") {
            "#"
        } else {
            code
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn both_readmes_say_the_same() {
    let [english, chinese] = <[Page; 2]>::try_from(readmes().unwrap()).unwrap();
    let levels = |page: &Page| {
        page.headings
            .iter()
            .map(|(level, _)| *level)
            .collect::<Vec<_>>()
    };
    assert_eq!(levels(&english), levels(&chinese));
    let blocks = |page: &Page| {
        page.blocks
            .iter()
            .map(|block| without_comments(&block.text))
            .collect::<Vec<_>>()
    };
    assert_eq!(blocks(&english), blocks(&chinese));
    // The first thing that they lead to.
    assert_eq!(english.links[0].target, chinese.name());
    assert_eq!(chinese.links[0].target, english.name());
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    for language in LANGUAGES {
        let mut pages = by_name(language);
        let contents = pages.remove("SUMMARY.md").unwrap();
        let mut listed: Vec<_> = contents
            .links
            .iter()
            .map(|link| link.target.clone())
            .collect();
        listed.sort();
        let there: Vec<_> = pages.into_keys().collect();
        assert_eq!(listed, there, "docs/{language}/SUMMARY.md");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut all = readmes().unwrap();
    all.push(Page::read(&root().join("CONTRIBUTING.md")).unwrap());
    all.push(Page::read(&root().join("CHANGELOG.md")).unwrap());
    for language in LANGUAGES {
        all.extend(pages(language).unwrap());
    }
    let anchors: BTreeMap<PathBuf, Vec<String>> = all
        .iter()
        .map(|page| (page.path.canonicalize().unwrap(), page.anchors()))
        .collect();
    let mut wrong = Vec::new();
    let mut followed = 0;
    for page in &all {
        for link in &page.links {
            followed += 1;
            if let Err(why) = follow(page, &link.target, &anchors) {
                wrong.push(format!(
                    "{}:{}: {}: {why}",
                    page.path.display(),
                    link.line,
                    link.target
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(followed > 50, "only {followed} links were found");
}

fn follow(
    page: &Page,
    target: &str,
    anchors: &BTreeMap<PathBuf, Vec<String>>,
) -> Result<(), String> {
    if target.contains("://") {
        // Others' pages are not fetched.
        let host = target
            .strip_prefix("https://")
            .ok_or("must begin with https://")?;
        let host = host.split('/').next().unwrap_or_default();
        let good = host.contains('.')
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
        return if good {
            Ok(())
        } else {
            Err("no host".to_owned())
        };
    }
    let (file, anchor) = target
        .split_once('#')
        .map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() {
        page.path.clone()
    } else {
        page.path.parent().unwrap_or(Path::new(".")).join(file)
    };
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let Some(anchor) = anchor else { return Ok(()) };
    let known = anchors.get(&path).ok_or("an anchor in no page")?;
    if known.iter().any(|one| one == anchor) {
        Ok(())
    } else {
        Err(format!("no such heading; there are {known:?}"))
    }
}
