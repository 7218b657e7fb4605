//! Compressed layers to tar bytes.
//!
//! What the bytes are is read from their first ones, as containerd does; media types lie.

use std::io::{self, BufRead, Read};

/// Turns a layer's blob into its tar.
///
/// # Errors
/// The stream failed before its first bytes.
pub fn decompress<'a, R: BufRead + 'a>(mut blob: R) -> io::Result<Box<dyn Read + 'a>> {
    let start = blob.fill_buf()?;
    Ok(match start {
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
