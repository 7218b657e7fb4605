//! What an `ImageAcceleration` becomes. Pure.

use uimgacc_objects::access::{covers, entry};
use uimgacc_objects::{
    ClaimStore, HostPathStore, ImageAccelerationSpec, NodePaths, SecretReference, StoreSpec,
    SweepSpec, names,
};
use uimgacc_types::NfsAddress;

use super::{EnableRequest, NodePathChanges, StoreChoice};
use crate::error::Error;
use crate::manifests::DEFAULT_IMAGE;

fn invalid(message: String, hint: &str) -> Error {
    Error::Invalid {
        message,
        hint: hint.to_owned(),
    }
}

/// The Secret with the credentials of registries, with the changes of the request.
pub(super) fn credentials(
    old: Option<&ImageAccelerationSpec>,
    request: &EnableRequest,
) -> Option<SecretReference> {
    let old = old.and_then(|old| old.registry_credentials.clone());
    let name = match &request.credentials_secret {
        Some(name) => name.as_str(),
        None if request.login.is_some() && old.is_none() => names::REGISTRY_SECRET,
        None => return old,
    };
    Some(SecretReference {
        name: name.to_owned(),
    })
}

/// What is there now, with the changes of the request. `registries` are those that the Secret has
/// credentials for, as far as they are known.
pub(super) fn spec(
    old: Option<&ImageAccelerationSpec>,
    request: &EnableRequest,
    registries: &[String],
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
        allowed_targets: None,
        credentials_for: None,
        plain_http_registries: Vec::new(),
        node_selector: std::collections::BTreeMap::new(),
        fallback: uimgacc_objects::Fallback::default(),
        originals: uimgacc_objects::Originals::default(),
        starts: uimgacc_objects::StartsSpec::default(),
        max_conversions: 2,
        max_unavailable: 1,
        sweep: SweepSpec::default(),
        node_paths: NodePaths::default(),
        image: DEFAULT_IMAGE.to_owned(),
    });
    spec.store = store;
    spec.image = image(old, request)?;
    spec.registry_credentials = credentials(old, request);
    let login = request.login.iter().map(|login| login.registry.as_str());
    let login: Vec<String> = login.filter_map(entry).collect();
    // Those of a Secret that was named before are in the lists, or were left out on purpose.
    let news = match &request.credentials_secret {
        Some(_) => registries,
        None => &login,
    };
    let all: Vec<String> = registries.iter().chain(&login).cloned().collect();
    for (list, change) in [
        (&mut spec.allowed_targets, &request.allowed_targets),
        (&mut spec.credentials_for, &request.credentials_for),
    ] {
        update_list(list, change.as_deref(), &all, news)?;
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
    spec.max_unavailable = request.max_unavailable.unwrap_or(spec.max_unavailable);
    node_paths(&mut spec.node_paths, &request.node_paths)?;
    Ok(spec)
}

