//! Configurations of every make, edited and put back.

use proptest::prelude::*;

use super::*;

const V1_6: ContainerdVersion = ContainerdVersion::new(1, 6, 20);
const V1_7: ContainerdVersion = ContainerdVersion::new(1, 7, 24);
const V2_1: ContainerdVersion = ContainerdVersion::new(2, 1, 9);
const V2_4: ContainerdVersion = ContainerdVersion::new(2, 4, 2);

fn wanted() -> Wanted {
    Wanted {
        name: "uimgacc".to_owned(),
        address: "/run/uimgacc/s.sock".to_owned(),
        root: "/var/lib/uimgacc".to_owned(),
    }
}

fn edited(text: &str, containerd: ContainerdVersion) -> Edited {
    edit(Some(text), containerd, &wanted()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn plain(text: &str) -> String {
    // Compares data, not spelling: every value in the order of its path.
    fn walk(item: &toml_edit::Item, path: &str, lines: &mut Vec<String>) {
        if let Some(table) = item.as_table_like() {
            for (key, item) in table.iter() {
                walk(item, &format!("{path}/{key}"), lines);
            }
        } else if let Some(tables) = item.as_array_of_tables() {
            for (number, table) in tables.iter().enumerate() {
                let item = toml_edit::Item::Table(table.clone());
                walk(&item, &format!("{path}/{number}"), lines);
            }
        } else if let Some(array) = item.as_array() {
            for (number, value) in array.iter().enumerate() {
                let item = toml_edit::Item::Value(value.clone());
                walk(&item, &format!("{path}/{number}"), lines);
            }
        } else if let Some(value) = item.as_value() {
            let text = value
                .as_str()
                .map_or_else(|| tree::bare(value), |text| format!("{text:?}"));
            lines.push(format!("{path} = {text}"));
        }
    }
    let mut lines = Vec::new();
    walk(parse(text).unwrap().as_item(), "", &mut lines);
    lines.sort();
    lines.join("\n")
}

/// What must hold of any edit.
fn check(text: &str, containerd: ContainerdVersion) -> Edited {
    let result = edited(text, containerd);
    let document = parse(&result.text).unwrap_or_else(|error| panic!("{error}\n{}", result.text));
    let version = document.get("version").unwrap().as_integer().unwrap();
    for (path, value) in wanted_values(version, containerd, &wanted()) {
        assert!(
            effective::has(document.as_table(), &path, &value),
            "{path:?} in\n{}",
            result.text
        );
    }
    let again = edited(&result.text, containerd);
    assert_eq!(again.text, result.text, "an edit of the edited");
    assert!(again.changes.is_empty());
    let undone = undo(&result.text, &result.changes).unwrap();
    assert_eq!(plain(&undone.text), plain(text), "undone:\n{}", undone.text);
    assert!(undone.kept.is_empty());
    result
}

#[test]
fn a_file_that_is_not_there_or_empty() {
    for text in ["", "\n", "# nothing but a comment\n"] {
        let result = check(text, V2_1);
        assert!(result.text.contains("version = 3"), "{}", result.text);
        let result = check(text, V1_6);
        assert!(result.text.contains("version = 2"), "{}", result.text);
        assert!(
            !result.text.contains("unpack_config"),
            "1.6 has no transfer service"
        );
    }
    assert_eq!(
        edit(None, V2_1, &wanted()).unwrap().text,
        r#"version = 3

[proxy_plugins.uimgacc]
type = "snapshot"
address = "/run/uimgacc/s.sock"

[proxy_plugins.uimgacc.exports]
root = "/var/lib/uimgacc"
enable_remote_snapshot_annotations = "true"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "uimgacc"
disable_snapshot_annotations = false

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux"
snapshotter = "overlayfs"
differ = "walking"

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux"
snapshotter = "uimgacc"
differ = "walking"
"#
    );
}

#[test]
fn comments_formatting_and_the_old_value_stay() {
    let text = r#"# The site's file.
version = 2

[plugins]
    [plugins."io.containerd.grpc.v1.cri".containerd]
        snapshotter = 'native'   # because of ZFS
        default_runtime_name = "runc"
"#;
    let result = check(text, V1_7);
    assert!(
        result
            .text
            .contains("        snapshotter = \"uimgacc\"   # because of ZFS\n"),
        "{}",
        result.text
    );
    assert!(
        result
            .text
            .contains("        disable_snapshot_annotations = false\n"),
        "indented as its neighbours:\n{}",
        result.text
    );
    let replaced: Vec<String> = result.notes.iter().map(ToString::to_string).collect();
    assert!(replaced[0].contains("'native'"), "{replaced:?}");
    let undone = undo(&result.text, &result.changes).unwrap();
    assert_eq!(undone.text, text);
}

#[test]
fn every_spelling_of_a_table() {
    let spellings = [
        "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".containerd.snapshotter = \"native\"\n",
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\ncontainerd.snapshotter = \"native\"\n",
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\ncontainerd = { snapshotter = \"native\" }\n",
        "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { sandbox_image = \"x\" } }\n",
        "version = 2\n[plugins]\n\"io.containerd.grpc.v1.cri\" = {}\n",
        "version = 2\n[\"plugins\".\"io.containerd.grpc.v1.\\u0063ri\".\"containerd\"]\n\"snapshotter\" = \"\"\"native\"\"\"\n",
        "version = 2\nproxy_plugins.uimgacc.type = 'snapshot'\n",
        "version = 2\nproxy_plugins = { stargz = { type = \"snapshot\", address = \"/x\" } }\n",
        "version = 2\n[proxy_plugins]\n[proxy_plugins.uimgacc]\naddress = '/elsewhere' # old\ntype = 'snapshot'\n",
        "version = 2\n[plugins]\n[plugins.\"io.containerd.transfer.v1.local\"]\nunpack_config = [{platform = \"linux\", snapshotter = \"overlayfs\"}]\n",
        "version = 2\n[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\nplatform = \"linux/amd64\"\nsnapshotter = \"overlayfs\"\n",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n[grpc]\naddress = \"/x\"\n",
        "version = 2\r\n[grpc]\r\naddress = \"/x\"\r\n",
    ];
    for text in spellings {
        for containerd in [V1_6, V1_7, V2_1, V2_4] {
            check(text, containerd);
        }
    }
}

#[test]
fn a_list_that_is_there_gets_one_entry_more_and_a_new_one_the_defaults() {
    let text = "version = 3\n[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\nplatform = \"linux/amd64\"\nsnapshotter = \"native\"\n";
    assert_eq!(check(text, V2_1).changes.unpack, ["uimgacc"]);
    assert_eq!(
        check("version = 3\n", V2_1).changes.unpack,
        ["overlayfs", "uimgacc"]
    );
    assert_eq!(
        check("version = 4\n", V2_4).changes.unpack,
        ["overlayfs", "erofs", "uimgacc"]
    );
}

#[test]
fn a_file_of_version_2_tells_containerd_2_in_both_places() {
    let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"overlayfs\"\n";
    let result = check(text, V2_1);
    assert!(result.text.contains("io.containerd.cri.v1.images"));
    assert!(
        !check(text, V1_7)
            .text
            .contains("io.containerd.cri.v1.images")
    );
}

#[test]
fn what_is_refused() {
    let error = |text, containerd| edit(Some(text), containerd, &wanted()).unwrap_err();
    assert!(matches!(
        error("root = '/x'\n", V1_7),
        ConfigError::OldVersion { found: 1, .. }
    ));
    assert!(matches!(
        error("version = 1\n", V2_1),
        ConfigError::OldVersion { found: 1, .. }
    ));
    assert!(matches!(
        error("version = 3\n", V1_7),
        ConfigError::NewVersion {
            found: 3,
            newest: 2,
            ..
        }
    ));
    assert!(matches!(
        error("version = 4\n", V2_1),
        ConfigError::NewVersion {
            found: 4,
            newest: 3,
            ..
        }
    ));
    assert!(matches!(
        error("version = \"2\"\n", V1_7),
        ConfigError::Kind { .. }
    ));
    assert!(matches!(
        error("version = \n", V1_7),
        ConfigError::Syntax(_)
    ));
    assert!(matches!(
        error("version = 2\nplugins = 3\n", V1_7),
        ConfigError::Kind { .. }
    ));
    assert!(matches!(
        error("version = 2\n[[plugins]]\n", V1_7),
        ConfigError::Kind { .. }
    ));
    assert!(matches!(
        error("version = 2\n[proxy_plugins.uimgacc.type]\n", V1_7),
        ConfigError::Kind { .. }
    ));
}

#[test]
fn what_somebody_changed_since_stays() {
    let result = edited("version = 3\n", V2_1);
    let changed = result.text.replace(
        "snapshotter = \"uimgacc\"\ndisable",
        "snapshotter = \"stargz\"\ndisable",
    ) + "\n[grpc]\naddress = \"/new\"\n";
    let undone = undo(&changed, &result.changes).unwrap();
    assert_eq!(
        undone.kept,
        ["plugins.\"io.containerd.cri.v1.images\".snapshotter"]
    );
    assert_eq!(
        plain(&undone.text),
        plain(
            "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"stargz\"\n[grpc]\naddress = \"/new\"\n"
        )
    );
    // A list that somebody has made longer keeps the defaults that we named.
    let longer = result.text.clone()
        + "[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\nsnapshotter = \"native\"\n";
    let undone = undo(&longer, &result.changes).unwrap().text;
    assert!(
        undone.contains("overlayfs") && undone.contains("native"),
        "{undone}"
    );
    assert!(!undone.contains("uimgacc"), "{undone}");
}

#[test]
fn the_version_of_a_new_file_stays_where_somebody_wrote_into_it() {
    let result = edited("", V2_1);
    assert_eq!(undo(&result.text, &result.changes).unwrap().text.trim(), "");
    let more = format!("{}\n[grpc]\naddress = \"/new\"\n", result.text);
    let undone = undo(&more, &result.changes).unwrap().text;
    assert_eq!(
        plain(&undone),
        plain("version = 3\n[grpc]\naddress = \"/new\"\n")
    );
}

#[test]
fn drop_ins_that_take_our_keys_away() {
    let cri =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/x\"\n";
    let keys = overridden(cri, V1_7, &wanted()).unwrap();
    assert_eq!(keys.len(), 2, "1.x replaces the table as a whole: {keys:?}");
    assert!(overridden(cri, V2_1, &wanted()).unwrap().is_empty());
    let images = "version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'erofs'\n";
    assert_eq!(
        overridden(images, V2_1, &wanted()).unwrap(),
        ["plugins.\"io.containerd.cri.v1.images\".snapshotter"]
    );
    let proxy = "version = 2\n[proxy_plugins.uimgacc]\ntype = \"snapshot\"\naddress = \"/else\"\n";
    assert_eq!(
        overridden(proxy, V2_1, &wanted()).unwrap(),
        [
            "proxy_plugins.uimgacc.address",
            "proxy_plugins.uimgacc.exports.root",
            "proxy_plugins.uimgacc.exports.enable_remote_snapshot_annotations",
        ]
    );
    assert_eq!(
        imports("imports = ['a', \"conf.d/*.toml\"]\n").unwrap(),
        ["a", "conf.d/*.toml"]
    );
}

#[test]
fn patterns() {
    for (pattern, name, matches) in [
        ("*.toml", "a.toml", true),
        ("*.toml", ".config.toml.uimgacc-new", false),
        ("a?c*", "abcd", true),
        ("*", "", true),
        ("a", "ab", false),
        ("*ä*", "xäy", true),
    ] {
        assert_eq!(glob_matches(pattern, name), matches, "{pattern} {name}");
    }
}

#[test]
fn files_that_a_distribution_makes() {
    use std::path::Path;
    let made =
        "# File generated by k3s. DO NOT EDIT. Use config-v3.toml.tmpl instead.\nversion = 3\n";
    let k3s = Path::new("/var/lib/rancher/k3s/agent/etc/containerd/config.toml");
    assert_eq!(distribution(k3s, ""), Some(Distribution::K3s));
    assert_eq!(distribution(Path::new("/x"), made), Some(Distribution::K3s));
    assert_eq!(distribution(&k3s.with_extension("toml.tmpl"), made), None);
    assert_eq!(
        distribution(Path::new("/etc/containerd/config.toml"), "version = 2\n"),
        None
    );
    let rke2 = Path::new("/var/lib/rancher/rke2/agent/etc/containerd/config.toml");
    assert_eq!(distribution(rke2, made), Some(Distribution::Rke2));
    assert!(
        Distribution::K3s
            .template(k3s, V2_1)
            .ends_with("config-v3.toml.tmpl")
    );
}

/// Lines of tables that containerd's files have, in several spellings; any choice of them is valid.
fn parts(version: i64) -> Vec<Vec<&'static str>> {
    let cri = if version == 2 {
        vec![
            "",
            "[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"x\" # c\n",
            "[plugins.'io.containerd.grpc.v1.cri'.containerd]\n\tsnapshotter = 'native'\n",
            "[plugins.'io.containerd.grpc.v1.cri']\ncontainerd = {snapshotter=\"native\", a.b = 1}\n",
            "[plugins.'io.containerd.grpc.v1.cri']\n'containerd'.disable_snapshot_annotations = true\n",
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"r\"\n",
        ]
    } else {
        vec![
            "",
            "[plugins.'io.containerd.cri.v1.images']\n    snapshotter = 'overlayfs' # c\n",
            "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = ''\n",
            "[plugins.'io.containerd.cri.v1.images']\npinned_images = {sandbox = 'x'}\ndisable_snapshot_annotations = true\n",
        ]
    };
    vec![
        vec!["", "# a comment\n", "\n\n"],
        vec![
            "",
            "root = '/r'\n",
            "disabled_plugins = [\n  'cri', # docker\n]\n",
        ],
        vec![
            "",
            "proxy_plugins.a.type = 'content'\n",
            "proxy_plugins = {a = {type = 'snapshot'}}\n",
            "proxy_plugins.uimgacc = {type = 'x'}\n",
        ],
        cri,
        vec![
            "",
            "[plugins.'io.containerd.transfer.v1.local']\nunpack_config = []\n",
            "[plugins.'io.containerd.transfer.v1.local']\nconfig_path = ''\n",
            "[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\nsnapshotter = 'native'\n",
        ],
        vec![
            "",
            "[grpc]\n  address = '/x'\n",
            "[timeouts]\n'a.b' = '1s'\n# end",
        ],
    ]
}

proptest! {
    #[test]
    fn any_choice_of_parts_is_edited_and_put_back(
        choice in proptest::collection::vec(0_usize..12, 6),
        version in 2_i64..4,
        newer in any::<bool>(),
    ) {
        let mut text = format!("version = {version}\n");
        for (options, choice) in parts(version).iter().zip(choice) {
            text += options[choice % options.len()];
        }
        let containerd = match (version, newer) {
            (2, false) => V1_7,
            (_, false) => V2_1,
            (_, true) => V2_4,
        };
        check(&text, containerd);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z\\[\\]{}=.\"'\n #]{0,80}") {
        let _ = edit(Some(&text), V2_1, &wanted());
        let _ = imports(&text);
        let _ = overridden(&text, V1_7, &wanted());
    }
}
