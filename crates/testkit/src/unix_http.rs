//! HTTP over a Unix socket, as the snapshotter's status has it.

use std::io::{Error, Read as _, Result, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The body of the answer to a GET.
///
/// # Errors
/// The system's error, or no HTTP.
pub fn get(socket: &Path, path: &str) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    // HTTP/1.0: the answer ends with the connection, so it has no chunks.
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = b"\r\n\r\n";
    let head = answer.windows(end.len()).position(|window| window == end);
    let head = head.ok_or_else(|| Error::other("no HTTP"))?;
    Ok(answer.split_off(head + end.len()))
}
