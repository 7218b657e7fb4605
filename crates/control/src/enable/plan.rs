//! What an `ImageAcceleration` becomes. Pure.

use uimgacc_objects::{
    ClaimStore, HostPathStore, ImageAccelerationSpec, NodePaths, SecretReference, StoreSpec,
    SweepSpec, names,
};

use super::{EnableRequest, NodePathChanges, StoreChoice};
use crate::error::Error;
use crate::manifests::DEFAULT_IMAGE;
use crate::store_address::{format_nfs, parse_nfs};

fn invalid(message: String, hint: &str) -> Error {
    Error::Invalid {
        message,
        hint: hint.to_owned(),
    }
}

/// What is there now, with the changes of the request.
pub(super) fn spec(
    old: Option<&ImageAccelerationSpec>,
    request: &EnableRequest,
) -> Result<ImageAccelerationSpec, Error> {
    let store = match (&request.store, old) {
        (Some(choice), _) => store(choice)?,
        (None, Some(old)) => old.store.clone(),
        (None, None) => {
            return Err(invalid(
                "where is the store?".to_owned(),
                "give one of --nfs ADDR, --pvc NAME and --host-path DIR",
            ));
        }
    };
    let mut spec = old.cloned().unwrap_or_else(|| ImageAccelerationSpec {
        store: StoreSpec::default(),
        registry_credentials: None,
        plain_http_registries: Vec::new(),
        node_selector: std::collections::BTreeMap::new(),
        fallback: uimgacc_objects::Fallback::default(),
        originals: uimgacc_objects::Originals::default(),
        max_conversions: 2,
        sweep: SweepSpec::default(),
        node_paths: NodePaths::default(),
        image: DEFAULT_IMAGE.to_owned(),
    });
    spec.store = store;
    spec.image = image(old, request)?;
    if let Some(name) = &request.credentials_secret {
        spec.registry_credentials = Some(SecretReference { name: name.clone() });
    } else if request.login.is_some() && spec.registry_credentials.is_none() {
        spec.registry_credentials = Some(SecretReference {
            name: names::REGISTRY_SECRET.to_owned(),
        });
    }
    if let Some(registries) = &request.plain_http_registries {
        for registry in registries {
            if registry.is_empty() || registry.contains('/') {
                return Err(invalid(
                    format!("{registry:?} is no registry"),
                    "write HOST or HOST:PORT, without http://",
                ));
            }
        }
        spec.plain_http_registries.clone_from(registries);
    }
    if let Some(selector) = &request.node_selector {
        spec.node_selector.clone_from(selector);
    }
    spec.fallback = request.fallback.unwrap_or(spec.fallback);
    spec.originals = request.originals.unwrap_or(spec.originals);
    spec.max_conversions = request.max_conversions.unwrap_or(spec.max_conversions);
    node_paths(&mut spec.node_paths, &request.node_paths)?;
    Ok(spec)
}

/// The repository of an image reference.
fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// An image of one's own stays until another is named; ours follows this version.
fn image(old: Option<&ImageAccelerationSpec>, request: &EnableRequest) -> Result<String, Error> {
    if let Some(image) = &request.image {
        image.parse::<uimgacc_types::ImageReference>()?;
        return Ok(image.clone());
    }
    Ok(match old {
        Some(old) if repository(&old.image) != repository(DEFAULT_IMAGE) => old.image.clone(),
        _ => DEFAULT_IMAGE.to_owned(),
    })
}

fn store(choice: &StoreChoice) -> Result<StoreSpec, Error> {
    let mut store = StoreSpec::default();
    match choice {
        StoreChoice::Nfs(address) => store.nfs = Some(parse_nfs(address)?),
        StoreChoice::Claim(name) => {
            if name.is_empty() || name.contains('/') {
                return Err(invalid(
                    format!("{name:?} is no name of a PersistentVolumeClaim"),
                    "it must be one in the namespace kube-system",
                ));
            }
            store.persistent_volume_claim = Some(ClaimStore {
                claim_name: name.clone(),
            });
        }
        StoreChoice::HostPath(path) => {
            let path = absolute("the store's folder", path)?;
            store.host_path = Some(HostPathStore { path });
        }
    }
    Ok(store)
}

fn absolute(what: &str, path: &str) -> Result<String, Error> {
    if path.starts_with('/') && path.len() > 1 && !path.starts_with("//") {
        Ok(path.to_owned())
    } else {
        Err(invalid(
            format!("{what} must be an absolute path, not {path:?}"),
            "",
        ))
    }
}

fn node_paths(paths: &mut NodePaths, changes: &NodePathChanges) -> Result<(), Error> {
    for (path, change, what) in [
        (
            &mut paths.containerd_config,
            &changes.containerd_config,
            "containerd's configuration",
        ),
        (
            &mut paths.containerd_socket,
            &changes.containerd_socket,
            "containerd's socket",
        ),
        (
            &mut paths.bin_dir,
            &changes.bin_dir,
            "the folder of programs",
        ),
        (
            &mut paths.root_dir,
            &changes.root_dir,
            "the snapshotter's folder",
        ),
        (
            &mut paths.run_dir,
            &changes.run_dir,
            "the folder of sockets",
        ),
        (
            &mut paths.config_dir,
            &changes.config_dir,
            "the folder of the configuration",
        ),
    ] {
        if let Some(change) = change {
            *path = absolute(what, change)?;
        }
    }
    if let Some(binary) = &changes.containerd_binary {
        paths.containerd_binary.clone_from(binary);
    }
    if let Some(words) = &changes.containerd_restart {
        paths.containerd_restart.clone_from(words);
    }
    Ok(())
}

