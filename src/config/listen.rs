//! `[[listen]]`: where to listen, and who may do what there (protocol.md, 7).

use super::ConfigError;
use super::proxies::Proxies;
use crate::registry::Access;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use serde::Deserialize;
use std::ffi::CString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use toml::Spanned;

/// The mode of a Unix socket, where none is named.
const SOCKET_MODE: u32 = 0o660;

/// What lets the members of a file's group connect to a socket, and what lets everybody.
const GROUP_WRITE: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// A listener.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where it listens.
    pub address: Address,
    /// Who may do what on its connections.
    pub access: Access,
    /// The files for TLS, if it speaks TLS.
    pub tls: Option<TlsFiles>,
    /// The mode of its file, if it is a Unix socket.
    pub mode: u32,
    /// Who may connect, if it is a Unix socket that not everybody may who can open it.
    pub allowed: Option<Allowed>,
    /// Who says for whom its connections come.
    pub proxies: Proxies,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether nobody else can listen where this is listened on.
    #[must_use]
    pub fn takes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => {
                let plain = |path: &Path| -> PathBuf {
                    let parts = path.components();
                    parts.filter(|part| *part != Component::CurDir).collect()
                };
                plain(one) == plain(other)
            }
            (Self::Tcp(one), Self::Tcp(other)) => {
                let (ip, other_ip) = (one.ip(), other.ip());
                let of_all = ip.is_unspecified() || other_ip.is_unspecified();
                one.port() != 0
                    && one.port() == other.port()
                    && ip.is_ipv4() == other_ip.is_ipv4()
                    && (ip == other_ip || of_all)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Files for TLS, in PEM.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, and those that lead from it to the authority's.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients' certificates; with it a client must present one.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// The same files, found from where `folder` is.
    fn below(&self, folder: &Path) -> Self {
        Self {
            cert: folder.join(&self.cert),
            key: folder.join(&self.key),
            client_ca: self.client_ca.as_ref().map(|path| folder.join(path)),
        }
    }
}

/// The users that may connect to a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Allowed {
    /// The members of one group.
    #[cfg(test)]
    #[must_use]
    pub fn members_of(gid: u32) -> Self {
        Self {
            uids: Vec::new(),
            gids: vec![gid],
        }
    }

    /// The group that the file of the socket is to have, so that its members can open it.
    #[must_use]
    pub fn group(&self) -> Option<u32> {
        match self.gids.as_slice() {
            [group] => Some(*group),
            _ => None,
        }
    }

    /// Refuses a mode that keeps out members of the groups.
    fn check_mode(&self, mode: u32) -> Result<(), ConfigError> {
        let opens = if self.gids.len() > 1 {
            OTHERS_WRITE
        } else {
            OTHERS_WRITE | GROUP_WRITE
        };
        if self.gids.is_empty() || mode & opens != 0 {
            return Ok(());
        }
        let why = if self.gids.len() > 1 {
            "the file of a socket has one group, and allow_groups names several"
        } else {
            "members of the group in allow_groups cannot open the socket"
        };
        Err(ConfigError(format!(
            "mode = \"{mode:04o}\" does not do, since {why}; write mode = \"0666\": chatd itself refuses whom allow_uids and \
             allow_groups do not name"
        )))
    }

    /// The users named who cannot open a file of this mode, owner and group.
    pub fn kept_out(&self, mode: u32, owner: u32, group: u32) -> impl Iterator<Item = u32> {
        let members = Self {
            uids: vec![0, owner],
            gids: if mode & GROUP_WRITE == 0 {
                Vec::new()
            } else {
                vec![group]
            },
        };
        let uids = self.uids.iter().copied();
        uids.filter(move |&uid| mode & OTHERS_WRITE == 0 && !members.allows(uid, u32::MAX))
    }

    /// Whether a process of this user and group may connect. A user counts for every group that it is listed in.
    #[must_use]
    pub fn allows(&self, uid: u32, gid: u32) -> bool {
        if self.uids.contains(&uid) || self.gids.contains(&gid) {
            return true;
        }
        if self.gids.is_empty() {
            return false;
        }
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
            return false;
        };
        let Ok(name) = CString::new(user.name) else {
            return false;
        };
        let groups = getgrouplist(&name, user.gid).unwrap_or_default();
        groups.iter().any(|gid| self.gids.contains(&gid.as_raw()))
    }
}

/// A listener as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawListen {
    address: Spanned<String>,
    access: Option<String>,
    tls: Option<TlsFiles>,
    #[serde(default)]
    insecure: bool,
    mode: Option<String>,
    allow_uids: Option<Vec<u32>>,
    allow_groups: Option<Vec<String>>,
    #[serde(default)]
    trusted_proxies: Vec<String>,
}

impl RawListen {
    /// A listener of which nothing but its address is said.
    pub fn at(address: &str) -> Self {
        Self {
            address: Spanned::new(0..0, address.to_owned()),
            access: None,
            tls: None,
            insecure: false,
            mode: None,
            allow_uids: None,
            allow_groups: None,
            trusted_proxies: Vec::new(),
        }
    }

