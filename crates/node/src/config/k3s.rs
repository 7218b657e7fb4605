//! Distributions that write containerd's configuration anew at each start.
//!
//! k3s and RKE2 make `config.toml` from a template; what is put into the file itself is lost. A copy of
//! the made file is a template as well, and one that can be edited as any configuration.

use std::path::{Path, PathBuf};

use crate::version::ContainerdVersion;

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// k3s.
    K3s,
    /// RKE2.
    Rke2,
}

impl Distribution {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// The template beside the configuration that one writes instead.
    #[must_use]
    pub fn template(self, config: &Path, containerd: ContainerdVersion) -> PathBuf {
        config.with_file_name(if containerd.major == 1 {
            "config.toml.tmpl"
        } else {
            "config-v3.toml.tmpl"
        })
    }
}

/// The distribution that makes this file, told by its place and its first lines.
#[must_use]
pub fn distribution(config: &Path, text: &str) -> Option<Distribution> {
    if config.extension().is_some_and(|suffix| suffix == "tmpl") {
        return None;
    }
    let head: Vec<&str> = text.lines().take(5).collect();
    let says = |word: &str| {
        head.iter().any(|line| {
            line.starts_with('#') && line.contains("DO NOT EDIT") && line.contains(word)
        })
    };
    let below = |folder: &str| {
        let place = config.display().to_string();
        place.contains(&format!("/{folder}/agent/etc/containerd/"))
    };
    if below("rke2") || says("rke2") {
        Some(Distribution::Rke2)
    } else if below("k3s") || says("k3s") {
        Some(Distribution::K3s)
    } else {
        None
    }
}
