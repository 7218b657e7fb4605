//! Free ports of the machine's own addresses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A port of `ip` that nobody listens on now. Somebody may take it before its user does, so the user must be ready to ask again.
pub(crate) fn free_port(ip: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    listener
        .local_addr()
        .expect("the address of a bound socket")
        .port()
}

/// Whether somebody listens on that port of `ip`.
pub(crate) fn answers(ip: Ipv4Addr, port: u16) -> bool {
    let address = SocketAddr::from((ip, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}
