//! What a shell needs to use the playground, as a file that it reads.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context as _;
use uimgacc_testkit::cluster::Cluster;
use uimgacc_testkit::parts;

use crate::OURS;

/// Links `kubectl` into the folder's `bin`, and writes its file `env` at once: it is there only when everything is ready.
pub(crate) fn write(folder: &Path, store: &Path, cluster: &Cluster) -> anyhow::Result<()> {
    let programs = folder.join("bin");
    symlink(
        parts::dir().join("kubernetes/bin/kubectl"),
        programs.join("kubectl"),
    )
    .with_context(|| format!("cannot make a link in {}", programs.display()))?;
    let registry = cluster.registry();
    let restart = cluster.node(0).restart_containerd_command();
    let mut text = format!("export PATH={}:\"$PATH\"\n", quoted(&programs.display()));
    for (name, value) in [
        ("KUBECONFIG", cluster.kubeconfig().display().to_string()),
        ("REGISTRY", registry.address()),
        ("STORE", store.display().to_string()),
        ("OUR_IMAGE", registry.reference(OURS)),
        ("CONTAINERD_RESTART", restart.display().to_string()),
    ] {
        text.push_str(&format!("export {name}={}\n", quoted(&value)));
    }
    let (file, new) = (folder.join("env"), folder.join("env.new"));
    fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))
}

/// As one word of a shell.
fn quoted(value: &impl ToString) -> String {
    format!("'{}'", value.to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_of_a_shell() {
        assert_eq!(super::quoted(&"/a b"), "'/a b'");
        assert_eq!(super::quoted(&"it's"), r"'it'\''s'");
    }
}
