//! Ten thousand requests at once, among slow clients.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::stage::{code, form, post, read, request, signed, two_projects};

const REQUESTS: usize = 10_000;
const THREADS: usize = 50;

#[test]
fn ten_thousand_requests_at_once() {
    more_files();
    let server = two_projects();
    // Some that say nothing, and some that never end their request.
    let _silent: Vec<TcpStream> = (0..500)
        .map(|_| TcpStream::connect(server.address()).unwrap())
        .collect();
    let _slow: Vec<TcpStream> = (0..500)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\n").unwrap();
            stream
        })
        .collect();
    // Each is connected and has sent its half before the first is ended.
    let pairs = signed(
        &[
            ("Action", "GetUK8SImageAccelerate"),
            ("PublicKey", "b"),
            ("ProjectId", "org-b"),
            // Not theirs: no cluster need be asked.
            ("ClusterId", "uk8s-a"),
        ],
        "private-b",
    );
    let kind = Some("application/x-www-form-urlencoded");
    let bytes = request("POST", "/", kind, form(&pairs).as_bytes());
    let (begin, end) = bytes.split_at(bytes.len() - 5);
    let (barrier, answered) = (Barrier::new(THREADS), AtomicUsize::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut streams: Vec<TcpStream> = (0..REQUESTS / THREADS)
                    .map(|_| {
                        let mut stream = TcpStream::connect(server.address()).unwrap();
                        stream
                            .set_read_timeout(Some(Duration::from_secs(60)))
                            .unwrap();
                        stream.write_all(begin).unwrap();
                        stream
                    })
                    .collect();
                barrier.wait();
                for stream in &mut streams {
                    // One that came too slowly for the server is answered already.
                    let _ = stream.write_all(end);
                }
                for stream in streams {
                    let (head, body) = read(stream);
                    assert!(body.contains("\"RetCode\":230"), "{head}\n{body}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (now, most) = server.memory();
    println!(
        "{REQUESTS} requests in {:?}; memory {now} bytes, at most {most}",
        began.elapsed()
    );
    assert_eq!(answered.load(Ordering::Relaxed), REQUESTS);
    assert!(most < 100 << 20, "{most} bytes");
    // It serves on.
    assert_eq!(code(&post(&server, &pairs)).0, 230);
    assert!(!server.log().contains("panicked"));
}

/// The test has as many sockets as the server; the server inherits the limit.
fn more_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
