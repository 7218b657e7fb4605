//! `GetUK8SImageAccelerate` at a fixed rate against many clusters: a control plane each, with images, and one server in front.
//!
//! Requests are sent when they are due whatever became of those before, and measured from that time on; so a server that falls behind
//! shows. Beside it, in the same run: the same question put to a cluster itself, as a server without a mirror would.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use uimgacc_api::Parameters;
use uimgacc_api::signature::{SIGNATURE, is_signed_by, sign};
use uimgacc_testkit::cluster::{Cluster, Options as ClusterOptions};
use uimgacc_testkit::{ApiServer, agent_status};

use crate::interrupt::Interrupt;
use crate::samples::Samples;
use crate::show::{Show, megabytes};

/// Requests that can be under way at once.
const WORKERS: usize = 200;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Control planes behind the server
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=30))]
    clusters: u32,
    /// Images in each
    #[arg(long, default_value_t = 20)]
    images: u32,
    /// Requests a second
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// How long
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

pub(crate) fn run(options: &Options, programs: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
    let show = Show::new();
    show.heading(&format!("{} control planes", options.clusters))?;
    let control = ClusterOptions::control_plane().without_controllers();
    let clusters: Vec<Cluster> = show.task("etcd and kube-apiserver each", || {
        (0..options.clusters)
            .map(|_| {
                interrupt.check()?;
                Ok(Cluster::start(&control))
            })
            .collect()
    })?;
    let server = ApiServer::start(&programs.join("uimgacc-api"), &config(&clusters), &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    show.task("enabled, with images", || {
        for (number, cluster) in clusters.iter().enumerate() {
            interrupt.check()?;
            let enable = request("EnableUK8SImageAccelerate", number, false);
            let (answer, _) = runtime.block_on(one(&server, &enable))?;
            anyhow::ensure!(answer.contains("\"RetCode\":0"), "{answer}");
            agent_status::ready(cluster);
            cluster.apply(&images(options.images));
        }
        Ok(())
    })?;

    show.heading(&format!(
        "{} Get requests a second for {} s, each to the next of {} clusters with {} images",
        options.rate, options.seconds, options.clusters, options.images
    ))?;
    show.row(
        "",
        &["p50", "p99", "longest", "processor"].map(str::to_owned),
    )?;
    for keeps in [true, false] {
        let before = processor(&server)?;
        let began = Instant::now();
        let samples = runtime.block_on(load(&server, options, keeps))?;
        let share = (processor(&server)? - before).as_secs_f64() / began.elapsed().as_secs_f64();
        let name = if keeps {
            "connections that are kept"
        } else {
            "a connection for each request"
        };
        let millis = |percent| format!("{:.2} ms", samples.percentile(percent).as_secs_f64() * 1e3);
        let columns = [
            millis(50),
            millis(99),
            millis(100),
            format!("{:.2} cores", share),
        ];
        show.row(name, &columns)?;
        interrupt.check()?;
    }
    let (now, most) = server.memory();
    show.line(&format!(
        "  memory of the server: {}, at most {}",
        megabytes(now),
        megabytes(most)
    ))?;
    let Some(first) = clusters.first() else {
        return Ok(());
    };
    let asked = runtime.block_on(direct(first))?;
    show.line(&format!(
        "  the cluster itself, one question after the other: {}",
        asked.text()
    ))?;
    wrong_signatures(show)
}

/// How long a wrong signature takes to be refused, by where it differs; in turns, so that whatever else goes on meets each alike.
fn wrong_signatures(show: Show) -> anyhow::Result<()> {
    show.heading(
        "A wrong signature, by where it differs from the right one (100,000 rounds, in turns)",
    )?;
    let mut right = parameters("GetUK8SImageAccelerate", 0);
    let signature = sign(&right, "private");
    right.add(SIGNATURE.to_owned(), signature.clone())?;
    let places = [0, 20, 39];
    let wrong = places.map(|place| {
        let mut all = parameters("GetUK8SImageAccelerate", 0);
        let mut bytes = signature.clone().into_bytes();
        if let Some(byte) = bytes.get_mut(place) {
            *byte = if *byte == b'0' { b'1' } else { b'0' };
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = all.add(SIGNATURE.to_owned(), text);
        all
    });
    let mut samples = [(); 3].map(|()| Samples::default());
    for _ in 0..100_000 {
        for (wrong, samples) in wrong.iter().zip(&mut samples) {
            let began = std::time::Instant::now();
            anyhow::ensure!(
                !std::hint::black_box(is_signed_by(wrong, "private")),
                "a wrong signature holds"
            );
            samples.add(began.elapsed());
        }
    }
    for (place, samples) in places.iter().zip(&samples) {
        let nanos = |percent| format!("{} ns", samples.percentile(percent).as_nanos());
        show.row(
            &format!("character {}", place + 1),
            &[nanos(10), nanos(50), nanos(90)],
        )?;
    }
    Ok(())
}

fn config(clusters: &[Cluster]) -> String {
    let mut config = String::from(
        "[limits]\nrequests_per_second = 1000000\n\
         [[keys]]\npublic_key = \"bench\"\nprivate_key = \"private\"\nprojects = { org = \"write\" }\n",
    );
    for (number, cluster) in clusters.iter().enumerate() {
        config.push_str(&format!(
            "[[clusters]]\nid = \"{number}\"\nproject = \"org\"\nkubeconfig = {:?}\n\
             enable = {{ host_path = \"/mnt/store\" }}\n",
            cluster.kubeconfig().display().to_string()
        ));
    }
    config
}

fn images(count: u32) -> String {
    (0..count)
        .map(|number| {
            format!(
                "---\napiVersion: uimgacc.io/v1\nkind: AcceleratedImage\nmetadata: {{name: image-{number}}}\n\
                 spec: {{originalImage: 'r.example/team/app-{number}:1', targetImage: 'r.example/team/app-{number}:fast'}}\n"
            )
        })
        .collect()
}

fn parameters(action: &str, cluster: usize) -> Parameters {
    let mut parameters = Parameters::default();
    for (key, value) in [
        ("Action", action),
        ("ClusterId", &cluster.to_string()),
        ("ProjectId", "org"),
        ("PublicKey", "bench"),
        ("Region", "cn-bj2"),
    ] {
        // Keys that are all different.
        let _ = parameters.add(key.to_owned(), value.to_owned());
    }
    parameters
}

/// A signed request as bytes.
fn request(action: &str, cluster: usize, keeps: bool) -> Vec<u8> {
    let parameters = parameters(action, cluster);
    let signature = sign(&parameters, "private");
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters.iter())
        .append_pair(SIGNATURE, &signature)
        .finish();
    let keeps = if keeps { "keep-alive" } else { "close" };
    format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: {keeps}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn one(server: &ApiServer, request: &[u8]) -> anyhow::Result<(String, TcpStream)> {
    let stream = TcpStream::connect(server.address()).await?;
    stream.set_nodelay(true)?;
    ask(stream, request).await
}

/// Sends a request and reads its answer, whose length its head tells.
async fn ask(mut stream: TcpStream, request: &[u8]) -> anyhow::Result<(String, TcpStream)> {
    stream.write_all(request).await?;
    let mut all = Vec::with_capacity(8 << 10);
    loop {
        let read = stream.read_buf(&mut all).await?;
        anyhow::ensure!(read > 0, "the server closed the connection");
        let text = String::from_utf8_lossy(&all);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, length)| length.parse::<usize>().ok());
        if length == Some(body.len()) {
            return Ok((body.to_owned(), stream));
        }
    }
}

