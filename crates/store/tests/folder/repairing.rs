//! What is damaged is found, and comes back byte for byte.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use uimgacc_store::{
    Repair, Repairs, Session, StoreReader, SweepOptions, VerifyOptions, delete, sweep, verify,
};
use uimgacc_types::DiffId;

use crate::support::{add_image, add_layers, assert_clean, diff_id, new_store};

/// The contents of each layer, as a registry has them.
type Layers = BTreeMap<DiffId, Vec<Vec<u8>>>;

fn content(seed: u8, len_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; len_bytes];
    let mut reader = blake3::Hasher::new().update(&[seed]).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

/// A store of three images that share contents, of one that went, and the layers of the three.
fn filled_store() -> (tempfile::TempDir, StoreReader, Layers) {
    let (directory, store) = new_store();
    let contents: Vec<Vec<u8>> = (0u8..)
        .zip([5000, 4096, 3 << 20, 70_000, 1, 9000, 1 << 20, 300_000])
        .map(|(seed, len_bytes)| content(seed, len_bytes))
        .collect();
    let of = |numbers: &[usize]| -> Vec<&[u8]> {
        numbers
            .iter()
            .map(|one| contents[*one].as_slice())
            .collect()
    };
    // The first layer of `old` shares its pack with nothing: parts of that pack are given back.
    add_layers(&store, "example.com/old:1", &[of(&[0, 6, 7])]);
    let images = [
        ("example.com/a:1", vec![of(&[0, 1]), of(&[2, 3])]),
        ("example.com/b:1", vec![of(&[0, 1]), of(&[4, 5, 1])]),
        ("example.com/c:1", vec![of(&[2, 5])]),
    ];
    let mut layers = Layers::new();
    for (target, of_image) in &images {
        add_layers(&store, target, of_image);
        for files in of_image {
            let files: Vec<Vec<u8>> = files.iter().map(|file| file.to_vec()).collect();
            layers.insert(diff_id(&files.concat()), files);
        }
    }
    delete(&store, "example.com/old:1", false).unwrap();
    assert!(sweep(&store, &everything()).unwrap().dead[0].is_freed());
    assert_clean(&store);
    (directory, store, layers)
}

fn everything() -> SweepOptions {
    SweepOptions {
        all: true,
        ..SweepOptions::default()
    }
}

/// What `store repair` does, with a registry that has these layers.
fn repair(store: &StoreReader, layers: &Layers) -> Repairs {
    let repair = Repair::begin(store, &mut |_| {}).unwrap();
    while let Some(layer) = repair.next_layer() {
        for file in layers.get(&layer).into_iter().flatten() {
            let mut source = Cursor::new(file);
            repair.put(&mut source, file.len() as u64).unwrap();
            assert_eq!(source.position(), file.len() as u64);
        }
    }
    repair.finish().unwrap()
}

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

fn problems(store: &StoreReader) -> Vec<String> {
    let report = verify(store, &VerifyOptions::default(), &mut |_| {}).unwrap();
    let text =
        |problem: uimgacc_store::Problem| format!("{}: {}", problem.path.display(), problem.what);
    report.problems.into_iter().map(text).collect()
}

/// Numbers by chance, the same for the same seed.
struct Chance(blake3::OutputReader);

impl Chance {
    /// With the seed of the environment, or one of this moment.
    fn new() -> (String, Self) {
        let seed = std::env::var("UIMGACC_SEED").unwrap_or_else(|_| {
            let now = std::time::SystemTime::now();
            let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
            now.as_nanos().to_string()
        });
        let bytes = blake3::Hasher::new().update(seed.as_bytes()).finalize_xof();
        (seed, Self(bytes))
    }

    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % end as u64).unwrap()
    }
}

/// Files whose loss is noticed, and where in them a flipped bit is damage: packs have padding and holes, which
/// nobody reads.
fn vulnerable<'a>(before: &'a BTreeMap<PathBuf, Vec<u8>>, kind: &str) -> Vec<(&'a Path, &'a [u8])> {
    let of_kind = before.iter().filter(|(path, _)| {
        let (directory, suffix) = kind.split_once(' ').unwrap();
        let path = path.to_str().unwrap();
        path.contains(&format!("/{directory}/")) && path.ends_with(&format!(".{suffix}"))
    });
    of_kind
        .map(|(path, bytes)| (path.as_path(), bytes.as_slice()))
        .collect()
}

