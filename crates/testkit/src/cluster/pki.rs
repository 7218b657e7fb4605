//! The certificates, keys, tokens and kubeconfigs of a cluster, made by `openssl`.
//!
//! People and components sign in by token; the kube-apiserver signs in at the kubelets by certificate, as usual.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::process::run;

/// The folder of all that, with the address it is made for.
#[derive(Debug)]
pub(super) struct Pki {
    dir: PathBuf,
    server: String,
}

impl Pki {
    /// Makes everything in the new folder `dir`. `users` are pairs of name and groups (with commas between); each gets a token and a
    /// kubeconfig.
    pub(super) fn make(dir: &Path, api: Ipv4Addr, users: &[(String, &str)]) -> Self {
        fs::create_dir(dir).expect("a new folder");
        let pki = Self {
            dir: dir.to_owned(),
            server: format!("https://{api}"),
        };
        let config = format!(
            "[req]\ndistinguished_name = dn\n[dn]\n\
             [ca]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\n\
             [leaf]\nbasicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
             extendedKeyUsage = serverAuth, clientAuth\n\
             subjectAltName = IP:{api}, IP:127.0.0.1, DNS:localhost, DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc\n"
        );
        fs::write(pki.file("openssl.cnf"), config).expect("openssl.cnf can be written");
        pki.certificate("ca", "/CN=test-ca", "ca");
        pki.certificate("apiserver", "/CN=kube-apiserver", "leaf");
        pki.certificate(
            "apiserver-kubelet-client",
            "/O=system:masters/CN=kube-apiserver-kubelet-client",
            "leaf",
        );
        run(Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC", "-pkeyopt"])
            .args(["ec_paramgen_curve:P-256", "-out"])
            .arg(pki.file("service-accounts.key")));
        run(Command::new("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(pki.file("service-accounts.key"))
            .arg("-out")
            .arg(pki.file("service-accounts.pub")));
        let mut tokens = String::new();
        for (user, groups) in users {
            let token = random_token();
            tokens.push_str(&format!("{token},{user},{user},\"{groups}\"\n"));
            fs::write(pki.kubeconfig(user), pki.kubeconfig_text(user, &token))
                .expect("a kubeconfig can be written");
        }
        fs::write(pki.file("tokens.csv"), tokens).expect("the tokens can be written");
        pki
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The kubeconfig of a user.
    pub(super) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir
            .join(format!("{}.kubeconfig", user.replace(':', "-")))
    }

    fn certificate(&self, name: &str, subject: &str, extensions: &str) {
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-nodes", "-days", "30", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", subject])
            .arg("-config")
            .arg(self.file("openssl.cnf"))
            .args(["-extensions", extensions, "-keyout"])
            .arg(self.file(&format!("{name}.key")))
            .arg("-out")
            .arg(self.file(&format!("{name}.crt")));
        if name != "ca" {
            command
                .arg("-CA")
                .arg(self.file("ca.crt"))
                .arg("-CAkey")
                .arg(self.file("ca.key"));
        }
        run(&mut command);
    }

    /// YAML, by way of JSON, which is a part of it.
    fn kubeconfig_text(&self, user: &str, token: &str) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.server, "certificate-authority": self.file("ca.crt")}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        })
        .to_string()
    }
}

fn random_token() -> String {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("random bytes");
    crate::image::hex(&bytes)
}
