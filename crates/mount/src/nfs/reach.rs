//! Which of the servers can be reached now.
//!
//! All are asked at once, each on a thread of its own: name resolution has no deadline of its
//! own, so a thread may stay behind for the resolver's.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use uimgacc_types::source::{Host, NfsServer};

/// How long the others may lag behind the first that answered.
const GRACE: Duration = Duration::from_millis(300);

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum UnreachableError {
    /// The name has no address.
    #[error("its name cannot be resolved ({0}); look into the node's DNS, or give an IP address")]
    Name(io::Error),
    /// No connection.
    #[error(
        "no connection to {address} ({error}); is this the NFS server's address, and may this node reach it?"
    )]
    Connect {
        /// The server's address.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// No answer in time.
    #[error(
        "no answer on port {port} in time (at most {seconds} s); is this the NFS server's address, and may this node reach it?"
    )]
    Late {
        /// The port.
        port: u16,
        /// How long it had.
        seconds: u64,
    },
}

/// A server that takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) server: SocketAddr,
    /// This machine's address on the way there.
    pub(crate) client: IpAddr,
}

pub(crate) type Answer = (NfsServer, Result<Reached, UnreachableError>);

/// Asks all servers; those that answered first, each part in the servers' order.
///
/// Ends shortly after one has answered: the others may be dead.
pub(crate) fn all(servers: &[NfsServer], deadline: Duration) -> Vec<Answer> {
    let (sender, receiver) = mpsc::channel();
    let resolved: Arc<Vec<AtomicBool>> = Arc::new(servers.iter().map(|_| false.into()).collect());
    for (number, server) in servers.iter().cloned().enumerate() {
        let (sender, resolved) = (sender.clone(), resolved.clone());
        let ask = move || {
            let answer = one(&server, deadline, &resolved[number]);
            // Nobody listens after the deadline.
            let _ = sender.send((number, answer));
        };
        if let Err(error) = thread::Builder::new()
            .name("nfs-reach".to_owned())
            .spawn(ask)
        {
            tracing::warn!(%error, "no thread to ask a server with");
        }
    }
    drop(sender);
    let mut answers: Vec<Option<Result<Reached, UnreachableError>>> =
        servers.iter().map(|_| None).collect();
    let mut end = Instant::now() + deadline;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        let Ok((number, answer)) = receiver.recv_timeout(rest) else {
            break;
        };
        if answer.is_ok() {
            end = end.min(Instant::now() + GRACE);
        }
        if let Some(place) = answers.get_mut(number) {
            *place = Some(answer);
        }
    }
    let seconds = deadline.as_secs();
    let late = |server: &NfsServer, is_resolved: bool| {
        if is_resolved {
            let port = server.port();
            return UnreachableError::Late { port, seconds };
        }
        // Resolvers wait longer than we do: musl's 10 s for a DNS server that does not answer.
        let text = format!("no answer within {seconds} s");
        UnreachableError::Name(io::Error::new(io::ErrorKind::TimedOut, text))
    };
    let mut answers: Vec<Answer> = servers
        .iter()
        .zip(answers)
        .zip(resolved.iter())
        .map(|((server, answer), resolved)| {
            let late = || Err(late(server, resolved.load(Ordering::Relaxed)));
            (server.clone(), answer.unwrap_or_else(late))
        })
        .collect();
    // Stable, so the order within both parts stays.
    answers.sort_by_key(|(_, answer)| answer.is_err());
    answers
}

/// Sets `resolved` once the server's name has addresses.
fn one(
    server: &NfsServer,
    deadline: Duration,
    resolved: &AtomicBool,
) -> Result<Reached, UnreachableError> {
    let end = Instant::now() + deadline;
    let addresses: Vec<SocketAddr> = match &server.host {
        Host::Address(address) => vec![SocketAddr::new(*address, server.port())],
        Host::Name(name) => (name.as_str(), server.port())
            .to_socket_addrs()
            .map_err(UnreachableError::Name)?
            .collect(),
    };
    resolved.store(true, Ordering::Relaxed);
    let mut failure = UnreachableError::Name(io::Error::from(io::ErrorKind::NotFound));
    for address in addresses {
        // Zero is refused.
        let rest = end
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let connected =
            TcpStream::connect_timeout(&address, rest).and_then(|stream| stream.local_addr());
        match connected {
            Ok(local) => {
                return Ok(Reached {
                    server: address,
                    client: local.ip(),
                });
            }
            Err(error) => failure = UnreachableError::Connect { address, error },
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn server(host: &str, port: u16) -> NfsServer {
        let host = match host.parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(host.to_owned()),
        };
        NfsServer {
            host,
            port: Some(port),
        }
    }

    #[test]
    fn those_that_answer_come_first_and_the_others_say_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed_port = closed.local_addr().unwrap().port();
        drop(closed);
        let servers = [
            server("no-such-host.invalid", port),
            server("127.0.0.1", closed_port),
            server("localhost", port),
            server("127.0.0.1", port),
        ];
        let started = Instant::now();
        let answers = all(&servers, Duration::from_secs(5));
        assert!(started.elapsed() < Duration::from_secs(6));
        let order: Vec<&NfsServer> = answers.iter().map(|(server, _)| server).collect();
        assert_eq!(order, [&servers[2], &servers[3], &servers[0], &servers[1]]);
        let reached = answers[1].1.as_ref().unwrap();
        assert_eq!(reached.server.port(), port);
        assert_eq!(reached.client, IpAddr::from([127, 0, 0, 1]));
        let text = |number: usize| answers[number].1.as_ref().unwrap_err().to_string();
        assert!(text(3).contains("refused"), "{}", text(3));
        assert!(text(2).contains("cannot be resolved"), "{}", text(2));
    }

    #[test]
    fn a_server_that_drops_packets_does_not_hold_up_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // A full backlog takes no connection, and says nothing.
        let full = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        rustix::net::bind(&full, &any).unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let full = TcpListener::from(full);
        let full_address = full.local_addr().unwrap();
        let fill: Vec<_> = (0..4)
            .map(|_| TcpStream::connect_timeout(&full_address, Duration::from_millis(100)))
            .collect();
        assert!(fill.last().unwrap().is_err(), "the backlog is not full");
        let servers = [
            server("127.0.0.1", full_address.port()),
            server("127.0.0.1", port),
        ];
        let started = Instant::now();
        let answers = all(&servers, Duration::from_secs(20));
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(answers[0].0, servers[1]);
        let late = all(&servers[..1], Duration::from_secs(1));
        let text = late[0].1.as_ref().unwrap_err().to_string();
        assert!(text.contains("no "), "{text}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
