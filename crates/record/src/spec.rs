//! An image's configuration as a container of runc.

use std::path::Path;

use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{ProcessBuilder, RootBuilder, Spec, UserBuilder};

use crate::{RecordError, users};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The container of an image: its environment, user and folder, with `command` in place of its own
/// where one is given. All else is what runc's own `spec` has: namespaces of its own, no network, few
/// capabilities.
pub(crate) fn make(
    config: &[u8],
    command: Option<&[String]>,
    root: &Path,
) -> Result<Spec, RecordError> {
    let image = ImageConfiguration::from_reader(config).map_err(RecordError::Config)?;
    let config = image.config().clone().unwrap_or_default();
    let own = || {
        let parts = [config.entrypoint(), config.cmd()];
        parts.into_iter().flatten().flatten().cloned().collect()
    };
    let words: Vec<String> = command.map_or_else(own, <[String]>::to_vec);
    if words.is_empty() {
        return Err(RecordError::NoCommand);
    }
    let user = config.user().as_deref().unwrap_or_default();
    let (uid, gid) = users::resolve(root, user)?;
    let mut env = config.env().clone().unwrap_or_default();
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.push(PATH.to_owned());
    }
    let cwd = match config.working_dir().as_deref() {
        None | Some("") => "/",
        Some(folder) => folder,
    };
    let built = || {
        let mut spec = Spec::default();
        let mut process = spec
            .process()
            .clone()
            .map_or_else(|| ProcessBuilder::default().build(), Ok)?;
        process
            .set_terminal(Some(false))
            .set_user(UserBuilder::default().uid(uid).gid(gid).build()?)
            .set_args(Some(words))
            .set_env(Some(env))
            .set_cwd(cwd.into());
        spec.set_process(Some(process))
            .set_root(Some(
                RootBuilder::default().path(root).readonly(false).build()?,
            ))
            .set_hostname(Some("uimgacc-record".to_owned()));
        Ok(spec)
    };
    built().map_err(RecordError::Config)
}

/// The command of a container, for people.
pub(crate) fn command(spec: &Spec) -> String {
    let words = spec
        .process()
        .as_ref()
        .and_then(|process| process.args().clone());
    words.unwrap_or_default().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(inner: &str) -> String {
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{inner},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        )
    }

    #[test]
    fn the_image_says_what_runs() {
        let folder = tempfile::tempdir().unwrap();
        let text = config(
            r#"{"Env":["A=b"],"Entrypoint":["/run"],"Cmd":["x"],"WorkingDir":"/srv","User":"7:8"}"#,
        );
        let spec = make(text.as_bytes(), None, folder.path()).unwrap();
        let process = spec.process().clone().unwrap();
        assert_eq!(command(&spec), "/run x");
        assert_eq!((process.user().uid(), process.user().gid()), (7, 8));
        assert_eq!(process.cwd().to_str(), Some("/srv"));
        assert_eq!(process.env().clone().unwrap()[0], "A=b");
        assert!(process.env().clone().unwrap()[1].starts_with("PATH="));
        let other = ["/other".to_owned(), "y z".to_owned()];
        let spec = make(text.as_bytes(), Some(&other), folder.path()).unwrap();
        assert_eq!(command(&spec), "/other y z");
        let none = make(config("{}").as_bytes(), None, folder.path());
        assert!(matches!(none, Err(RecordError::NoCommand)));
        let broken = make(b"{", None, folder.path());
        assert!(matches!(broken, Err(RecordError::Config(_))));
    }
}