async fn load(server: &ApiServer, options: &Options, keeps: bool) -> anyhow::Result<Samples> {
    let total = usize::try_from(options.rate * options.seconds)?;
    let clusters = usize::try_from(options.clusters)?;
    let requests: Vec<Vec<u8>> = (0..clusters)
        .map(|cluster| request("GetUK8SImageAccelerate", cluster, keeps))
        .collect();
    let begin = Instant::now() + Duration::from_millis(100);
    let period = Duration::from_secs(1) / options.rate;
    let address: std::net::SocketAddr = server.address().parse()?;
    let work = (0..WORKERS).map(|worker| {
        let requests = requests.clone();
        tokio::spawn(async move {
            let mut kept: Option<TcpStream> = None;
            let mut took = Vec::new();
            for number in (worker..total).step_by(WORKERS) {
                let due = begin + period * u32::try_from(number)?;
                sleep_until(due).await;
                let stream = match kept.take() {
                    Some(stream) => stream,
                    None => TcpStream::connect(address).await?,
                };
                stream.set_nodelay(true)?;
                let (answer, stream) = ask(stream, &requests[number % clusters]).await?;
                took.push(due.elapsed());
                anyhow::ensure!(answer.contains("\"Status\":\"Creating\""), "{answer}");
                kept = keeps.then_some(stream);
            }
            Ok::<_, anyhow::Error>(took)
        })
    });
    let mut samples = Samples::default();
    for worker in work.collect::<Vec<_>>() {
        for took in worker.await?? {
            samples.add(took);
        }
    }
    Ok(samples)
}

/// Time of processors that the server has had.
fn processor(server: &ApiServer) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid()))?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    // proc_pid_stat(5): utime and stime are fields 14 and 15, in hundredths of a second.
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// What a server without a mirror would ask of the cluster for each request.
async fn direct(cluster: &Cluster) -> anyhow::Result<Samples> {
    let connect = uimgacc_control::Connect {
        kubeconfig: Some(cluster.kubeconfig()),
        context: None,
    };
    let asked = uimgacc_control::Cluster::connect(&connect).await?;
    let mut samples = Samples::default();
    for _ in 0..100 {
        let began = std::time::Instant::now();
        asked.get(None).await?;
        samples.add(began.elapsed());
    }
    Ok(samples)
}
