//! Any text as a filter of containerd.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| uimgacc_snapshotter::fuzzing::filter(text));
