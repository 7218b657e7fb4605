//! Names that several parts must agree on.

/// The API group of our kinds.
pub const GROUP: &str = "uimgacc.io";
/// Where all our parts run.
pub const NAMESPACE: &str = "kube-system";
/// The only [`crate::ImageAcceleration`].
pub const DEFAULT: &str = "default";
/// Deployment, service account and Lease of the agent.
pub const AGENT: &str = "uimgacc-agent";
/// DaemonSet and service account of the node installer.
pub const NODE: &str = "uimgacc-node";
/// Service account of the Jobs that convert.
pub const CONVERT: &str = "uimgacc-convert";
/// Label of all that is ours, with the value [`PART_OF`].
pub const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";
/// Secret that `enable` makes of the registry's user and password.
pub const REGISTRY_SECRET: &str = "uimgacc-registry";

/// Label, value `true`, of Secrets that `spec.pullSecret` of an [`crate::AcceleratedImage`] may name.
pub const PULL_SECRET_LABEL: &str = "uimgacc.io/pull-secret";

/// Labels of nodes that can run accelerated images, value `true`: the older and the newer name.
pub const NODE_LABELS: [&str; 2] = [
    "node.uk8s.ucloud.cn/uimgacc",
    "node.uk8s.ucloud.cn/image_accel",
];
/// Label, value `true`, of nodes that the installer has put something on: it stays there until that
/// was taken away again.
pub const INSTALLED_LABEL: &str = "uimgacc.io/installed";
/// Keeps an [`crate::AcceleratedImage`] until its space in the store is freed.
pub const FINALIZER: &str = "uimgacc.io/store";
/// Annotation, value `true`: delete (or disable) although Pods use it.
pub const FORCE_ANNOTATION: &str = "uimgacc.io/force";
/// Annotation of an [`crate::AcceleratedImage`] in phase `CreateError`: a new value has the agent
/// try again at once, whatever the pause.
pub const RETRY_ANNOTATION: &str = "uimgacc.io/retry";
/// Annotation of the [`crate::ImageAcceleration`]: the subnet of the store. Only kept and told.
pub const SUBNET_ANNOTATION: &str = "uimgacc.io/subnet-id";
/// Annotation of the definition of [`crate::ImageAcceleration`]: all of ours is to be taken away
/// once that object is gone.
pub const REMOVE_ANNOTATION: &str = "uimgacc.io/remove";
/// Label of Jobs and Pods that convert; the value is the name of the [`crate::AcceleratedImage`].
pub const IMAGE_LABEL: &str = "uimgacc.io/image";
/// `app.kubernetes.io/part-of` of everything that `enable` makes.
pub const PART_OF: &str = "uimgacc";
/// Field manager of what `enable` and the agent apply.
pub const FIELD_MANAGER: &str = "uimgacc";

/// The name of the [`crate::AcceleratedImage`] for a target reference: readable, valid as a name
/// (RFC 1123, at most 63 bytes) and distinct for distinct references.
///
/// `digest_hex` is the SHA-256 of the normalised reference in hex.
#[must_use]
pub fn image_name(target: &str, digest_hex: &str) -> String {
    let path = target.rsplit('/').next().unwrap_or(target);
    let mut name: String = path
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(46)
        .collect();
    let readable = name.trim_matches('-').len();
    name = name.trim_matches('-').to_owned();
    let suffix: String = digest_hex.chars().take(16).collect();
    if readable == 0 {
        return format!("image-{suffix}");
    }
    format!("{name}-{suffix}")
}

/// The name of the [`crate::StartRecord`] for the token of a chain.
#[must_use]
pub fn record_name(token: &str) -> &str {
    token.strip_prefix("chain:").unwrap_or(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_are_valid() {
        let digest = "0123456789abcdef0123456789abcdef";
        for (target, expected) in [
            (
                "reg.example.com/a/Big_App:1.0-fast",
                "big-app-1-0-fast-0123456789abcdef",
            ),
            ("x/---", "image-0123456789abcdef"),
        ] {
            assert_eq!(image_name(target, digest), expected);
        }
        let long = image_name(&"a".repeat(300), digest);
        assert!(long.len() <= 63, "{long}");
    }
}
