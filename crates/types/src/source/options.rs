//! Options of an NFS mount: which there are, what they are where none is given, and what the
//! kernel is told in the end.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::SourceProblem;

/// A version of NFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NfsVersion {
    /// Version 3, with its helper protocols (rpcbind, mountd).
    V3,
    /// Version 4.0.
    V4_0,
    /// Version 4.1.
    V4_1,
    /// Version 4.2.
    V4_2,
}

impl NfsVersion {
    /// All of them, newest first: the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::V4_2, Self::V4_1, Self::V4_0, Self::V3];

    /// As the option `vers` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V3 => "3",
            Self::V4_0 => "4.0",
            Self::V4_1 => "4.1",
            Self::V4_2 => "4.2",
        }
    }
}

impl fmt::Display for NfsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One setting for the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountParameter {
    /// A word.
    Flag(String),
    /// A name and its value.
    Value(String, String),
}

/// What an option takes.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    Number { least: u32, most: u32 },
    OneOf(&'static [&'static str]),
    Address,
}

struct Known {
    name: &'static str,
    takes: Takes,
    /// What it is about: one source has at most one option of a group.
    group: &'static str,
    only_v3: bool,
}

const fn flag(name: &'static str, group: &'static str) -> Known {
    Known {
        name,
        takes: Takes::Nothing,
        group,
        only_v3: false,
    }
}

const fn number(name: &'static str, least: u32, most: u32) -> Known {
    Known {
        name,
        takes: Takes::Number { least, most },
        group: name,
        only_v3: false,
    }
}

const fn one_of(name: &'static str, values: &'static [&'static str]) -> Known {
    Known {
        name,
        takes: Takes::OneOf(values),
        group: name,
        only_v3: false,
    }
}

const fn v3(known: Known) -> Known {
    Known {
        only_v3: true,
        ..known
    }
}

const MAX_BYTES: u32 = 1 << 20;
const MAX_SECONDS: u32 = 365 * 24 * 3600;

/// What the kernel's client knows and a store can use (kernel: `fs/nfs/fs_context.c`).
const KNOWN: &[Known] = &[
    number("rsize", 4096, MAX_BYTES),
    number("wsize", 4096, MAX_BYTES),
    flag("hard", "hard"),
    flag("soft", "hard"),
    flag("softerr", "hard"),
    number("timeo", 1, 36_000),
    number("retrans", 0, 100),
    number("nconnect", 1, 16),
    number("max_connect", 1, 16),
    one_of("proto", &["tcp", "rdma"]),
    flag("resvport", "resvport"),
    flag("noresvport", "resvport"),
    flag("ac", "ac"),
    flag("noac", "ac"),
    number("acregmin", 0, MAX_SECONDS),
    number("acregmax", 0, MAX_SECONDS),
    number("acdirmin", 0, MAX_SECONDS),
    number("acdirmax", 0, MAX_SECONDS),
    number("actimeo", 0, MAX_SECONDS),
    flag("cto", "cto"),
    flag("nocto", "cto"),
    flag("rdirplus", "rdirplus"),
    flag("nordirplus", "rdirplus"),
    flag("sharecache", "sharecache"),
    flag("nosharecache", "sharecache"),
    flag("fsc", "fsc"),
    flag("nofsc", "fsc"),
    one_of("lookupcache", &["all", "none", "pos", "positive"]),
    one_of("local_lock", &["all", "flock", "posix", "none"]),
    one_of("sec", &["sys", "none", "krb5", "krb5i", "krb5p"]),
    v3(flag("lock", "lock")),
    v3(flag("nolock", "lock")),
    v3(flag("acl", "acl")),
    v3(flag("noacl", "acl")),
    v3(one_of("mountproto", &["tcp", "udp"])),
    v3(number("mountport", 1, 65_535)),
    v3(number("mountvers", 3, 3)),
    v3(Known {
        name: "mountaddr",
        takes: Takes::Address,
        group: "mountaddr",
        only_v3: false,
    }),
];

/// What is set where the source says nothing else: the options that UFS asks for, and that a file
/// which `create` has just written is found at once.
const DEFAULTS: &[&str] = &[
    "rsize=1048576",
    "wsize=1048576",
    "hard",
    "timeo=600",
    "retrans=2",
    "noresvport",
    "proto=tcp",
    "lookupcache=positive",
    "mountproto=tcp",
    "nolock",
    "noacl",
];

/// Options that people copy from an fstab, and why they do not belong here.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["rw"],
        "the daemon only reads the store, and mounts it read-only",
    ),
    (
        &["ro", "nosuid", "nodev", "noexec"],
        "the daemon always mounts so",
    ),
    (&["suid", "dev", "exec"], "the daemon never mounts so"),
    (
        &[
            "bg", "fg", "retry", "_netdev", "auto", "noauto", "nofail", "defaults",
        ],
        "it is for mount(8) and fstab, and the daemon tries again by itself",
    ),
    (
        &["addr", "clientaddr", "source", "port"],
        "the daemon sets it from the server's address (a port stands after the server: nfs://SERVER:PORT/PATH)",
    ),
    (&["udp", "tcp", "rdma"], "write proto=tcp or proto=rdma"),
    (
        &["minorversion", "v3", "v4", "v4.0", "v4.1", "v4.2"],
        "write vers=3, vers=4.0, vers=4.1 or vers=4.2",
    ),
];

/// The options of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NfsOptions {
    version: Option<NfsVersion>,
    /// As given, in that order.
    given: Vec<(&'static str, Option<String>)>,
}

impl NfsOptions {
    /// The version asked for; `None` for the newest that the server has.
    #[must_use]
    pub fn version(&self) -> Option<NfsVersion> {
        self.version
    }

