use super::*;
use crate::Layout;
use crate::commit::make_directory;

/// A store with a directory that stands.
fn store() -> (tempfile::TempDir, Layout, Workspace) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path());
    let workspace = Workspace::new(layout.tmp().join("create-0123"));
    make_directory(workspace.dir()).unwrap();
    workspace.create("intent.json").unwrap();
    (folder, layout, workspace)
}

fn file(workspace: &Workspace, text: &str) -> StorePath {
    workspace.stage(text.as_bytes(), workspace.dir()).unwrap()
}

fn is_taken<T: std::fmt::Debug>(result: Result<T, CommitError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, CommitError::TakenForDead { .. }), "{error}");
}

#[test]
fn a_taken_name_stays() {
    let (_folder, layout, workspace) = store();
    let first = file(&workspace, "first");
    let second = file(&workspace, "second");
    let to = layout.directory("a/b/name");
    let publish = |from| workspace.publish(from, &to).unwrap();
    assert_eq!(publish(&first), Published::New);
    assert_eq!(publish(&second), Published::AlreadyThere);
    assert!(!first.exists().unwrap() && !second.exists().unwrap());
    assert_eq!(to.read(9).unwrap(), b"first");
}

#[test]
fn a_link_that_was_made_at_the_first_asking_is_ours() {
    let (_folder, layout, workspace) = store();
    let from = file(&workspace, "x");
    let to = layout.directory("to");
    from.hard_link(&to).unwrap();
    assert_eq!(workspace.publish(&from, &to).unwrap(), Published::New);
    assert!(!from.exists().unwrap() && to.exists().unwrap());
}

#[test]
fn a_file_is_removed_and_nothing_else() {
    let (_folder, layout, workspace) = store();
    let path = layout.directory("one");
    assert!(!workspace.remove(&path).unwrap());
    std::fs::write(path.on_host(), "x").unwrap();
    assert!(workspace.remove(&path).unwrap());
    assert!(!workspace.remove(&path).unwrap());
    assert_eq!(workspace.dir().list().unwrap().len(), 1);
    std::os::unix::fs::symlink("two", path.on_host()).unwrap();
    std::fs::create_dir_all(layout.directory("three/four").on_host()).unwrap();
    for (name, what) in [("one", "symbolic link"), ("three", "directory")] {
        let path = layout.directory(name);
        let refused = workspace.remove(&path).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
        assert!(path.exists().unwrap());
    }
}

#[test]
fn without_the_directory_nothing_changes() {
    let (_folder, layout, workspace) = store();
    let (staged, other) = (file(&workspace, "x"), file(&workspace, "y"));
    let (new, old) = (layout.directory("a/new"), layout.directory("old"));
    std::fs::write(old.on_host(), "old").unwrap();
    workspace.dir().remove_tree().unwrap();
    is_taken(workspace.create("more"));
    is_taken(workspace.stage(b"z", &new));
    is_taken(workspace.publish(&staged, &new));
    is_taken(workspace.publish(&staged, &old));
    is_taken(workspace.replace(&other, &old));
    is_taken(workspace.publish_json(&new, &1));
    is_taken(workspace.replace_json(&old, &1));
    is_taken(workspace.remove(&old));
    // Somebody else removed it already: that is no success either.
    is_taken(workspace.remove(&new));
    assert_eq!(old.read(9).unwrap(), b"old");
    assert!(!layout.directory("a").exists().unwrap());
}
