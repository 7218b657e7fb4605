//! How many connections are read from at once: so many in all, and no more than a part of them of one peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Peers that are remembered before those are forgotten that have no connection.
const REMEMBERED: usize = 1024;

/// The limit.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    all: Arc<Semaphore>,
    of_one: usize,
    peers: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// A connection that may be read from; its place is free once this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    _peer: Arc<Semaphore>,
}

impl ConnectionLimit {
    /// So many in all and so many of one peer.
    #[must_use]
    pub(crate) fn new(all: usize, of_one: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            of_one,
            peers: Mutex::default(),
        }
    }

    /// Waits for a place; `None` never comes while the server runs. A peer that has all of its own waits
    /// without holding up others.
    pub(crate) async fn acquire(&self, peer: IpAddr) -> Option<ConnectionPermit> {
        let peer = self.peer(network(peer));
        let own = peer.clone().acquire_owned().await.ok()?;
        let all = self.all.clone().acquire_owned().await.ok()?;
        Some(ConnectionPermit {
            _own: own,
            _all: all,
            _peer: peer,
        })
    }

    /// A place that is free now; of one address, for a whole network may be that of a cluster.
    pub(crate) fn try_acquire(&self, peer: IpAddr) -> Option<ConnectionPermit> {
        let peer = self.peer(peer);
        Some(ConnectionPermit {
            _own: peer.clone().try_acquire_owned().ok()?,
            _all: self.all.clone().try_acquire_owned().ok()?,
            _peer: peer,
        })
    }

    fn peer(&self, network: IpAddr) -> Arc<Semaphore> {
        let mut peers = self.peers.lock();
        if let Some(known) = peers.get(&network).and_then(Weak::upgrade) {
            return known;
        }
        if peers.len() >= REMEMBERED {
            peers.retain(|_, peer| peer.strong_count() > 0);
        }
        let new = Arc::new(Semaphore::new(self.of_one));
        peers.insert(network, Arc::downgrade(&new));
        new
    }
}

/// Who has an address of IPv6 has 64 bits of them.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => {
                let bits = six.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn one_peer_does_not_take_all() {
        let turns = ConnectionLimit::new(3, 2);
        let (one, other): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let soon = Duration::from_millis(50);
        let first = turns.acquire(one).await.unwrap();
        let _second = turns.acquire(one).await.unwrap();
        assert!(
            tokio::time::timeout(soon, turns.acquire(one))
                .await
                .is_err()
        );
        assert!(turns.try_acquire(one).is_none());
        let _third = turns.acquire(other).await.unwrap();
        assert!(
            tokio::time::timeout(soon, turns.acquire(other))
                .await
                .is_err()
        );
        assert!(turns.try_acquire(other).is_none());
        drop(first);
        assert!(turns.try_acquire(one).is_some());
        assert!(
            tokio::time::timeout(soon, turns.acquire(other))
                .await
                .is_ok()
        );
    }

    #[test]
    fn networks() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("10.0.0.1"), "10.0.0.1");
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
