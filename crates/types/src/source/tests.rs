use proptest::prelude::*;

use super::*;

fn nfs(text: &str) -> NfsSource {
    match text.parse() {
        Ok(StoreSource::Nfs(source)) => source,
        other => panic!("{text}: {other:?}"),
    }
}

fn problem(text: &str) -> SourceProblem {
    text.parse::<StoreSource>().expect_err(text).problem
}

/// The kernel's parameters as mount(8) would write them.
fn told(text: &str, version: NfsVersion, server: &str, client: &str) -> String {
    let server: IpAddr = server.parse().unwrap();
    let words = nfs(text)
        .options()
        .parameters(version, server, 2049, client.parse().unwrap());
    let words = words.into_iter().map(|word| match word {
        MountParameter::Flag(name) => name,
        MountParameter::Value(name, value) => format!("{name}={value}"),
    });
    words.collect::<Vec<_>>().join(",")
}

#[test]
fn folders_and_exports() {
    assert_eq!(
        "/mnt/a b".parse(),
        Ok(StoreSource::Folder("/mnt/a b".into()))
    );
    let source = nfs("nfs://NAS.example,10.0.0.2:2050,[fd00::1]:1,[::1]/exp%20ort/a?vers=4.1&soft");
    assert_eq!(source.path(), "/exp ort/a");
    assert_eq!(source.options().version(), Some(NfsVersion::V4_1));
    let servers: Vec<(String, u16)> = source
        .servers()
        .iter()
        .map(|server| (server.host.to_string(), server.port()))
        .collect();
    let expected = [
        ("nas.example", 2049),
        ("10.0.0.2", 2050),
        ("[fd00::1]", 1),
        ("[::1]", 2049),
    ];
    assert_eq!(
        servers,
        expected.map(|(host, port)| (host.to_owned(), port))
    );
    assert_eq!(
        source.kernel_source(&source.servers()[2]),
        "[fd00::1]:/exp ort/a"
    );
    assert_eq!(nfs("nfs://a/").path(), "/");
    assert_eq!(
        source.to_string(),
        "nfs://nas.example,10.0.0.2:2050,[fd00::1]:1,[::1]/exp ort/a?vers=4.1,soft"
    );
}

#[test]
fn what_is_refused() {
    for text in ["cephfs://a/b", "http://a/"] {
        assert_eq!(problem(text), SourceProblem::Scheme, "{text}");
    }
    for text in ["store", "10.0.0.1:/", "./a"] {
        assert_eq!(problem(text), SourceProblem::Relative, "{text}");
    }
    assert_eq!(problem(""), SourceProblem::Empty);
    assert_eq!(problem("nfs://"), SourceProblem::NoServer);
    assert_eq!(problem("nfs:///path"), SourceProblem::NoServer);
    assert_eq!(problem("nfs://host"), SourceProblem::NoPath);
    for server in [
        "a:0",
        "a:65536",
        "a:+1",
        "a:",
        "10.0.0.256",
        "10.0.0",
        "-a",
        "a..b",
        "::1",
        "[::1",
        "[::1]2",
        "[::]",
        "0.0.0.0",
        "a b",
        "[fe80::1%eth0]",
        "a,",
    ] {
        let text = format!("nfs://{server}/p");
        assert!(matches!(problem(&text), SourceProblem::Server(_)), "{text}");
    }
    for path in [
        "/%", "/%0", "/%zz", "/%00", "/#a", "/a/../b", "/%2e%2e", "/%ff",
    ] {
        assert_eq!(
            problem(&format!("nfs://a{path}")),
            SourceProblem::Path,
            "{path}"
        );
    }
    assert_eq!(
        problem("nfs://a,A:2049/p"),
        SourceProblem::SameServer("a:2049".into())
    );
    assert_eq!(
        problem(&format!("nfs://a/{}", "p".repeat(253))),
        SourceProblem::TooLong
    );
    let many: Vec<String> = (0..17).map(|number| format!("10.0.0.{number}")).collect();
    assert_eq!(
        problem(&format!("nfs://x{}/", many.join(",x"))),
        SourceProblem::Server("x10.0.0.0".into())
    );
    assert_eq!(
        problem(&format!("nfs://1{}/", many.join(",1"))),
        SourceProblem::TooManyServers
    );
}

#[test]
fn options_are_checked() {
    for (option, part) in [
        ("rw", "read-only"),
        ("ro", "always mounts so"),
        ("_netdev", "fstab"),
        ("port=2050", "nfs://SERVER:PORT/PATH"),
        ("vers=4", "one of 3, 4.0, 4.1 and 4.2"),
        ("nfsvers=2", "one of 3, 4.0, 4.1 and 4.2"),
        ("vers", "one of 3"),
        ("rsiez=1", "is not known"),
        ("rsize=1", "range"),
        ("rsize", "range"),
        ("rsize=+4096", "range"),
        ("hard=1", "no value"),
        ("proto=udp", "one of its values"),
        ("mountaddr=host", "an IP address"),
        ("hard,soft", "say two things"),
        ("vers=3,nfsvers=3", "say two things"),
        ("nolock,nolock", "say two things"),
        ("vers=4.2,mountport=20048", "NFSv3 only"),
    ] {
        let text = format!("nfs://a/?{option}");
        let error = text.parse::<StoreSource>().expect_err(option);
        assert!(error.to_string().contains(part), "{option}: {error}");
    }
    // The lines of UFS' own guide.
    let guide = "rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport";
    for more in [
        "nfsvers=3,proto=tcp,mountproto=tcp,nolock,noacl",
        "vers=4.0,nolock",
        "",
    ] {
        nfs(&format!("nfs://a/?{guide},{more}"));
    }
}

