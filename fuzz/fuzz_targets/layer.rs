//! Any bytes as a layer, compressed or not: an error, or a tree that can be written, within its limits.
#![no_main]

use std::io::{BufReader, Read};

use libfuzzer_sys::fuzz_target;
use uimgacc_convert::decompress;
use uimgacc_convert::layer::{ContentSink, LayerLimits, MetadataBudget, Placed, read_layer};
use uimgacc_convert::tar::TarReader;
use uimgacc_erofs::Limits;
use uimgacc_erofs::tree::Device;
use uimgacc_store::{PutError, flatten};
use uimgacc_types::Extent;

const MAX_BYTES: u64 = 1 << 24;

/// A pack that keeps nothing.
struct Sink(u64);

impl ContentSink for Sink {
    fn put(&mut self, source: &mut dyn Read, len_bytes: u64) -> Result<Placed, PutError> {
        assert!(len_bytes > 0 && len_bytes <= MAX_BYTES);
        let read = std::io::copy(&mut source.take(len_bytes), &mut std::io::sink());
        let missing = len_bytes - read.map_err(PutError::Source)?;
        if missing > 0 {
            return Err(PutError::Short { missing });
        }
        let extent = Extent {
            offset_bytes: self.0,
            len_bytes,
        };
        self.0 = (self.0 + len_bytes).next_multiple_of(4096);
        let (tag, blocks) = ([b'a'; 64], 1 << 20);
        let device = Device { tag, blocks };
        Ok(Placed { device, extent })
    }
}

/// Right checksums, so that the fuzzer gets past them.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut tar = bytes.to_vec();
    for header in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

fuzz_target!(|layers: (bool, &[u8], &[u8])| {
    let (is_plain, first, second) = layers;
    let mut sink = Sink(0);
    let mut trees = Vec::new();
    for (bytes, is_base) in [(first, true), (second, false)] {
        let limits = LayerLimits {
            metadata: MetadataBudget::new(MAX_BYTES),
            stored_bytes: MAX_BYTES,
        };
        let bytes = if is_plain { with_checksums(bytes) } else { bytes.to_vec() };
        let Ok(stream) = decompress(bytes.as_slice()) else {
            return;
        };
        let mut tar = TarReader::new(BufReader::new(stream.take(MAX_BYTES)));
        let Ok(tree) = read_layer(&mut tar, &mut sink, is_base, &limits) else {
            return;
        };
        trees.push(tree);
    }
    if let Ok(tree) = flatten::flatten(&trees) {
        trees.push(tree);
    }
    for tree in trees {
        if uimgacc_erofs::check(&tree, &Limits::default()).is_ok() {
            let mut image = Vec::new();
            uimgacc_erofs::write(&tree, &mut image).expect("a tree that was checked can be written");
            let again = uimgacc_erofs::read(&image, &Limits::default());
            again.expect("what was written can be read");
        }
    }
});
