//! Compressed layers to tar bytes.
//!
//! What the bytes are is read from their first ones, as containerd does; media types lie.

use std::io::{self, BufRead, Cursor, Read};

/// As many bytes as tell what it is.
const MAGIC_BYTES: usize = 4;

/// Turns a layer's blob into its tar.
///
/// # Errors
/// The stream failed before its first bytes.
pub fn decompress<'a, R: BufRead + 'a>(mut blob: R) -> io::Result<Box<dyn Read + 'a>> {
    // The network may cut its chunks anywhere, also within these bytes.
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    (&mut blob)
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut start)?;
    let magic = start.clone();
    let blob = Cursor::new(start).chain(blob);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, 0x08, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        // A zstd frame, or a skippable frame in front of one (RFC 8878, sections 3.1.1, 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::Decoder::with_buffer(blob)?)
        }
        _ => Box::new(blob),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn plain(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decompress(blob)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn every_kind_and_members_in_a_row() {
        let gzip = |bytes: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        assert_eq!(plain(b"plain tar").unwrap(), b"plain tar");
        assert_eq!(
            plain(&[gzip(b"one"), gzip(b"two")].concat()).unwrap(),
            b"onetwo"
        );
        assert_eq!(
            plain(&[zstd(b"one"), zstd(b"two")].concat()).unwrap(),
            b"onetwo"
        );
        assert_eq!(
            plain(&[skippable.to_vec(), zstd(b"one")].concat()).unwrap(),
            b"one"
        );
        assert_eq!(plain(b"").unwrap(), b"");
    }

    /// Gives its bytes in pieces of one.
    struct Dripping<'a>(&'a [u8]);

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.fill_buf()?.read(buffer)?;
            self.consume(count);
            Ok(count)
        }
    }

    impl BufRead for Dripping<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            Ok(self.0.get(..1).unwrap_or_default())
        }

        fn consume(&mut self, count: usize) {
            self.0 = &self.0[count..];
        }
    }

    #[test]
    fn chunks_may_end_within_the_magic() {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(b"the tar").unwrap();
        let gzip = out.finish().unwrap();
        let zstd = zstd::encode_all(&b"the tar"[..], 1).unwrap();
        for blob in [gzip, zstd, b"the tar".to_vec()] {
            let mut bytes = Vec::new();
            let mut plain = decompress(Dripping(&blob)).unwrap();
            plain.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, b"the tar");
        }
    }

    #[test]
    fn cut_streams_fail() {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(&[7; 10_000]).unwrap();
        let gzip = out.finish().unwrap();
        let zstd = zstd::encode_all(&[7; 10_000][..], 1).unwrap();
        for blob in [gzip, zstd] {
            for end in 5..blob.len() {
                assert!(plain(&blob[..end]).is_err(), "{end} of {}", blob.len());
            }
        }
    }
}