#[test]
fn what_the_kernel_is_told() {
    let common = "rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport";
    assert_eq!(
        told("nfs://a/", NfsVersion::V4_0, "10.0.0.1", "10.0.0.9"),
        format!(
            "vers=4.0,addr=10.0.0.1,port=2049,clientaddr=10.0.0.9,{common},proto=tcp,lookupcache=positive"
        )
    );
    assert_eq!(
        told("nfs://a/", NfsVersion::V3, "fd00::1", "fd00::9"),
        format!(
            "vers=3,addr=fd00::1,port=2049,{common},proto=tcp6,lookupcache=positive,mountproto=tcp6,nolock,noacl"
        )
    );
    assert_eq!(
        told(
            "nfs://a/?soft,rsize=65536,acl,lock",
            NfsVersion::V3,
            "10.0.0.1",
            "10.0.0.9"
        ),
        "vers=3,addr=10.0.0.1,port=2049,wsize=1048576,timeo=600,retrans=2,noresvport,proto=tcp,\
         lookupcache=positive,mountproto=tcp,soft,rsize=65536,acl,lock"
    );
    assert!(!told("nfs://a/?nolock", NfsVersion::V4_2, "10.0.0.1", "10.0.0.9").contains("lock,"));
}

#[test]
fn several_addresses_of_one_store() {
    let all = StoreSource::parse_all(&["nfs://a,b/p?vers=3", "nfs://c/p?nfsvers=3"]).unwrap();
    assert_eq!(all.to_string(), "nfs://a,b,c/p?vers=3");
    let refused = |texts: &[&str]| StoreSource::parse_all(texts).unwrap_err().problem;
    let not_one = |texts: &[&str]| matches!(refused(texts), SourceProblem::NotOneStore { .. });
    assert!(not_one(&["nfs://a/p", "nfs://b/q"]));
    assert!(not_one(&["nfs://a/p", "nfs://b/p?soft"]));
    assert_eq!(
        refused(&["/a", "nfs://b/p"]),
        SourceProblem::FolderAmongMany
    );
    assert_eq!(
        refused(&["nfs://b/p", "/a"]),
        SourceProblem::FolderAmongMany
    );
    assert_eq!(
        refused(&["nfs://b/p", "nfs://b/p"]),
        SourceProblem::SameServer("b".into())
    );
    assert_eq!(refused(&[]), SourceProblem::Empty);
}

fn any_server() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?(\\.[a-z]{2,5})?",
        any::<std::net::Ipv4Addr>()
            .prop_filter("no server", |address| !address.is_unspecified())
            .prop_map(|address| address.to_string()),
        any::<Ipv6Addr>()
            .prop_filter("no server", |address| !address.is_unspecified())
            .prop_map(|address| format!("[{address}]")),
    ];
    (host, proptest::option::of(1..=u16::MAX)).prop_map(|(host, port)| match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    })
}

fn any_options() -> impl Strategy<Value = String> {
    let words = [
        "vers=3",
        "rsize=4096",
        "soft",
        "hard",
        "timeo=7",
        "nconnect=4",
        "noac",
        "nocto",
        "sec=sys",
        "noresvport",
        "mountport=20048",
        "mountaddr=10.0.0.1",
        "lookupcache=none",
        "fsc",
    ];
    proptest::sample::subsequence(words.to_vec(), 0..words.len())
        .prop_filter("contradiction", |words| {
            !(words.contains(&"soft") && words.contains(&"hard"))
        })
        .prop_map(|words| words.join(","))
}

proptest! {
    /// Whatever is written in any of its forms is understood, and its own form means the same.
    #[test]
    fn the_printed_form_means_the_same(
        servers in proptest::collection::hash_set(any_server(), 1..5),
        path in "(/[a-zA-Z0-9 %?#.,&ü-]{1,9}){0,4}/?",
        options in any_options(),
    ) {
        prop_assume!(!path.split('/').any(|part| part == ".."));
        let servers: Vec<String> = servers.into_iter().collect();
        let encoded: String = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let text = format!("nfs://{}/{encoded}?{options}", servers.join(","));
        let Ok(source) = text.parse::<StoreSource>() else {
            // Only the same server twice, in two spellings.
            let same = matches!(problem(&text), SourceProblem::SameServer(_));
            prop_assert!(same, "{}", text);
            return Ok(());
        };
        let StoreSource::Nfs(nfs) = &source else { panic!("{text}") };
        prop_assert_eq!(nfs.path(), format!("/{path}"));
        prop_assert_eq!(nfs.servers().len(), servers.len());
        prop_assert_eq!(source.to_string().parse::<StoreSource>(), Ok(source));
    }

    /// No text makes it panic, and what it takes keeps its promises.
    #[test]
    fn any_text_is_taken_or_refused(text in "(nfs://)?[a-c0-9:,.\\[\\]/?%=&#~-]{0,40}|\\PC{0,40}") {
        if let Ok(source) = text.parse::<StoreSource>() {
            prop_assert_eq!(source.to_string().parse::<StoreSource>(), Ok(source.clone()));
            match source {
                StoreSource::Folder(path) => prop_assert!(path.is_absolute()),
                StoreSource::Nfs(nfs) => {
                    prop_assert!(nfs.path().starts_with('/'));
                    prop_assert!(!nfs.servers().is_empty());
                    for version in nfs.options().versions() {
                        let told = nfs.options().parameters(version, [10, 0, 0, 1].into(), 1, [10, 0, 0, 2].into());
                        let mut names: Vec<&str> = told.iter().map(|word| match word {
                            MountParameter::Flag(name) | MountParameter::Value(name, _) => name.as_str(),
                        }).collect();
                        let count = names.len();
                        names.sort_unstable();
                        names.dedup();
                        prop_assert_eq!(names.len(), count, "something is told twice");
                    }
                }
            }
        }
    }
}
