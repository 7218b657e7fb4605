//! Who asked for what, and what came of it: one JSON object a line. No secret is in it: of the
//! parameters only the names of images.

use std::io::Write;
use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use serde::Serialize;

/// Lines that may wait for whoever reads them. Beyond that they are counted and left out, so that a
/// log that stands still stops no request.
const WAITING: usize = 16 << 10;

/// One request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When it was answered, RFC 3339.
    pub time: String,
    /// Its ID, which the client was told too.
    pub request: String,
    /// Where it came from.
    pub peer: Option<IpAddr>,
    /// The action; empty where there was none or none that exists.
    pub action: &'static str,
    /// The public key, where somebody has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Whether it was signed by that key's owner.
    pub is_verified: bool,
    /// The project that was asked for, where it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The cluster, where it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The images that are named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// `RetCode`.
    pub code: u16,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Microseconds from the end of its head to its answer.
    pub micros: u64,
}

/// Where entries go.
#[derive(Debug, Clone)]
pub struct Log(SyncSender<String>);

impl Log {
    /// One that a thread of its own writes to `out`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(mut out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (sender, lines) = sync_channel::<String>(WAITING);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                while let Ok(line) = lines.recv() {
                    let mut all = line;
                    // What came meanwhile goes with it.
                    while let Ok(next) = lines.try_recv() {
                        all.push_str(&next);
                        if all.len() > 64 << 10 {
                            break;
                        }
                    }
                    if let Err(error) = out.write_all(all.as_bytes()).and_then(|()| out.flush()) {
                        tracing::error!(%error, "the audit log cannot be written");
                    }
                }
            })?;
        Ok(Self(sender))
    }

    /// Writes an entry; false where it is left out.
    #[must_use]
    pub fn write(&self, entry: &Entry) -> bool {
        let Ok(mut line) = serde_json::to_string(entry) else {
            return false;
        };
        line.push('\n');
        match self.0.try_send(line) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    struct Lines(Sender<Vec<u8>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0
                .send(bytes.to_vec())
                .map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_object_a_line() {
        let (sender, lines) = channel();
        let log = Log::new(Lines(sender)).unwrap();
        let entry = Entry {
            action: "GetUK8SImageAccelerate",
            message: Some("a\nb".to_owned()),
            ..Entry::default()
        };
        assert!(log.write(&entry));
        let line = String::from_utf8(lines.recv().unwrap()).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], "a\nb");
    }

    #[test]
    fn a_log_that_stands_still_stops_nobody() {
        struct Still;
        impl Write for Still {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                loop {
                    std::thread::park();
                }
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let log = Log::new(Still).unwrap();
        let written = (0..WAITING * 2)
            .filter(|_| log.write(&Entry::default()))
            .count();
        // One batch is with the writer.
        assert!((WAITING..WAITING * 2).contains(&written), "{written}");
    }
}
