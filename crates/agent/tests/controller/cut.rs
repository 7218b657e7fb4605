//! The network is cut while a leader writes, and comes back when another leads.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::Duration;

use kube::{Client, Config};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use uimgacc_agent::controller::fence::{Fence, now};
use uimgacc_testkit::process::run;
use uimgacc_testkit::{Need, ready};

/// How long the kernel of a leader keeps what the network does not take.
const PATIENCE: Duration = Duration::from_millis(1000);
/// How long the network is cut.
const CUT: Duration = Duration::from_secs(3);
/// Until the kernel that keeps on trying has got it through after that, by its growing pauses.
const HEARD: Duration = Duration::from_secs(15);
const SERVER: &str = "198.18.0.1";
const CLIENT: &str = "198.18.0.2";

/// Two network namespaces with a link between them.
struct Network([String; 2]);

impl Network {
    fn new() -> Self {
        let name = |side| format!("uimgacc-cut-{}-{side}", std::process::id());
        let [server, client] = ["server", "client"].map(name);
        let network = Self([server.clone(), client.clone()]);
        for namespace in &network.0 {
            ip(&["netns", "add", namespace]);
        }
        let link = ["-n", &server, "link", "add", "wire", "type", "veth"];
        ip(&[&link[..], &["peer", "name", "wire", "netns", &client]].concat());
        for (namespace, address) in [(&server, SERVER), (&client, CLIENT)] {
            let address = format!("{address}/30");
            ip(&["-n", namespace, "address", "add", &address, "dev", "wire"]);
            ip(&["-n", namespace, "link", "set", "wire", "up"]);
        }
        network
    }

    /// Does it in the namespace of the server (0) or the client (1).
    fn within<T: Send>(&self, side: usize, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.0[side])).unwrap();
        let enter = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    fn switch(&self, state: &str) {
        ip(&["-n", &self.0[0], "link", "set", "wire", state]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.0 {
            let _ = Command::new("ip")
                .args(["netns", "delete", namespace])
                .status();
        }
    }
}

fn ip(args: &[&str]) {
    run(Command::new("ip").args(args));
}

fn put(path: &str) -> http::Request<Vec<u8>> {
    let request = http::Request::builder().method(http::Method::PUT).uri(path);
    request.body(Vec::new()).unwrap()
}

/// Answers the first request of a connection.
fn answer(listener: &TcpListener) -> TcpStream {
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(HEARD)).unwrap();
    let mut buffer = [0; 4096];
    assert!(peer.read(&mut buffer).unwrap() > 0);
    peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        .unwrap();
    peer
}

/// What comes next, if anything comes before the connection ends or the patience of the test.
fn heard(mut peer: TcpStream) -> String {
    let mut buffer = [0; 4096];
    match peer.read(&mut buffer) {
        Ok(count) => String::from_utf8_lossy(&buffer[..count]).into_owned(),
        Err(error) => {
            let ends = [ErrorKind::WouldBlock, ErrorKind::ConnectionReset];
            assert!(ends.contains(&error.kind()), "{error}");
            String::new()
        }
    }
}

#[test]
fn what_a_cut_network_did_not_take_never_comes() {
    if !ready(&[Need::Root]) {
        return;
    }
    let network = Network::new();
    let listener = network.within(0, || TcpListener::bind((SERVER, 0)).unwrap());
    let uri = format!("http://{SERVER}:{}", listener.local_addr().unwrap().port());
    let (fenced, plain) = network.within(1, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let config = Config::new(uri.parse().unwrap());
            let plain = Client::try_from(config.clone()).unwrap();
            let fence = Fence::default();
            fence.open_until(now().plus(Duration::from_secs(60)));
            let fenced = fence.client(config, PATIENCE).unwrap();
            let mut peers = Vec::new();
            for client in [&fenced, &plain] {
                let listener = listener.try_clone().unwrap();
                let peer = tokio::task::spawn_blocking(move || answer(&listener));
                client.request_text(put("/early")).await.unwrap();
                peers.push(peer.await.unwrap());
            }
            network.switch("down");
            // The lease is held all the time: this is the kernel's part alone.
            let late = |client: Client| async move { client.request_text(put("/late")).await };
            let (fenced, plain) = (tokio::spawn(late(fenced)), tokio::spawn(late(plain)));
            tokio::time::sleep(CUT).await;
            assert!(fenced.is_finished() && !plain.is_finished());
            fenced.await.unwrap().unwrap_err();
            network.switch("up");
            let heard = |peer| tokio::task::spawn_blocking(move || heard(peer));
            let plain = heard(peers.remove(1)).await.unwrap();
            let fenced = peers.remove(0);
            fenced.set_read_timeout(Some(CUT)).unwrap();
            (heard(fenced).await.unwrap(), plain)
        })
    });
    assert!(plain.starts_with("PUT /late"), "{plain}");
    assert_eq!(fenced, "");
}