/// Brings a list of registries to what the request says. Without a word of it, a missing list gets
/// `all` registries with credentials, and one that is there gets the `news` of which it has nothing.
fn update_list(
    list: &mut Option<Vec<String>>,
    change: Option<&[String]>,
    all: &[String],
    news: &[String],
) -> Result<(), Error> {
    let given = change.map(|change| {
        let texts = change.iter().filter(|text| !text.is_empty());
        let entries = texts.map(|text| {
            entry(text).ok_or_else(|| {
                invalid(
                    format!("{text:?} is not a valid registry or path in one"),
                    "write HOST[:PORT] or HOST[:PORT]/PATH; Docker Hub is docker.io",
                )
            })
        });
        entries.collect::<Result<Vec<String>, Error>>()
    });
    let (mut wanted, more) = match (given.transpose()?, list.take()) {
        (Some(given), _) if !given.is_empty() => (given, &[][..]),
        // Nothing at all is allowed: that is somebody's decision.
        (None, Some(old)) if old.is_empty() => (old, &[][..]),
        (None, Some(old)) => (old, news),
        (Some(_), _) | (None, None) if all.is_empty() => return Ok(()),
        (Some(_), _) | (None, None) => (Vec::new(), all),
    };
    for registry in more {
        if !wanted.iter().any(|one| covers(registry, one)) {
            wanted.push(registry.clone());
        }
    }
    *list = Some(wanted);
    Ok(())
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
        StoreChoice::Nfs(address) => store.nfs = Some(address.parse::<NfsAddress>()?.into()),
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
        format!("NFS {}", nfs.address())
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
        let spec = spec(None, &request("10.0.0.1:/x"), &[]).unwrap();
        assert_eq!(describe(&spec.store), "NFS 10.0.0.1:/x");
        assert_eq!(spec.image, DEFAULT_IMAGE);
        assert_eq!(spec.registry_credentials, None);
        assert_eq!(spec.node_paths, NodePaths::default());
        let error = super::spec(None, &EnableRequest::default(), &[]).unwrap_err();
        assert!(error.hint().unwrap().contains("--nfs"), "{error}");
    }

    #[test]
    fn what_is_not_mentioned_stays() {
        let mut first = request("10.0.0.1");
        first.node_selector = Some([("gpu".to_owned(), "yes".to_owned())].into());
        first.plain_http_registries = Some(vec!["localhost:5000".to_owned()]);
        first.node_paths.bin_dir = Some("/opt/bin".to_owned());
        first.login = Some(Login {
            registry: "r.io".to_owned(),
            username: "u".to_owned(),
            password: "p".to_owned(),
        });
        let old = spec(None, &first, &[]).unwrap();
        assert_eq!(
            old.registry_credentials.as_ref().unwrap().name,
            names::REGISTRY_SECRET
        );
        let same = spec(Some(&old), &EnableRequest::default(), &[]).unwrap();
        assert_eq!(same, old);
        let other = EnableRequest {
            max_conversions: Some(7),
            ..request("10.0.0.2")
        };
        let new = spec(Some(&old), &other, &[]).unwrap();
        assert_eq!(new.max_conversions, 7);
        assert_eq!(new.node_paths.bin_dir, "/opt/bin");
        assert!(!is_other_store(&old.store, &new.store));
    }

    #[test]
    fn ours_is_upgraded_and_others_stay() {
        let mut old = spec(None, &request("a"), &[]).unwrap();
        old.image = "uimgacc/uimgacc:0.0.1".to_owned();
        let none = EnableRequest::default();
        assert_eq!(spec(Some(&old), &none, &[]).unwrap().image, DEFAULT_IMAGE);
        old.image = "registry.local:5000/uimgacc@sha256:0".to_owned();
        assert_eq!(spec(Some(&old), &none, &[]).unwrap().image, old.image);
        let named = EnableRequest {
            image: Some("x/y:2".to_owned()),
            ..none
        };
        assert_eq!(spec(Some(&old), &named, &[]).unwrap().image, "x/y:2");
    }

    fn login(registry: &str) -> EnableRequest {
        EnableRequest {
            login: Some(Login {
                registry: registry.to_owned(),
                username: "u".to_owned(),
                password: "p".to_owned(),
            }),
            ..EnableRequest::default()
        }
    }

    #[test]
    fn lists_follow_the_credentials() {
        let texts = |list: &[&str]| Some(list.iter().map(|one| (*one).to_owned()).collect());
        let bare = spec(None, &request("a"), &[]).unwrap();
        assert_eq!(
            (&bare.allowed_targets, &bare.credentials_for),
            (&None, &None)
        );
        let first = spec(Some(&bare), &login("index.docker.io"), &[]).unwrap();
        assert_eq!(first.allowed_targets, texts(&["docker.io"]));
        assert_eq!(first.credentials_for, texts(&["docker.io"]));
        // Another login adds its registry; a new password of the same changes nothing.
        let known = ["docker.io".to_owned(), "r.io:5000".to_owned()];
        let both = spec(Some(&first), &login("r.io:5000"), &known).unwrap();
        assert_eq!(both.allowed_targets, texts(&["docker.io", "r.io:5000"]));
        assert_eq!(
            spec(Some(&both), &login("docker.io"), &known).unwrap(),
            both
        );
        // What was narrowed stays narrow.
        let mut narrow = EnableRequest {
            allowed_targets: texts(&["r.io:5000/team"]),
            ..login("r.io:5000")
        };
        let narrowed = spec(Some(&both), &narrow, &known).unwrap();
        assert_eq!(narrowed.allowed_targets, texts(&["r.io:5000/team"]));
        assert_eq!(narrowed.credentials_for, both.credentials_for);
        let again = spec(Some(&narrowed), &login("r.io:5000"), &known).unwrap();
        assert_eq!(again, narrowed);
        // An empty text: as if nobody had ever set it.
        narrow.allowed_targets = texts(&[""]);
        let reset = spec(Some(&narrowed), &narrow, &known).unwrap();
        assert_eq!(reset.allowed_targets, both.allowed_targets);
        narrow.credentials_for = texts(&["team"]);
        let error = spec(None, &narrow, &[]).unwrap_err();
        assert!(error.to_string().contains("where is the store"), "{error}");
        let error = spec(Some(&both), &narrow, &[]).unwrap_err();
        assert!(
            error.to_string().contains("\"team\" is not a valid"),
            "{error}"
        );
        // Another Secret of one's own.
        let other = EnableRequest {
            credentials_secret: Some("mine".to_owned()),
            ..EnableRequest::default()
        };
        let mine = spec(Some(&first), &other, &["x.io".to_owned()]).unwrap();
        assert_eq!(mine.allowed_targets, texts(&["docker.io", "x.io"]));
        let mut none = first.clone();
        none.allowed_targets = texts(&[]);
        let kept = spec(Some(&none), &login("x.io"), &known).unwrap();
        assert_eq!(kept.allowed_targets, texts(&[]));
        // Objects from before the lists.
        let mut older = first.clone();
        (older.allowed_targets, older.credentials_for) = (None, None);
        let upgraded = spec(Some(&older), &EnableRequest::default(), &known).unwrap();
        assert_eq!(upgraded.allowed_targets, both.allowed_targets);
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
