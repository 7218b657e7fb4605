use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn names(disk: &Disk) -> Vec<String> {
    let entries = fs::read_dir(&disk.snapshots).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn folders_as_containerd_makes_them() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    let owner = Some(Owner { uid: 12, gid: 34 });
    disk.create(1, true, owner).unwrap();
    disk.create(2, false, None).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    // Less what the umask takes, as with containerd.
    assert_eq!(mode(&disk.upper(1)) & 0o700, 0o700);
    assert_eq!(mode(&disk.folder(1)), 0o700);
    assert_eq!(
        owner_of(&disk.upper(1)).unwrap(),
        Owner { uid: 12, gid: 34 }
    );
    assert!(disk.work(1).is_dir());
    assert!(!disk.work(2).exists());
}

#[test]
fn what_nobody_knows_is_swept() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    for id in 1..=4 {
        disk.create(id, true, None).unwrap();
        fs::write(disk.upper(id).join("file"), "x").unwrap();
    }
    fs::create_dir(disk.snapshots.join("new-123")).unwrap();
    let early = disk.set_aside(4).unwrap().unwrap();
    assert!(early.join("fs/file").exists());
    assert_eq!(disk.set_aside(4).unwrap(), None);
    let aside = disk.set_aside_unknown(|id| id == 2).unwrap();
    assert_eq!(
        aside.len(),
        4,
        "1, 3, new-123 and what was set aside before"
    );
    aside.iter().for_each(|path| delete(path));
    aside.iter().for_each(|path| delete(path));
    assert_eq!(names(&disk), ["2"]);
}

#[test]
fn a_folder_left_by_a_crash_is_out_of_the_way() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    disk.create(1, true, None).unwrap();
    fs::write(disk.upper(1).join("old"), "x").unwrap();
    // A restart counts from 0 again, while what it set aside before is still there.
    let again = Disk::open(root.path()).unwrap();
    let aside = again.set_aside(1).unwrap().unwrap();
    let third = Disk::open(root.path()).unwrap();
    third.create(1, true, None).unwrap();
    fs::write(third.upper(1).join("old"), "x").unwrap();
    third.create(1, true, None).unwrap();
    assert!(!third.upper(1).join("old").exists());
    assert!(aside.exists());
    assert_eq!(names(&third).len(), 3);
}
