//! Where the time of a Pod's start goes, by the times in containerd's own log. Pure.

use anyhow::Context as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What begins with each of these messages of containerd, in their order.
const MARKS: [(&str, &str); 8] = [
    ("sandbox", "RunPodSandbox for "),
    ("kubelet, to the pull", "returns sandbox id"),
    ("pull", "msg=\"PullImage "),
    ("kubelet, to the container", "returns image reference"),
    (
        "create the container",
        "msg=\"CreateContainer within sandbox ",
    ),
    ("kubelet, to its start", "returns container id"),
    ("start the container", "msg=\"StartContainer for "),
    ("program, to its first line", "returns successfully"),
];
/// What comes before the first of them.
const FIRST: &str = "kubectl, scheduler, kubelet";

/// The names of all phases, in their order.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(FIRST).chain(MARKS.iter().map(|(name, _)| *name))
}

/// The lengths of all phases of the start of `pod`, which was asked for at `begun` and had said something at `ended`. `log` is what
/// containerd has logged from then on.
pub(super) fn phases(
    log: &str,
    pod: &str,
    begun: OffsetDateTime,
    ended: OffsetDateTime,
) -> anyhow::Result<Vec<time::Duration>> {
    let mut lines = log.lines();
    let mut times = vec![begun];
    // To 2.1, and from 2.4 on.
    let sandbox = [
        format!("PodSandboxMetadata{{Name:{pod},"),
        format!(r#" name:\"{pod}\" "#),
    ];
    for (place, (_, message)) in MARKS.iter().enumerate() {
        let line = lines
            .find(|line| {
                line.contains(message)
                    && (place > 0 || sandbox.iter().any(|sandbox| line.contains(sandbox)))
            })
            .with_context(|| format!("containerd has not logged {message:?} for {pod}"))?;
        times.push(logged_at(line)?);
    }
    times.push(ended);
    Ok(times.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

/// The time of a line of containerd's log: `time="2026-11-25T15:02:14.123456789Z" level=...`.
fn logged_at(line: &str) -> anyhow::Result<OffsetDateTime> {
    let text = line
        .split_once("time=\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(text, _)| text)
        .with_context(|| format!("no time in {line:?}"))?;
    OffsetDateTime::parse(text, &Rfc3339).with_context(|| format!("{text:?} is no time"))
}

/// Time and text of the first whole line of a container's log, as CRI has it: `2026-11-25T15:02:14.123456789Z stdout F text`.
pub(super) fn first_line(log: &str) -> Option<(OffsetDateTime, String)> {
    let (line, _) = log.split_once('\n')?;
    let mut words = line.splitn(4, ' ');
    let at = OffsetDateTime::parse(words.next()?, &Rfc3339).ok()?;
    Some((at, words.nth(2)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"time="2026-11-25T15:00:00.500000000Z" level=info msg="StartContainer for \"old\" returns successfully"
time="2026-11-25T15:00:01.000000000Z" level=info msg="RunPodSandbox for &PodSandboxMetadata{Name:b-1,Uid:u,Namespace:default,Attempt:0,}"
time="2026-11-25T15:00:01.200000000Z" level=info msg="RunPodSandbox for &PodSandboxMetadata{Name:b-1,Uid:u,Namespace:default,Attempt:0,} returns sandbox id \"s\""
time="2026-11-25T15:00:01.250000000Z" level=info msg="PullImage \"r/ml:1\""
time="2026-11-25T15:00:01.350000000Z" level=info msg="PullImage \"r/ml:1\" returns image reference \"sha256:0\""
time="2026-11-25T15:00:01.400000000Z" level=info msg="CreateContainer within sandbox \"s\" for container &ContainerMetadata{Name:main,Attempt:0,}"
time="2026-11-25T15:00:01.450000000Z" level=info msg="CreateContainer within sandbox \"s\" for &ContainerMetadata{Name:main,Attempt:0,} returns container id \"c\""
time="2026-11-25T15:00:01.460000000Z" level=info msg="StartContainer for \"c\""
time="2026-11-25T15:00:01.560000000Z" level=info msg="StartContainer for \"c\" returns successfully"
"#;

    fn at(text: &str) -> OffsetDateTime {
        OffsetDateTime::parse(text, &Rfc3339).unwrap()
    }

    #[test]
    fn phases_of_a_start() {
        let (begun, ended) = (at("2026-11-25T15:00:00.4Z"), at("2026-11-25T15:00:03.560Z"));
        let found = phases(LOG, "b-1", begun, ended).unwrap();
        let milliseconds: Vec<_> = found.iter().map(|one| one.whole_milliseconds()).collect();
        assert_eq!(milliseconds, [600, 200, 50, 100, 50, 50, 10, 100, 2000]);
        assert_eq!(found.len(), names().count());
        assert!(phases(LOG, "b-2", begun, ended).is_err());
        let newer = LOG.replace("&PodSandboxMetadata{Name:b-1,", r#"name:\"b-1\" "#);
        assert_eq!(phases(&newer, "b-1", begun, ended).unwrap(), found);
    }

    #[test]
    fn first_line_of_a_container() {
        assert_eq!(first_line("2026-11-25T15:00:00.4Z stdout F rea"), None);
        let (time, text) = first_line("2026-11-25T15:00:00.4Z stdout F ready: 42\nmore").unwrap();
        assert_eq!(
            (time, text.as_str()),
            (at("2026-11-25T15:00:00.4Z"), "ready: 42")
        );
    }
}
