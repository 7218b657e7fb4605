//! `config init|show|path`, and which place a verb takes.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::service::{CLUSTER, PRIVATE, PUBLIC, Service, get};
use crate::support::{Home, failed, ok};

/// The lines that `init` reads.
fn lines(values: [&str; 10]) -> String {
    values.join("\n") + "\n"
}

fn text(home: &Home) -> String {
    std::fs::read_to_string(home.file()).unwrap()
}

#[test]
fn init_writes_a_file_for_its_owner_and_tries_it() {
    let service = Service::start([get(json!({}))]);
    let home = Home::new();
    let answers = [
        "cn-bj2",
        "",
        PUBLIC,
        PRIVATE,
        CLUSTER,
        "",
        "10.0.0.1:/x",
        "u",
        "geheim",
        &service.url,
    ];
    let (_, err) = ok(&home.run_with(&["config", "init"], &lines(answers)));
    assert!(err.contains("it works: http://127.0.0.1:"), "{err}");
    assert_eq!(service.seen(), ["Get Region=cn-bj2"]);
    let mode = std::fs::metadata(home.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    ok(&home.run(&["get"]));

    // An empty line keeps, a - takes away, and so does the end of the input.
    let (_, err) = ok(&home.run_with(
        &["config", "init", "--no-check"],
        "cn-sh2\nproject\n\n\n\n-\n-\n",
    ));
    assert!(!err.contains("it works"), "{err}");
    let now = text(&home);
    for part in [
        "cn-sh2",
        "project_id = \"project\"",
        PRIVATE,
        "uhub_password = \"geheim\"",
    ] {
        assert!(now.contains(part), "{now}");
    }
    assert!(!now.contains("nfs_addr"), "{now}");

    // Starting over forgets.
    ok(&home.run_with(&["config", "init", "--force", "--no-check"], "cn-bj2\n"));
    assert_eq!(text(&home), "region = \"cn-bj2\"\n");
    let (_, err) = ok(&home.run_with(&["config", "init"], ""));
    assert!(err.contains("not tried: public_key is not set"), "{err}");
}

#[test]
fn init_says_what_does_not_work() {
    let service = Service::start([get(json!({}))]);
    let home = Home::new();
    let err = failed(&home.run(&["config", "init"]), 1);
    assert!(
        err.contains("nothing was set") && !home.file().exists(),
        "{err}"
    );
    let wrong = [
        "",
        "",
        PUBLIC,
        "geheim",
        CLUSTER,
        "",
        "",
        "",
        "",
        &service.url,
    ];
    let err = failed(&home.run_with(&["config", "init"], &lines(wrong)), 1);
    assert!(
        err.contains("it does not work yet") && err.contains("check private_key"),
        "{err}"
    );
    assert!(text(&home).contains("geheim"), "written all the same");

    let before = text(&home);
    let bad = ["", "", "", "", "", "", "", "", "", "nowhere"];
    let err = failed(&home.run_with(&["config", "init"], &lines(bad)), 1);
    assert!(err.contains("base_url: it is no address"), "{err}");
    assert_eq!(text(&home), before, "nothing was written");

    home.write("private_key = geheim\n");
    let err = failed(&home.run_with(&["config", "init"], ""), 1);
    assert!(err.contains("--force") && err.contains("line 1: "), "{err}");
    ok(&home.run_with(&["config", "init", "--force", "--no-check"], "r\n"));

    let elsewhere = home.path("a/b.toml");
    ok(&home.run_with(
        &["config", "init", "--no-check", "--config", &elsewhere],
        "r\n",
    ));
    let out = home.run(&["config", "path", "--config", &elsewhere]);
    assert_eq!(ok(&out).0.trim(), elsewhere);
}

#[test]
fn show_tells_where_settings_are_from() {
    let home = Home::new();
    home.write("region = 'cn-bj2'\nprivate_key = 'geheim'\ncluster_id = 'file'");
    let mut command = home.command(&["config", "show", "-o", "json"]);
    command
        .env("UIMGACC_CLUSTER_ID", "env")
        .env("UIMGACC_UHUB_PASSWORD", "geheim");
    let (out, _) = ok(&command.output().unwrap());
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["file"], home.file().display().to_string());
    for (key, value, source) in [
        ("region", json!("cn-bj2"), json!("file")),
        ("cluster_id", json!("env"), json!("env")),
        ("private_key", json!("****"), json!("file")),
        ("uhub_password", json!("****"), json!("env")),
        ("base_url", json!("https://api.ucloud.cn"), json!("default")),
        ("nfs_addr", Value::Null, Value::Null),
    ] {
        assert_eq!(
            shown["settings"][key],
            json!({"value": value, "source": source}),
            "{key}"
        );
    }
    let (out, err) = ok(&home.run(&["config", "show"]));
    assert!(
        out.contains("****") && err.contains("config.toml"),
        "{out}{err}"
    );

    let (out, _) = ok(&home.run(&["config", "path"]));
    assert_eq!(out.trim(), home.file().display().to_string());
    let named = home
        .command(&["config", "path"])
        .env("UIMGACC_CONFIG", "/x/y")
        .output();
    assert_eq!(ok(&named.unwrap()).0, "/x/y\n");
    let help = ok(&home.run(&["config", "show", "--help"])).0;
    assert!(help.contains("UIMGACC_BASE_URL"), "{help}");
}

