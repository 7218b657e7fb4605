//! The addresses of a cluster: a block of its own out of 10.200.0.0/13, so that several clusters run side by side on fixed ports.
//!
//! The kube-apiserver listens on the service address `kubernetes` itself (the first of the service range, port 443), which is an
//! address of the machine's loopback interface. So Pods reach it as they do in any cluster, with or without kube-proxy.
//!
//! On drop the address and the bridge are taken away; the nodes' ends of the bridge go with the nodes.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::process::run;

/// How many nodes a block has room for.
pub(super) const MAX_NODES: usize = 6;

/// A claimed block: eight networks of 256 addresses, for services, nodes, and the Pods of each node.
#[derive(Debug)]
pub(super) struct Block {
    second: u8,
    third: u8,
}

impl Block {
    /// Claims a free block and makes the nodes' bridge.
    ///
    /// # Panics
    /// Where 50 blocks are taken, or links cannot be made (that needs root).
    pub(super) fn claim() -> Self {
        for _attempt in 0..50 {
            let [second, third, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
            let block = Self {
                second: 200 | (second & 0b111),
                third: third & 0b1111_1000,
            };
            // The kernel gives an address once an interface, so this is the claim.
            let claim = ip(&[
                "address",
                "add",
                &format!("{}/32", block.api()),
                "dev",
                "lo",
            ]);
            let claimed = quiet(claim);
            if !claimed {
                // Not ours: its drop must not take it away.
                std::mem::forget(block);
                continue;
            }
            run(&mut ip(&["link", "add", &block.bridge(), "type", "bridge"]));
            let gateway = format!("{}/24", block.gateway());
            run(&mut ip(&[
                "address",
                "add",
                &gateway,
                "dev",
                &block.bridge(),
            ]));
            run(&mut ip(&["link", "set", &block.bridge(), "up"]));
            return block;
        }
        panic!("no free block of addresses in 10.200.0.0/13, or no right to add one");
    }

    fn network(&self, offset: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second, self.third + offset, host)
    }

    /// The range of the services.
    pub(super) fn services(&self) -> String {
        format!("{}/24", self.network(0, 0))
    }

    /// Where the kube-apiserver, etcd and the registry listen.
    pub(super) fn api(&self) -> Ipv4Addr {
        self.network(0, 1)
    }

    /// The machine as the nodes see it.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.network(1, 1)
    }

    /// The address of a node, counted from 0.
    pub(super) fn node(&self, index: u8) -> Ipv4Addr {
        self.network(1, 10 + index)
    }

    /// The range of the Pods of a node.
    pub(super) fn pods(&self, index: u8) -> String {
        format!("{}/24", self.network(2 + index, 0))
    }

    /// The nodes' bridge.
    pub(super) fn bridge(&self) -> String {
        format!("uig{}x{}", self.second, self.third)
    }

    /// The machine's end of a node's link.
    pub(super) fn link(&self, index: u8) -> String {
        format!("{}n{index}", self.bridge())
    }

    /// Links the network namespace of process `pid` to the bridge, as its `eth0`, and leads the way to its Pods.
    pub(super) fn connect(&self, index: u8, pid: u32) {
        let (link, bridge) = (self.link(index), self.bridge());
        run(ip(&["link", "add", &link, "type", "veth"])
            .args(["peer", "name", "eth0", "netns"])
            .arg(pid.to_string()));
        run(&mut ip(&["link", "set", &link, "master", &bridge, "up"]));
        let node = self.node(index).to_string();
        run(ip(&["route", "add", &self.pods(index), "via", &node]).args(["dev", &bridge]));
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        for index in 0..u8::try_from(MAX_NODES).unwrap_or(u8::MAX) {
            quiet(ip(&["link", "del", &self.link(index)]));
        }
        quiet(ip(&["link", "del", &self.bridge()]));
        quiet(ip(&[
            "address",
            "del",
            &format!("{}/32", self.api()),
            "dev",
            "lo",
        ]));
    }
}

fn ip(args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(args).stdin(Stdio::null());
    command
}

fn quiet(mut command: Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