/// Whether the one is nfs and the other a claim, and so on.
pub(super) fn is_other_kind(old: &StoreSpec, new: &StoreSpec) -> bool {
    let kind = |store: &StoreSpec| {
        (
            store.nfs.is_some(),
            store.persistent_volume_claim.is_some(),
            store.host_path.is_some(),
        )
    };
    kind(old) != kind(new)
}

/// Whether they hold other data. NFS servers may change: they are addresses of the same export.
pub(super) fn is_other_store(old: &StoreSpec, new: &StoreSpec) -> bool {
    match (&old.nfs, &new.nfs) {
        (Some(old), Some(new)) => old.path != new.path,
        _ => {
            old.persistent_volume_claim != new.persistent_volume_claim
                || old.host_path != new.host_path
                || old.nfs.is_some() != new.nfs.is_some()
        }
    }
}

/// The store in a few words.
pub(crate) fn describe(store: &StoreSpec) -> String {
    if let Some(nfs) = &store.nfs {
        format!("NFS {}", format_nfs(nfs))
    } else if let Some(claim) = &store.persistent_volume_claim {
        format!("the claim {}/{}", names::NAMESPACE, claim.claim_name)
    } else if let Some(folder) = &store.host_path {
        format!("the folder {} of every node", folder.path)
    } else {
        "nowhere".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Login;

    fn request(address: &str) -> EnableRequest {
        EnableRequest {
            store: Some(StoreChoice::Nfs(address.to_owned())),
            ..EnableRequest::default()
        }
    }

    #[test]
    fn first_time() {
        let spec = spec(None, &request("10.0.0.1:/x")).unwrap();
        assert_eq!(describe(&spec.store), "NFS 10.0.0.1:/x");
        assert_eq!(spec.image, DEFAULT_IMAGE);
        assert_eq!(spec.registry_credentials, None);
        assert_eq!(spec.node_paths, NodePaths::default());
        let error = super::spec(None, &EnableRequest::default()).unwrap_err();
        assert!(error.hint().unwrap().contains("--nfs"), "{error}");
    }

    #[test]
    fn what_is_not_mentioned_stays() {
        let mut first = request("10.0.0.1");
        first.node_selector = Some([("gpu".to_owned(), "yes".to_owned())].into());
        first.plain_http_registries = Some(vec!["localhost:5000".to_owned()]);
        first.node_paths.bin_dir = Some("/opt/bin".to_owned());
        first.login = Some(Login {
            registry: "r".to_owned(),
            username: "u".to_owned(),
            password: "p".to_owned(),
        });
        let old = spec(None, &first).unwrap();
        assert_eq!(
            old.registry_credentials.as_ref().unwrap().name,
            names::REGISTRY_SECRET
        );
        let same = spec(Some(&old), &EnableRequest::default()).unwrap();
        assert_eq!(same, old);
        let other = EnableRequest {
            max_conversions: Some(7),
            ..request("10.0.0.2")
        };
        let new = spec(Some(&old), &other).unwrap();
        assert_eq!(new.max_conversions, 7);
        assert_eq!(new.node_paths.bin_dir, "/opt/bin");
        assert!(!is_other_store(&old.store, &new.store));
    }

    #[test]
    fn ours_is_upgraded_and_others_stay() {
        let mut old = spec(None, &request("a")).unwrap();
        old.image = "uimgacc/uimgacc:0.0.1".to_owned();
        let none = EnableRequest::default();
        assert_eq!(spec(Some(&old), &none).unwrap().image, DEFAULT_IMAGE);
        old.image = "registry.local:5000/uimgacc@sha256:0".to_owned();
        assert_eq!(spec(Some(&old), &none).unwrap().image, old.image);
        let named = EnableRequest {
            image: Some("x/y:2".to_owned()),
            ..none
        };
        assert_eq!(spec(Some(&old), &named).unwrap().image, "x/y:2");
    }

    #[test]
    fn other_stores() {
        let of = |choice| store(&choice).unwrap();
        let nfs = of(StoreChoice::Nfs("a:/x".to_owned()));
        let moved = of(StoreChoice::Nfs("b:/x".to_owned()));
        let other = of(StoreChoice::Nfs("a:/y".to_owned()));
        let folder = of(StoreChoice::HostPath("/mnt/x".to_owned()));
        assert!(!is_other_store(&nfs, &moved));
        assert!(is_other_store(&nfs, &other));
        assert!(is_other_store(&nfs, &folder) && is_other_kind(&nfs, &folder));
        assert!(!is_other_kind(&nfs, &other));
        for choice in [
            StoreChoice::HostPath("x".to_owned()),
            StoreChoice::HostPath("/".to_owned()),
            StoreChoice::Claim("a/b".to_owned()),
            StoreChoice::Nfs("a b".to_owned()),
        ] {
            assert!(store(&choice).is_err(), "{choice:?}");
        }
    }
}