    /// Its address, as written.
    pub fn address(&self) -> &str {
        self.address.get_ref()
    }

    /// Where in the file its address is, if it is there.
    pub fn offset(&self) -> Option<usize> {
        let span = self.address.span();
        (!span.is_empty()).then_some(span.start)
    }

    /// The listener, if it is safe. Its relative paths begin at `folder`.
    pub fn check(&self, folder: &Path) -> Result<Listen, ConfigError> {
        let access = match self.access.as_deref() {
            None => None,
            Some("trusted") => Some(Access::Trusted),
            Some("login") => Some(Access::Login),
            Some(other) => {
                return Err(ConfigError(format!(
                    "access = {other:?} is not known; there are \"trusted\" and \"login\""
                )));
            }
        };
        if let Some(path) = self.address().strip_prefix("unix:") {
            self.check_unix(path, folder, access.unwrap_or(Access::Trusted))
        } else {
            self.check_tcp(folder, access)
        }
    }

    fn check_unix(&self, path: &str, folder: &Path, access: Access) -> Result<Listen, ConfigError> {
        if path.is_empty() {
            return Err(ConfigError("address = \"unix:\" names no path".to_owned()));
        }
        if self.tls.is_some() {
            return Err(ConfigError(format!(
                "address = {:?} is a Unix socket, and tls is for TCP",
                self.address()
            )));
        }
        let mode = match &self.mode {
            None => SOCKET_MODE,
            Some(text) => u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(|| {
                    ConfigError(format!(
                        "mode = {text:?} is no mode of a file, such as \"0660\""
                    ))
                })?,
        };
        let allowed = match (&self.allow_uids, &self.allow_groups) {
            (None, None) => None,
            (uids, groups) => Some(Allowed {
                uids: uids.clone().unwrap_or_default(),
                gids: groups
                    .iter()
                    .flatten()
                    .map(|name| gid(name))
                    .collect::<Result<_, _>>()?,
            }),
        };
        let is_open = mode & OTHERS_WRITE != 0 && allowed.is_none();
        if access == Access::Trusted && is_open && !self.insecure {
            return Err(ConfigError(format!(
                "address = {:?} with mode = \"{mode:04o}\" lets everybody on this machine do everything; write mode = \"0660\", \
                 allow_uids or allow_groups, or access = \"login\", or, if nobody else is on it, insecure = true",
                self.address()
            )));
        }
        if let Some(allowed) = &allowed {
            allowed.check_mode(mode)?;
        }
        Ok(Listen {
            address: Address::Unix(folder.join(path)),
            access,
            tls: None,
            mode,
            allowed,
            proxies: Proxies::of_unix(&self.trusted_proxies)?,
        })
    }

    fn check_tcp(&self, folder: &Path, access: Option<Access>) -> Result<Listen, ConfigError> {
        let address: SocketAddr = self.address().parse().map_err(|_| {
            ConfigError(format!(
                "address = {:?} is neither IP:PORT, such as 127.0.0.1:24283, nor unix:PATH",
                self.address()
            ))
        })?;
        if self.mode.is_some() || self.allow_uids.is_some() || self.allow_groups.is_some() {
            return Err(ConfigError(format!(
                "address = \"{address}\" is no Unix socket, and mode, allow_uids and allow_groups are for those"
            )));
        }
        let local = address.ip().is_loopback();
        let access = access.unwrap_or(if local {
            Access::Trusted
        } else {
            Access::Login
        });
        if !local && !self.insecure {
            let danger = match access {
                Access::Trusted => {
                    "whoever connects may do everything; write access = \"login\" and tls = { cert = \"…\", key = \"…\" } beside it, \
                     or listen on 127.0.0.1 or a Unix socket"
                }
                Access::Login if self.tls.is_none() => {
                    "passwords would pass in the clear; write tls = { cert = \"…\", key = \"…\" } beside it"
                }
                Access::Login => "",
            };
            if !danger.is_empty() {
                return Err(ConfigError(format!(
                    "address = \"{address}\" is reachable from other machines, and {danger}, or, if the network itself is safe, insecure = true"
                )));
            }
        }
        let proxies = Proxies::of_tcp(&self.trusted_proxies)?;
        if !local && !self.insecure && proxies.are_everybody() {
            return Err(ConfigError(format!(
                "address = \"{address}\" is reachable from other machines, and its trusted_proxies are everybody, who may then say to come \
                 from anywhere; name the proxies alone, or, if the network itself is safe, write insecure = true"
            )));
        }
        Ok(Listen {
            address: Address::Tcp(address),
            access,
            tls: self.tls.as_ref().map(|files| files.below(folder)),
            mode: SOCKET_MODE,
            allowed: None,
            proxies,
        })
    }
}

/// The number of a group, named or numbered.
fn gid(name: &str) -> Result<u32, ConfigError> {
    let found = match name.parse() {
        Ok(number) => Some(Gid::from_raw(number)),
        Err(_) => Group::from_name(name).ok().flatten().map(|group| group.gid),
    };
    found.map(Gid::as_raw).ok_or_else(|| {
        ConfigError(format!(
            "allow_groups names {name:?}, and there is no such group"
        ))
    })
}