const KINDS: [&str; 8] = [
    "packs pack",
    "packs toc",
    "packs toc.zst",
    "packs dead",
    "layers erofs",
    "indexes erofs",
    "copies erofs.zst",
    "chains json",
];

/// Damages a file; says what it did.
fn damage(chance: &mut Chance, before: &BTreeMap<PathBuf, Vec<u8>>) -> String {
    loop {
        let kind = KINDS[chance.below(KINDS.len())];
        let files = vulnerable(before, kind);
        let (path, bytes) = files[chance.below(files.len())];
        let name = path.display();
        match chance.below(4) {
            0 => {
                let at = chance.below(bytes.len());
                // Zeros in a pack may be nobody's; the frame's head has bits without a meaning.
                if (kind == "packs pack" && bytes[at] == 0) || (kind.ends_with("zst") && at < 8) {
                    continue;
                }
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 1 << chance.below(8);
                std::fs::write(path, bytes).unwrap();
                return format!("a bit of {name} at {at}");
            }
            1 => {
                let length = chance.below(bytes.len());
                std::fs::write(path, &bytes[..length]).unwrap();
                return format!("{name} cut to {length}");
            }
            2 => {
                std::fs::remove_file(path).unwrap();
                return format!("{name} removed");
            }
            _ => {
                let (other, others) = files[chance.below(files.len())];
                if others == bytes {
                    continue;
                }
                std::fs::write(path, others).unwrap();
                std::fs::write(other, bytes).unwrap();
                return format!("{name} swapped with {}", other.display());
            }
        }
    }
}

#[test]
fn each_of_a_hundred_damages_is_found_and_repaired() {
    let (_directory, store, layers) = filled_store();
    let before = files(store.layout().root());
    let (seed, mut chance) = Chance::new();
    for number in 0..100 {
        let what = damage(&mut chance, &before);
        let what = format!("UIMGACC_SEED={seed}: {what}");
        let found = problems(&store);
        assert!(!found.is_empty(), "{number}: {what} is not found");
        let repairs = repair(&store, &layers);
        assert_eq!(repairs.unrepaired, [], "{number}: {what}\n{found:?}");
        assert!(!repairs.repaired.is_empty(), "{number}: {what}");
        assert_eq!(problems(&store), Vec::<String>::new(), "{number}: {what}");
        // What is given up may be anything until the next gc.
        sweep(&store, &everything()).unwrap();
        for (path, bytes) in files(store.layout().root()) {
            // A record of what is dead counts how often it was written.
            let is_record = path.extension().is_some_and(|suffix| suffix == "dead");
            assert!(
                is_record || before.get(&path) == Some(&bytes),
                "{number}: {what}: {} differs",
                path.display()
            );
            if is_record {
                std::fs::write(&path, &before[&path]).unwrap();
            }
        }
    }
}

#[test]
fn what_nobody_has_any_more_is_reported_with_the_images_that_need_it() {
    let (_directory, store, mut layers) = filled_store();
    let image = store.image("example.com/a:1").unwrap().unwrap();
    layers.remove(&image.diff_ids[0]);
    let before = files(store.layout().root());
    let mut damaged = Vec::new();
    for (path, bytes) in vulnerable(&before, "packs pack") {
        // In the first content of the pack.
        let mut bytes = bytes.to_vec();
        bytes[0] ^= 1;
        std::fs::write(path, bytes).unwrap();
        damaged.push(path);
    }
    let repairs = repair(&store, &layers);
    let lost = &repairs.unrepaired;
    assert_eq!(lost.len(), 1, "{repairs:?}");
    assert_eq!(lost[0].images, ["example.com/a:1", "example.com/b:1"]);
    assert!(damaged.contains(&lost[0].path.as_path()));
    assert_eq!(problems(&store).len(), 1);
    // A pack of which something is lost never gets its name with zeros in it.
    std::fs::remove_file(&lost[0].path).unwrap();
    let again = repair(&store, &layers);
    assert_eq!(again.unrepaired.len(), 1);
    assert!(!lost[0].path.exists());
}

