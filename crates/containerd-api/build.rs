//! Compiles `proto/`, without protoc.

use std::error::Error;

const FILES: [&str; 8] = [
    "containers.proto",
    "content.proto",
    "cri.proto",
    "introspection.proto",
    "leases.proto",
    "namespaces.proto",
    "snapshots.proto",
    "version.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("all.rs")
        .compile_fds(files)?;
    Ok(())
}
