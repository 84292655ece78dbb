//! `trusted_proxies`: the peers of a listener that say for whom a connection comes (protocol.md, 7).

use super::ConfigError;
use crate::registry::Remote;
use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;

/// What stands for every peer of a Unix socket.
const UNIX: &str = "unix";
/// Bits of an IPv6 address before the IPv4 address that is mapped into it.
const MAPPED_BITS: u8 = 96;

/// The proxies that a listener trusts; none, unless some are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<IpNet>,
    /// Whether the peers of the Unix socket are proxies.
    unix: bool,
}

impl Proxies {
    /// Whether this peer begins its connections with a PROXY header, which is believed.
    #[must_use]
    pub fn trust(&self, peer: &Remote) -> bool {
        match peer {
            Remote::Tcp(address) => self.holds(address.ip()),
            Remote::Ip(address) => self.holds(*address),
            Remote::Unix { .. } => self.unix,
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut networks = self.networks.iter();
        networks.any(|network| network.contains(&address))
    }

    /// Whether anybody is trusted who can connect from anywhere.
    #[must_use]
    pub fn are_everybody(&self) -> bool {
        self.networks
            .iter()
            .any(|network| network.prefix_len() == 0)
    }

    /// The proxies of a Unix socket: all of its peers, or none.
    pub fn of_unix(written: &[String]) -> Result<Self, ConfigError> {
        match written.iter().find(|text| *text != UNIX) {
            None => Ok(Self {
                networks: Vec::new(),
                unix: !written.is_empty(),
            }),
            Some(other) => Err(ConfigError(format!(
                "trusted_proxies names {other:?}, and the peers of a Unix socket have no address: write trusted_proxies = [\"unix\"] \
                 to trust all of them"
            ))),
        }
    }

    /// The proxies of a TCP listener: addresses and networks.
    pub fn of_tcp(written: &[String]) -> Result<Self, ConfigError> {
        Ok(Self {
            networks: written
                .iter()
                .map(|text| network(text))
                .collect::<Result<_, _>>()?,
            unix: false,
        })
    }
}

/// An address or a network, as IPv4 where it is one that is mapped into IPv6.
fn network(text: &str) -> Result<IpNet, ConfigError> {
    let parsed = text
        .parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|_| {
            ConfigError(format!(
                "trusted_proxies names {text:?}, which is neither an address, such as 192.0.2.1, nor a network, such as 10.0.0.0/8"
            ))
        })?;
    if let IpNet::V6(wide) = parsed
        && let Some(mapped) = wide.addr().to_ipv4_mapped()
        && let Some(bits) = wide.prefix_len().checked_sub(MAPPED_BITS)
        && let Ok(narrow) = Ipv4Net::new(mapped, bits)
    {
        return Ok(IpNet::V4(narrow));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(written: &[&str]) -> Result<Proxies, ConfigError> {
        let written: Vec<String> = written.iter().map(|text| (*text).to_owned()).collect();
        Proxies::of_tcp(&written)
    }

    #[test]
    fn addresses_and_networks_are_trusted_in_both_of_their_forms() {
        let named = [
            "192.0.2.1",
            "10.0.0.7/8",
            "2001:db8::/32",
            "::1",
            "::ffff:198.51.100.0/120",
        ];
        let proxies = proxies(&named).unwrap();
        let trusts = |peer: &str| proxies.trust(&Remote::Tcp(peer.parse().unwrap()));
        for peer in [
            "192.0.2.1:1",
            "[::ffff:192.0.2.1]:1",
            "10.255.0.1:1",
            "[2001:db8:1::1]:1",
            "[::1]:1",
            "198.51.100.200:1",
        ] {
            assert!(trusts(peer), "{peer}");
        }
        for peer in [
            "192.0.2.2:1",
            "11.0.0.1:1",
            "[2001:db9::1]:1",
            "[::2]:1",
            "198.51.101.1:1",
        ] {
            assert!(!trusts(peer), "{peer}");
        }
        assert!(!proxies.trust(&Remote::Unix { uid: Some(0) }));
        assert!(!Proxies::default().trust(&Remote::Tcp("127.0.0.1:1".parse().unwrap())));
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be() {
        for text in [
            "",
            "unix",
            "localhost",
            "10.0.0.0/33",
            "10.0.0.1:80",
            "10.0",
        ] {
            let refused = proxies(&[text]).unwrap_err().0;
            assert!(refused.contains("10.0.0.0/8"), "{text}: {refused}");
        }
        let unix = |written: &[&str]| {
            let written: Vec<String> = written.iter().map(|text| (*text).to_owned()).collect();
            Proxies::of_unix(&written)
        };
        assert!(unix(&["10.0.0.1"]).unwrap_err().0.contains("[\"unix\"]"));
        assert!(unix(&["unix"]).unwrap().trust(&Remote::Unix { uid: None }));
        assert!(!unix(&[]).unwrap().trust(&Remote::Unix { uid: None }));
    }
}