    /// The versions to try, in this order.
    #[must_use]
    pub fn versions(&self) -> Vec<NfsVersion> {
        match self.version {
            Some(version) => vec![version],
            None => NfsVersion::ALL.to_vec(),
        }
    }

    /// All that the kernel is told but the source: these options, the defaults for the rest, and
    /// the addresses. `client` is this machine's address towards the server.
    #[must_use]
    pub fn parameters(
        &self,
        version: NfsVersion,
        server: IpAddr,
        port: u16,
        client: IpAddr,
    ) -> Vec<MountParameter> {
        let value = |name: &str, value: &str| MountParameter::Value(name.into(), value.into());
        let mut parameters = vec![
            value("vers", version.name()),
            value("addr", &server.to_string()),
        ];
        // Without one the client asks rpcbind (v3) or takes the standard port (v4): never ask.
        parameters.push(value("port", &port.to_string()));
        if version != NfsVersion::V3 {
            parameters.push(value("clientaddr", &client.to_string()));
        }
        let given = self
            .given
            .iter()
            .map(|(name, text)| (*name, text.as_deref()));
        let defaults = DEFAULTS.iter().filter_map(|text| {
            let (name, text) = split(text);
            let known = find(name)?;
            let set = |given: &(&str, Option<String>)| {
                find(given.0).is_some_and(|given| given.group == known.group)
            };
            (!self.given.iter().any(set)).then_some((known.name, text))
        });
        for (name, text) in defaults.chain(given) {
            if version != NfsVersion::V3 && find(name).is_some_and(|known| known.only_v3) {
                continue;
            }
            parameters.push(match (name, text) {
                (_, None) => MountParameter::Flag(name.to_owned()),
                // The kernel compares the protocol's family with the address's.
                ("proto" | "mountproto", Some(text)) if server.is_ipv6() => {
                    value(name, &format!("{text}6"))
                }
                (_, Some(text)) => value(name, text),
            });
        }
        parameters
    }
}

fn split(option: &str) -> (&str, Option<&str>) {
    match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    }
}

fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

impl FromStr for NfsOptions {
    type Err = SourceProblem;

    /// Parses options with `,` or `&` between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut options = Self::default();
        // Group and text of each option so far.
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for option in text.split([',', '&']).filter(|option| !option.is_empty()) {
            let (name, value) = split(option);
            let group = if matches!(name, "vers" | "nfsvers") {
                options.version = Some(parse_version(option, value)?);
                "vers"
            } else {
                let known = find(name).ok_or_else(|| unknown(option, name))?;
                check(option, value, known.takes)?;
                options.given.push((known.name, value.map(str::to_owned)));
                known.group
            };
            if let Some((_, first)) = seen.iter().find(|(known, _)| *known == group) {
                return Err(SourceProblem::Contradiction {
                    first: (*first).to_owned(),
                    second: option.to_owned(),
                });
            }
            seen.push((group, option));
        }
        if let Some(version) = options.version.filter(|version| *version != NfsVersion::V3) {
            let only_v3 = |(name, _): &&(&str, _)| find(name).is_some_and(|known| known.only_v3);
            // UFS gives people one line for both versions, so words that v4 has no use for pass.
            let told = |(name, _): &&(&str, Option<String>)| {
                matches!(*name, "mountport" | "mountaddr" | "mountvers")
            };
            if let Some((name, _)) = options.given.iter().filter(only_v3).find(told) {
                return Err(SourceProblem::NotInVersion {
                    option: (*name).to_owned(),
                    version,
                });
            }
        }
        Ok(options)
    }
}

fn unknown(option: &str, name: &str) -> SourceProblem {
    let refused = REFUSED.iter().find(|(names, _)| names.contains(&name));
    match refused {
        Some((_, reason)) => SourceProblem::RefusedOption {
            option: option.to_owned(),
            reason,
        },
        None => SourceProblem::UnknownOption(option.to_owned()),
    }
}

fn parse_version(option: &str, value: Option<&str>) -> Result<NfsVersion, SourceProblem> {
    let known = NfsVersion::ALL.into_iter();
    known
        .into_iter()
        .find(|version| Some(version.name()) == value)
        .ok_or_else(|| SourceProblem::OptionValue {
            option: option.to_owned(),
            needs: "one of 3, 4.0, 4.1 and 4.2",
        })
}

fn check(option: &str, value: Option<&str>, takes: Takes) -> Result<(), SourceProblem> {
    let failed = |needs| {
        Err(SourceProblem::OptionValue {
            option: option.to_owned(),
            needs,
        })
    };
    match (takes, value) {
        (Takes::Nothing, None) => Ok(()),
        (Takes::Nothing, Some(_)) => failed("no value"),
        (Takes::Number { least, most }, value) => {
            // `parse` would take "+1".
            let digits = value.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            match digits.and_then(|digits| digits.parse::<u32>().ok()) {
                Some(found) if (least..=most).contains(&found) => Ok(()),
                _ => failed("a number in its range, see nfs(5)"),
            }
        }
        (Takes::OneOf(values), value) => match value {
            Some(value) if values.contains(&value) => Ok(()),
            _ => failed("one of its values, see nfs(5)"),
        },
        (Takes::Address, value) => match value.map(str::parse::<IpAddr>) {
            Some(Ok(_)) => Ok(()),
            _ => failed("an IP address"),
        },
    }
}

impl fmt::Display for NfsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.map(|version| format!("vers={version}"));
        let given = self.given.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => (*name).to_owned(),
        });
        let all: Vec<String> = version.into_iter().chain(given).collect();
        f.write_str(&all.join(","))
    }
}
