//! Platforms in the names of Go (`GOOS`, `GOARCH`), as OCI images use them. Pure.

use std::fmt;
use std::str::FromStr;

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no platform, expected OS/ARCHITECTURE[/VARIANT] such as linux/amd64 or linux/arm/v7"
)]
pub struct ParsePlatformError {
    text: String,
}

/// An operating system and a processor; always in the normal form (`aarch64` is `arm64`, `arm64/v8`
/// is `arm64`, `arm` is `arm/v7`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// Brings the parts, as a manifest or config gives them, into normal form.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = os.to_ascii_lowercase();
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = normalise(&architecture, &variant);
        Self {
            os: if os == "macos" {
                "darwin".to_owned()
            } else {
                os
            },
            architecture: architecture.to_owned(),
            variant: (!variant.is_empty()).then(|| variant.to_owned()),
        }
    }

    /// The platform that this program was built for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, None)
    }

    /// Such as `linux`.
    #[must_use]
    pub fn os(&self) -> &str {
        &self.os
    }

    /// Such as `amd64`.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Such as `v7`.
    #[must_use]
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Which images run on this platform, best first: itself, then older variants, then 32 bits
    /// (the rules of containerd's `platforms.Only`).
    #[must_use]
    pub fn accepted(&self) -> Vec<Self> {
        let with =
            |architecture: &str, variant: &str| Self::new(&self.os, architecture, Some(variant));
        let level = self
            .variant()
            .and_then(|v| v.strip_prefix('v'))
            .and_then(|v| v.parse::<u8>().ok());
        let mut accepted = vec![self.clone()];
        match self.architecture.as_str() {
            "amd64" => {
                for older in (1..level.unwrap_or(1).min(9)).rev() {
                    accepted.push(with("amd64", &format!("v{older}")));
                }
                accepted.push(with("386", ""));
            }
            "arm" => {
                for older in (5..level.unwrap_or(5).min(9)).rev() {
                    accepted.push(with("arm", &format!("v{older}")));
                }
            }
            "arm64" => {
                if level.is_some_and(|level| level > 8) {
                    accepted.push(with("arm64", ""));
                }
                accepted.extend(with("arm", "v8").accepted());
            }
            _ => {}
        }
        accepted
    }
}

fn normalise<'a>(architecture: &'a str, variant: &'a str) -> (&'a str, &'a str) {
    match (architecture, variant) {
        ("i386" | "x86" | "386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1" | "1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "v8" | "8") => ("arm64", ""),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// `os/architecture[/variant]`; a lone part is an architecture of Linux.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParsePlatformError {
            text: text.chars().take(100).collect(),
        };
        let is_word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(is_word) {
            return Err(bad());
        }
        match parts[..] {
            ["linux" | "windows" | "darwin" | "freebsd"] => Err(bad()),
            [architecture] => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests;
