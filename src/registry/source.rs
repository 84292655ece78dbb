//! Where connections come from, and what they are counted by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a connection comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Over TCP.
    Tcp(SocketAddr),
    /// From an address of which no port is known: a back end named it.
    Ip(IpAddr),
    /// Over a Unix socket, by a process of this user id.
    Unix {
        /// The user id, if the system tells it.
        uid: Option<u32>,
    },
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Unix { uid: Some(uid) } => write!(f, "unix:uid={uid}"),
            Self::Unix { uid: None } => f.write_str("unix"),
        }
    }
}

impl Remote {
    /// What is counted as one source: an IPv4 address, an IPv6 network of 64 bits, or all Unix sockets.
    #[must_use]
    pub fn source(&self) -> Source {
        let address = match self {
            Self::Tcp(address) => address.ip(),
            Self::Ip(address) => *address,
            Self::Unix { .. } => return Source(None),
        };
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                Source(Some(IpAddr::V6(Ipv6Addr::from_bits(network))))
            }
            address @ IpAddr::V4(_) => Source(Some(address)),
        }
    }

    /// The address that a text names, with a port or without one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Ip(address.to_canonical()));
        }
        let address: SocketAddr = text.parse().ok()?;
        Some(Self::Tcp(SocketAddr::new(
            address.ip().to_canonical(),
            address.port(),
        )))
    }
}

/// What connections, requests and failed logins are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(Option<IpAddr>);

/// What the sources of one customer or provider have in common: an IPv4 network of 24 bits, an IPv6 network of 48 bits, or
/// all Unix sockets. One client can have any number of the addresses in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(Option<IpAddr>);

impl Source {
    /// The address, or the first one of its network; none for Unix sockets.
    #[must_use]
    pub const fn address(self) -> Option<IpAddr> {
        self.0
    }

    /// The network that it is in.
    #[must_use]
    pub fn network(self) -> Network {
        Network(self.0.map(|address| match address {
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() >> 8 << 8)),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 80 << 80)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_what_one_customer_may_have() {
        let network = |text: &str| Remote::parse(text).unwrap().source().network();
        assert_eq!(network("192.0.2.1"), network("192.0.2.255"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:ffff::9"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.7"));
    }
}
