//! Images read from end to end, against the packs themselves over the same link.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use uimgacc_console::Printer;

use crate::interrupt::Interrupt;
use crate::prepared::Prepared;
use crate::start::link;
use crate::start::node::{Node, Side, drop_caches, read_all};

/// What `cat` reads at once.
const BUFFER_BYTES: usize = 128 << 10;
/// Files from this size on are read by themselves, too.
const LARGE_BYTES: u64 = 1 << 30;
/// Prints the seconds that it took to read a file.
const BY_READ: &str = "\
import sys, time
at = time.monotonic()
with open(sys.argv[1], 'rb', 0) as file:
    buffer = bytearray(1 << 20)
    while file.readinto(buffer): pass
print(time.monotonic() - at)";
/// The same by touching each page of a mapping.
const BY_MMAP: &str = "\
import mmap, sys, time
at = time.monotonic()
with open(sys.argv[1], 'rb') as file:
    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for page in range(0, len(pages), mmap.PAGESIZE): pages[page]
print(time.monotonic() - at)";

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// An OCI layout of an image with Python; may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    image: Vec<PathBuf>,
    /// Links to measure, by name
    #[arg(long, value_delimiter = ',', default_value = "local,100MB")]
    links: Vec<String>,
}

/// What is read.
enum What {
    Packs,
    Image,
    /// The same files on the local disk, as a pull would leave them.
    Unpacked(PathBuf),
    File(&'static str, &'static str, PathBuf),
}

impl What {
    fn name(&self) -> String {
        match self {
            Self::Packs => "packs".to_owned(),
            Self::Image => "image".to_owned(),
            Self::Unpacked(_) => "image unpacked on the disk".to_owned(),
            Self::File(way, _, path) => format!("/{} by {way}", path.display()),
        }
    }
}

pub(crate) fn run(
    options: &Options,
    programs: &Path,
    rounds: u32,
    interrupt: &Interrupt,
    printer: Printer,
) -> anyhow::Result<()> {
    printer.data(&format!(
        "{:<10} {:<32} {:>9} {:>8} {:>8}",
        "link", "what", "MB", "MB/s", "of packs"
    ))?;
    for layout in &options.image {
        let image = Prepared::new(layout, programs, printer)?;
        for name in &options.links {
            let node = Node {
                programs,
                store: &image.store,
                link: link(name)?,
                side: Side::Store,
                daemon: &[],
                record: false,
            };
            measure(&node, &image, name, rounds, interrupt, printer)?;
        }
    }
    Ok(())
}

/// In turns, on one node.
fn measure(
    node: &Node<'_>,
    image: &Prepared,
    link: &str,
    rounds: u32,
    interrupt: &Interrupt,
    printer: Printer,
) -> anyhow::Result<()> {
    let running = node.boot(&image.registry)?;
    running.pull("uimgacc", &image.target)?;
    running.run_detached("uimgacc", &image.target, "");
    // Read-ahead is large from then on.
    running.wait_for("servingMs")?;
    let mount = running.mount()?;
    let mut all = vec![What::Packs, What::Image];
    if node.link.is_none() {
        let copy = image.directory.path().join("unpacked");
        copy_tree(&mount, &copy)?;
        all.push(What::Unpacked(copy));
    }
    for file in large_files(&mount)? {
        let file = file.strip_prefix(&mount)?.to_owned();
        all.push(What::File("read", BY_READ, file.clone()));
        all.push(What::File("mmap", BY_MMAP, file));
    }
    let mut rates = vec![Vec::new(); all.len()];
    for _ in 0..rounds {
        for (what, rates) in all.iter().zip(&mut rates) {
            interrupt.check()?;
            drop_caches()?;
            if node.link.is_some() {
                read_all(&node.store.join("packs"))?;
            }
            let (bytes, took) = match what {
                What::Packs => read_tree(&running.store.join("packs"))?,
                What::Image => read_tree(&mount)?,
                What::Unpacked(copy) => read_tree(copy)?,
                What::File(_, program, path) => {
                    let argument = Path::new("/").join(path);
                    let argument = argument.to_str().context("a path of UTF-8")?;
                    let exec = ["tasks", "exec", "--exec-id", "one", "zero"];
                    let what = ["python3", "-c", program, argument];
                    let printed = running.containerd.ctr_ok(&[&exec[..], &what].concat());
                    let took = Duration::from_secs_f64(printed.trim().parse()?);
                    (fs::metadata(mount.join(path))?.len(), took)
                }
            };
            rates.push((bytes, bytes as f64 / took.as_secs_f64() / 1e6));
        }
    }
    let mut packs = None;
    for (what, mut rates) in all.iter().zip(rates) {
        rates.sort_by(|one, other| one.1.total_cmp(&other.1));
        let (bytes, rate) = *rates.get(rates.len() / 2).context("no rounds")?;
        let of_packs = rate / *packs.get_or_insert(rate);
        printer.data(&format!(
            "{link:<10} {:<32} {:>9} {rate:>8.0} {of_packs:>8.2}",
            what.name(),
            bytes / 1_000_000
        ))?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = Command::new("cp")
        .arg("--archive")
        .args([from, to])
        .status()?;
    anyhow::ensure!(copied.success(), "cp ended with {copied}");
    Ok(())
}

/// All regular files, one after the other, as `cat` does it.
fn read_tree(root: &Path) -> anyhow::Result<(u64, Duration)> {
    let at = Instant::now();
    let files = files(root)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    for file in &files {
        let mut file = File::open(file)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => bytes += read as u64,
            }
        }
    }
    Ok((bytes, at.elapsed()))
}

/// In the order of a walk; hard links once.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![root.to_owned()]);
    let mut seen = std::collections::HashSet::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && seen.insert(entry.metadata()?.ino()) {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

fn large_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = files(root)?;
    files.retain(|file| fs::metadata(file).is_ok_and(|file| file.len() >= LARGE_BYTES));
    Ok(files)
}
