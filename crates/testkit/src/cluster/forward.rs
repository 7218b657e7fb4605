//! Makes a loopback port of the machine reachable as the same loopback port of a node, whose network is its own.
//!
//! A socket stays in the network namespace it was made in: one thread makes the listener inside the node's, others connect outside.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A running forward. Ends on drop; connections that are open then end with their peers.
#[derive(Debug)]
pub(super) struct Forward {
    port: u16,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Forward {
    /// Forwards `127.0.0.1:port` of the network namespace of process `pid` to the machine's.
    ///
    /// # Panics
    /// Where the port is taken there.
    pub(super) fn start(pid: u32, port: u16) -> Self {
        let listener = thread::spawn(move || listen_in(pid, port))
            .join()
            .expect("the thread ends")
            .unwrap_or_else(|error| panic!("cannot listen on port {port} of the node: {error}"));
        listener
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let accepting = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((inside, _)) => drop(thread::spawn(move || join(&inside, port))),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self {
            port,
            stopping,
            accepting: Some(accepting),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.accepting.take() {
            let _ended = thread.join();
        }
    }
}

/// For a thread of its own, which stays in that namespace.
fn listen_in(pid: u32, port: u16) -> io::Result<TcpListener> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&namespace),
        Some(LinkNameSpaceType::Network),
    )?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

fn join(inside: &TcpStream, port: u16) {
    let Ok(outside) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) else {
        return;
    };
    // An accepted socket may have taken over the listener's mode.
    let _blocking = inside.set_nonblocking(false);
    thread::scope(|scope| {
        scope.spawn(|| pump(inside, &outside));
        pump(&outside, inside);
    });
}

fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    let _copied = io::copy(&mut from, &mut to);
    let _told = to.shutdown(Shutdown::Write);
}
