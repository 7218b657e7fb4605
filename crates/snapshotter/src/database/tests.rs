use super::*;
use crate::promise::Labels;
use crate::state::{Kind, Time, Usage};

const NOW: Time = Time {
    seconds: 5,
    nanoseconds: 6,
};

fn rows(state: &State) -> Vec<(String, Snapshot)> {
    let rows = state.iter();
    rows.map(|(name, row)| (name.clone(), row.as_ref().clone()))
        .collect()
}

#[test]
fn what_was_saved_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let (database, mut state) = Database::open(&path).unwrap();
    let save = |state: &mut State, change: Change| {
        database.save(&change).unwrap();
        state.apply(&change);
    };
    let labels = Labels::from([("k".to_owned(), "v \u{e9}\n".to_owned())]);
    for name in ["a", "b"] {
        let made = state.create(Kind::Active, name, None, labels.clone(), NOW);
        save(&mut state, made.unwrap().0);
    }
    let usage = Usage {
        size_bytes: 7,
        inodes: 8,
    };
    let committed = state.commit("done", "a", usage, labels.clone(), NOW);
    save(&mut state, committed.unwrap());
    let chain = uimgacc_types::ChainId::from_bytes([3; 32]);
    let remote = state.create_remote(chain, "remote", Some("done"), labels, NOW);
    save(&mut state, remote.unwrap().unwrap());
    let removed = state.remove("b").unwrap();
    save(&mut state, removed.0);
    let next = state.no_change().next_id;

    assert!(Database::open(&path).is_err(), "it is open already");
    let (at_once, late) = (Duration::from_millis(50), Duration::from_secs(60));
    assert!(Database::open_after(&path, at_once).is_err());
    let predecessor = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(database);
    });
    let (_, reread) = Database::open_after(&path, late).unwrap();
    predecessor.join().unwrap();
    assert_eq!(rows(&reread), rows(&state));
    assert_eq!(reread.no_change().next_id, next);
}

#[test]
fn a_newer_or_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let (database, _) = Database::open(&path).unwrap();
    let transaction = database.file().unwrap().begin_write().unwrap();
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert("format", FORMAT + 1).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(database);
    let error = Database::open(&path).unwrap_err().to_string();
    assert!(error.contains("upgrade it"), "{error}");

    fs::write(
        &path,
        "no database at all, but long enough to be looked at".repeat(100),
    )
    .unwrap();
    assert!(Database::open(&path).is_err());
}
