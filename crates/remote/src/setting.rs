//! The settings of a client, by the names that the original script gave them.

/// A setting: a key of the configuration file and a variable of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Where the cluster is.
    Region,
    /// The project that it is in.
    ProjectId,
    /// Whose requests these are.
    PublicKey,
    /// What they are signed with.
    PrivateKey,
    /// Which cluster.
    ClusterId,
    /// The subnet of the store.
    SubnetId,
    /// The NFS server of the store.
    NfsAddr,
    /// User at the image registry.
    UhubUsername,
    /// The password of that user.
    UhubPassword,
    /// The service.
    BaseUrl,
}

impl Setting {
    /// All of them, in the order in which they are asked for.
    pub const ALL: [Self; 10] = [
        Self::Region,
        Self::ProjectId,
        Self::PublicKey,
        Self::PrivateKey,
        Self::ClusterId,
        Self::SubnetId,
        Self::NfsAddr,
        Self::UhubUsername,
        Self::UhubPassword,
        Self::BaseUrl,
    ];

    /// Its key in the file.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::ProjectId => "project_id",
            Self::PublicKey => "public_key",
            Self::PrivateKey => "private_key",
            Self::ClusterId => "cluster_id",
            Self::SubnetId => "subnet_id",
            Self::NfsAddr => "nfs_addr",
            Self::UhubUsername => "uhub_username",
            Self::UhubPassword => "uhub_password",
            Self::BaseUrl => "base_url",
        }
    }

    /// The variable that goes before the file.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Region => "UIMGACC_REGION",
            Self::ProjectId => "UIMGACC_PROJECT_ID",
            Self::PublicKey => "UIMGACC_PUBLIC_KEY",
            Self::PrivateKey => "UIMGACC_PRIVATE_KEY",
            Self::ClusterId => "UIMGACC_CLUSTER_ID",
            Self::SubnetId => "UIMGACC_SUBNET_ID",
            Self::NfsAddr => "UIMGACC_NFS_ADDR",
            Self::UhubUsername => "UIMGACC_UHUB_USERNAME",
            Self::UhubPassword => "UIMGACC_UHUB_PASSWORD",
            Self::BaseUrl => "UIMGACC_BASE_URL",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Region => "where the cluster is, such as cn-bj2",
            Self::ProjectId => "the project that the cluster is in, such as org-abc123",
            Self::PublicKey => "the public key of your account",
            Self::PrivateKey => "the private key of your account, which signs requests",
            Self::ClusterId => "the cluster, such as uk8s-abc123",
            Self::SubnetId => "the subnet of the NFS server, for enable",
            Self::NfsAddr => "the NFS server with its path, such as 10.0.0.1:/export, for enable",
            Self::UhubUsername => "user at the image registry, for enable",
            Self::UhubPassword => "the password of that user",
            Self::BaseUrl => "the address of the service",
        }
    }

    /// What it is where nobody says.
    #[must_use]
    pub const fn default(self) -> Option<&'static str> {
        match self {
            Self::BaseUrl => Some("https://api.ucloud.cn"),
            _ => None,
        }
    }

    /// Whether it must not be shown.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::PrivateKey | Self::UhubPassword)
    }

    /// The setting of a key.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|setting| setting.key() == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_the_keys() {
        for setting in Setting::ALL {
            let variable = format!("UIMGACC_{}", setting.key().to_uppercase());
            assert_eq!(setting.variable(), variable);
            assert_eq!(Setting::of_key(setting.key()), Some(setting));
        }
        assert_eq!(Setting::of_key("store"), None);
    }
}
