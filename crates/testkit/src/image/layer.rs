//! One layer: from a tar archive in memory or on disk to a blob, with both of its digests.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::hex;

/// Where the tar archive of a layer comes from.
#[derive(Debug, Clone)]
pub enum LayerSource {
    /// From memory.
    Bytes(Vec<u8>),
    /// From a file.
    File(PathBuf),
}

impl From<Vec<u8>> for LayerSource {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&Path> for LayerSource {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, level 1.
    Gzip,
    /// zstd, level 1.
    Zstd,
}

/// A layer as it was written.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) diff_id: String,
    pub(super) stored_bytes: u64,
}

/// Writes the layer into `dir` under the hex digits of its digest.
pub(super) fn write(source: &LayerSource, compression: Compression, dir: &Path) -> Blob {
    let mut plain: Box<dyn Read> = match source {
        LayerSource::Bytes(bytes) => Box::new(bytes.as_slice()),
        LayerSource::File(path) => Box::new(BufReader::with_capacity(
            1 << 20,
            File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        )),
    };
    let new = dir.join("layer.new");
    let file = BufWriter::with_capacity(1 << 20, File::create(&new).expect("a new file"));
    let mut stored = Hashing {
        inner: file,
        hash: Sha256::new(),
        bytes: 0,
    };
    let diff_id = match compression {
        Compression::None => copy(&mut plain, &mut stored),
        Compression::Gzip => {
            let mut packer =
                flate2::write::GzEncoder::new(&mut stored, flate2::Compression::fast());
            let diff_id = copy(&mut plain, &mut packer);
            packer.finish().expect("gzip ends");
            diff_id
        }
        Compression::Zstd => {
            let mut packer = zstd::Encoder::new(&mut stored, 1).expect("zstd starts");
            let diff_id = copy(&mut plain, &mut packer);
            packer.finish().expect("zstd ends");
            diff_id
        }
    };
    stored.flush().expect("the layer can be written");
    let name = hex(&stored.hash.finalize());
    std::fs::rename(&new, dir.join(&name)).expect("the layer can be renamed");
    Blob {
        digest: format!("sha256:{name}"),
        diff_id,
        stored_bytes: stored.bytes,
    }
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> String {
    let mut hashing = Hashing {
        inner: to,
        hash: Sha256::new(),
        bytes: 0,
    };
    io::copy(from, &mut hashing).expect("the layer can be copied");
    format!("sha256:{}", hex(&hashing.hash.finalize()))
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += u64::try_from(written).expect("a length fits 64 bits");
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
