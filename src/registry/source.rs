//! Where connections come from, and what they are counted by.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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

impl Source {
    /// The address, or the first one of its network; none for Unix sockets.
    #[must_use]
    pub const fn address(self) -> Option<IpAddr> {
        self.0
    }
}