#[test]
fn a_file_that_others_can_read_is_warned_of() {
    let service = Service::start([get(json!({}))]);
    let home = Home::of(&service, "");
    assert!(!ok(&home.run(&["get"])).1.contains("chmod"));
    std::fs::set_permissions(home.file(), Permissions::from_mode(0o644)).unwrap();
    let (_, err) = ok(&home.run(&["get", "--quiet"]));
    assert!(
        err.contains(&format!("chmod 600 {}", home.file().display())),
        "{err}"
    );

    home.write("regoin = 'geheim'");
    let err = failed(&home.run(&["get"]), 1);
    assert!(
        err.contains("unknown key \"regoin\"; known are region, "),
        "{err}"
    );
}

#[test]
fn the_place_is_that_of_the_nearest_sign() {
    let service = Service::start([get(json!({}))]);
    let home = Home::of(&service, "");
    let elsewhere = home.path("other.toml");
    std::fs::rename(home.file(), &elsewhere).unwrap();

    // Without any sign it is a cluster, and there is none.
    let err = failed(&home.run(&["get"]), 1);
    assert!(err.contains("found no cluster"), "{err}");
    ok(&home.run(&["get", "--config", &elsewhere]));
    ok(&home
        .command(&["get"])
        .env("UIMGACC_CONFIG", &elsewhere)
        .output()
        .unwrap());
    let mut by_variables = home.command(&["get"]);
    by_variables
        .env("UIMGACC_BASE_URL", &service.url)
        .env("UIMGACC_PUBLIC_KEY", PUBLIC)
        .env("UIMGACC_PRIVATE_KEY", PRIVATE)
        .env("UIMGACC_CLUSTER_ID", CLUSTER);
    ok(&by_variables.output().unwrap());
    let asked = service.seen().len();
    assert_eq!(asked, 3);

    let mut store = home.command(&["get"]);
    store
        .env("UIMGACC_CONFIG", &elsewhere)
        .env("UIMGACC_STORE", "/nonexistent");
    assert!(failed(&store.output().unwrap(), 1).contains("/nonexistent"));
    let mut both = home.command(&["get", "--config", &elsewhere]);
    ok(&both.env("UIMGACC_STORE", "/nonexistent").output().unwrap());
    let mut cluster = home.command(&["disable", "--kubeconfig", "/nonexistent"]);
    let err = failed(
        &cluster.env("UIMGACC_CONFIG", &elsewhere).output().unwrap(),
        1,
    );
    assert!(err.contains("kubeconfig"), "{err}");
    for more in [["--store", "/x"], ["--context", "x"]] {
        let arguments = [["get", "--config", &elsewhere].as_slice(), &more].concat();
        assert!(failed(&home.run(&arguments), 1).contains("give one of them"));
    }
    assert_eq!(service.seen().len(), asked + 1);

    // A file that is named must be there.
    let err = failed(&home.run(&["get", "--config", "/nonexistent"]), 1);
    assert!(
        err.contains("/nonexistent") && err.contains("config init"),
        "{err}"
    );
    let err = failed(&home.run(&["get", "--cluster-id", "x"]), 1);
    assert!(err.contains("public_key is not set"), "{err}");
}
