//! The configuration file of each version: `version = 2` for 1.x, where CRI is one plugin, and `version = 3` for 2.x, where it is three.

use std::path::Path;

use super::{ContainerdVersion, Options};
use crate::parts;

pub(super) fn toml(version: ContainerdVersion, dir: &Path, options: &Options) -> String {
    let fields = Fields {
        dir: dir.display().to_string(),
        runc: parts::program("runc").display().to_string(),
        snapshotter: options
            .cri_snapshotter
            .clone()
            .unwrap_or_else(|| "overlayfs".to_owned()),
        pause: options
            .pause_image
            .clone()
            .unwrap_or_else(|| "none.invalid/pause:none".to_owned()),
    };
    let mut text = match version {
        ContainerdVersion::V1_6 | ContainerdVersion::V1_7 => fields.version_2(),
        ContainerdVersion::V2_1 | ContainerdVersion::V2_4 => fields.version_3(),
    };
    if version != ContainerdVersion::V1_6 {
        text.push_str(&unpack_config("overlayfs", "walking"));
        if options.proxy_socket.is_some() {
            text.push_str(&unpack_config("uimgacc", "walking"));
        }
    }
    if let Some(cache) = &options.erofs_cache {
        text.push_str(&unpack_config("erofs", "erofs"));
        text.push_str(&format!(
            "[plugins.\"io.containerd.snapshotter.v1.erofs\"]\n  layer_content_caches = [\"{}\"]\n",
            cache.display()
        ));
    }
    if let Some(socket) = &options.proxy_socket {
        text.push_str(&format!(
            "[proxy_plugins.uimgacc]\n  type = \"snapshot\"\n  address = \"{}\"\n",
            socket.display()
        ));
        // As `uimgacc node install` has it: the transfer service names the blobs of layers.
        if matches!(version, ContainerdVersion::V2_1 | ContainerdVersion::V2_4) {
            text.push_str(
                "[proxy_plugins.uimgacc.exports]\n  enable_remote_snapshot_annotations = \"true\"\n",
            );
        }
    }
    text
}

struct Fields {
    dir: String,
    runc: String,
    snapshotter: String,
    pause: String,
}

impl Fields {
    fn head(&self, version: u32) -> String {
        let dir = &self.dir;
        format!(
            r#"version = {version}
root = "{dir}/root"
state = "{dir}/state"
[grpc]
  address = "{dir}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
"#
        )
    }

    fn version_2(&self) -> String {
        let Self {
            dir,
            runc,
            snapshotter,
            pause,
        } = self;
        let cri = r#"plugins."io.containerd.grpc.v1.cri""#;
        format!(
            r#"{head}[{cri}]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE a sandbox cannot lower its OOM score, and would fail to start.
  restrict_oom_score_adj = true
  disable_apparmor = true
[{cri}.containerd]
  snapshotter = "{snapshotter}"
  disable_snapshot_annotations = false
[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  SystemdCgroup = false
[{cri}.registry]
  config_path = "{dir}/hosts"
"#,
            head = self.head(2)
        )
    }

    fn version_3(&self) -> String {
        let Self {
            dir,
            runc,
            snapshotter,
            pause,
        } = self;
        let images = r#"plugins."io.containerd.cri.v1.images""#;
        let runtime = r#"plugins."io.containerd.cri.v1.runtime""#;
        let transfer = r#"plugins."io.containerd.transfer.v1.local""#;
        format!(
            r#"{head}[{images}]
  snapshotter = "{snapshotter}"
  disable_snapshot_annotations = false
[{images}.pinned_images]
  sandbox = "{pause}"
[{images}.registry]
  config_path = "{dir}/hosts"
[{runtime}]
  # Without CAP_SYS_RESOURCE a sandbox cannot lower its OOM score, and would fail to start.
  restrict_oom_score_adj = true
  disable_apparmor = true
[{runtime}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{runtime}.containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  SystemdCgroup = false
# Its socket has a fixed place, which two containerds cannot share.
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[{transfer}]
  config_path = "{dir}/hosts"
"#,
            head = self.head(3)
        )
    }
}

/// The transfer service only unpacks for the snapshotters of this list, and giving one replaces the default.
fn unpack_config(snapshotter: &str, differ: &str) -> String {
    format!(
        r#"[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "{snapshotter}"
  differ = "{differ}"
"#
    )
}
