//! A layer's bytes on their way from the network to the thread that unpacks them, hashed on the
//! way.

use std::io::{self, BufRead, Read};

use bytes::{Buf as _, Bytes};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use uimgacc_types::{DiffId, Digest};

/// What the network side hands over; an error ends the stream.
pub(crate) type Chunk = Result<Bytes, io::Error>;

/// Chunks of a layer that may wait between network and unpacking. With the registry's chunks of
/// some 16 KiB to 64 KiB this bounds the memory of a layer in flight to about 4 MiB.
pub(crate) const CHUNKS_IN_FLIGHT: usize = 64;

/// The blob as a blocking reader that hashes what passes.
pub(crate) struct BlobReader {
    chunks: mpsc::Receiver<Chunk>,
    current: Bytes,
    hasher: Sha256,
    read_bytes: u64,
    is_ended: bool,
    failure: Option<io::Error>,
}

impl BlobReader {
    pub(crate) fn new(chunks: mpsc::Receiver<Chunk>) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
            hasher: Sha256::new(),
            read_bytes: 0,
            is_ended: false,
            failure: None,
        }
    }

    /// Reads what is left and gives length and digest of the whole blob.
    pub(crate) fn finish(&mut self) -> io::Result<(u64, Digest)> {
        loop {
            let len = self.fill_buf()?.len();
            if len == 0 {
                return Ok((
                    self.read_bytes,
                    Digest::from_bytes(self.hasher.clone().finalize().into()),
                ));
            }
            self.consume(len);
        }
    }

    /// Why the network side ended the stream, once.
    pub(crate) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.is_ended {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => {
                    self.hasher.update(&chunk);
                    self.read_bytes += chunk.len() as u64;
                    self.current = chunk;
                }
                Some(Err(error)) => {
                    self.is_ended = true;
                    let told = io::Error::new(error.kind(), error.to_string());
                    self.failure = Some(error);
                    return Err(told);
                }
                None => self.is_ended = true,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count.min(self.current.len()));
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), available.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

/// The tar as a reader that hashes what passes and refuses to grow beyond a bound.
pub(crate) struct DiffReader<R> {
    inner: R,
    hasher: Sha256,
    read_bytes: u64,
    max_bytes: u64,
}

impl<R: Read> DiffReader<R> {
    pub(crate) fn new(inner: R, max_bytes: u64) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            read_bytes: 0,
            max_bytes,
        }
    }

    /// Whether it stopped because the layer grew beyond its bound.
    pub(crate) fn is_over(&self) -> bool {
        self.read_bytes > self.max_bytes
    }

    /// Reads what is left and gives the diff ID.
    pub(crate) fn finish(&mut self) -> io::Result<DiffId> {
        let mut buffer = vec![0; 64 << 10];
        while self.read(&mut buffer)? > 0 {}
        Ok(DiffId::from_bytes(self.hasher.clone().finalize().into()))
    }
}

impl<R: Read> Read for DiffReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over() {
            return Err(io::Error::other("the layer grows beyond its bound"));
        }
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.read_bytes += count as u64;
        Ok(count)
    }
}