#[test]
fn a_damaged_content_that_nothing_needs_is_not_shared() {
    let (_directory, store) = new_store();
    // Too little of the pack dies for gc to give it back.
    let contents = [content(1, 50_000), content(2, 6000)];
    let both: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let image = add_layers(&store, "example.com/a:1", &[both]);
    add_image(&store, "example.com/b:1", &[&contents[0]]);
    delete(&store, "example.com/a:1", false).unwrap();
    sweep(&store, &SweepOptions::default()).unwrap();
    let pack = store.layout().pack(image.index.packs[0]).on_host();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[53_248] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let repairs = repair(&store, &Layers::new());
    assert_eq!((repairs.repaired.len(), repairs.unrepaired.len()), (1, 0));
    assert_clean(&store);
    let again = add_image(&store, "example.com/c:1", &[&contents[1]]);
    assert_ne!(again.index.packs, image.index.packs);
    assert_clean(&store);
}

#[test]
fn one_image_or_a_sample_can_be_verified() {
    let (_directory, store, _) = filled_store();
    let image = store.image("example.com/c:1").unwrap().unwrap();
    let whole = verify(&store, &VerifyOptions::default(), &mut |_| {}).unwrap();
    let options = VerifyOptions {
        image: Some(image.clone()),
        ..VerifyOptions::default()
    };
    let one = verify(&store, &options, &mut |_| {}).unwrap();
    assert_eq!((one.images, one.indexes, one.problems.len()), (1, 2, 0));
    assert!(one.contents > 0 && one.contents < whole.contents);
    // Damage elsewhere is not its damage.
    let other = store.image("example.com/b:1").unwrap().unwrap();
    std::fs::remove_file(store.layout().index(other.chain_id).on_host()).unwrap();
    let one = verify(&store, &options, &mut |_| {}).unwrap();
    assert_eq!(one.problems, []);
    for pack in &image.index.packs {
        std::fs::remove_file(store.layout().pack(*pack).on_host()).unwrap();
    }
    let one = verify(&store, &options, &mut |_| {}).unwrap();
    assert_eq!(one.problems.len(), image.index.packs.len());
    let sample = VerifyOptions {
        sample_percent: Some(1e-9),
        ..VerifyOptions::default()
    };
    let sample = verify(&store, &sample, &mut |_| {}).unwrap();
    assert_eq!((sample.contents, sample.packs), (0, whole.packs));
}

#[test]
fn the_table_of_a_lost_pack_stays_as_long_as_something_needs_it() {
    let (_directory, store, layers) = filled_store();
    let image = store.image("example.com/a:1").unwrap().unwrap();
    let pack = store.layout().pack(image.index.packs[0]).on_host();
    let before = std::fs::read(&pack).unwrap();
    std::fs::remove_file(&pack).unwrap();
    sweep(&store, &SweepOptions::default()).unwrap();
    repair(&store, &layers);
    assert_eq!(std::fs::read(&pack).unwrap(), before);
    assert_clean(&store);
}

/// A session that counted on what a repair changes.
#[test]
fn an_image_can_be_created_during_a_repair() {
    let (_directory, store, layers) = filled_store();
    let image = store.image("example.com/a:1").unwrap().unwrap();
    let pack = store.layout().pack(image.index.packs[0]).on_host();
    let length = std::fs::metadata(&pack).unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(&pack)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    let repairing = Repair::begin(&store, &mut |_| {}).unwrap();
    let session = Session::begin(store.clone()).unwrap();
    drop(session);
    add_image(&store, "example.com/d:1", &[&content(2, 3 << 20)]);
    while let Some(layer) = repairing.next_layer() {
        for file in &layers[&layer] {
            repairing
                .put(&mut Cursor::new(file), file.len() as u64)
                .unwrap();
        }
    }
    assert_eq!(repairing.finish().unwrap().unrepaired, []);
    assert_clean(&store);
}
