//! TLS for listeners: certificates from files, read again when told to.

use crate::config::TlsFiles;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// The certificate and key of a listener. TLS 1.2 and 1.3.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files; an error says which one cannot be used, and why.
    pub fn load(files: &TlsFiles) -> Result<Self, String> {
        Ok(Self {
            files: files.clone(),
            current: RwLock::new(Arc::new(read(files)?)),
        })
    }

    /// Reads the files again, for connections from now on. After an error the old ones stay in use.
    pub fn reload(&self) -> Result<(), String> {
        let new = Arc::new(read(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// What accepts the next connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

fn read(files: &TlsFiles) -> Result<ServerConfig, String> {
    let chain = certificates("cert", &files.cert)?;
    let key = private_key(&files.key).map_err(|error| unusable("key", &files.key, error))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls cannot be used: {error}"))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates("client_ca", path)? {
                roots
                    .add(root)
                    .map_err(|error| unusable("client_ca", path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| unusable("client_ca", path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let text = format!("it does not belong to the key {}", files.key.display());
                unusable("cert", &files.cert, text)
            }
            error => unusable("cert", &files.cert, error),
        })
}

/// Reads a key, unless others can read it too.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = |error: io::Error| error.to_string();
    let file = File::open(path).map_err(text)?;
    let about = file.metadata().map_err(text)?;
    let mut groups = vec![rustix::process::getegid().as_raw()];
    let more = rustix::process::getgroups().map_err(|error| error.to_string())?;
    groups.extend(more.into_iter().map(rustix::process::Gid::as_raw));
    if !about.is_dir() && !is_private(about.mode(), about.uid(), about.gid(), &groups) {
        return Err(format!(
            "others can read it (mode {:04o}), or write it; give it to chatd's user with mode 0600, or to root with mode 0640 \
             and a group that chatd's user is in",
            about.mode() & 0o7777
        ));
    }
    PrivateKeyDer::from_pem_reader(BufReader::new(file)).map_err(|error| error.to_string())
}

/// Whether a key of this mode, owner and group is for chatd alone, as sshd sees it. One of root may be read by a group that
/// chatd is in, as keys that several services use are; root's own group is what systemd shows for a credential.
fn is_private(mode: u32, uid: u32, gid: u32, groups: &[u32]) -> bool {
    let shared = uid == 0 && (gid == 0 || groups.contains(&gid));
    let forbidden = if shared { 0o037 } else { 0o077 };
    mode & forbidden == 0
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(what, path, error))?;
    if found.is_empty() {
        return Err(unusable(what, path, "there is no certificate in it"));
    }
    Ok(found)
}

fn unusable(what: &str, path: &Path, error: impl Display) -> String {
    format!("tls {what} {} cannot be used: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_private_to_its_owner_or_shared_by_root_with_a_group_of_chatd() {
        let groups = [7, 8];
        for (mode, uid, gid, expected) in [
            (0o600, 1000, 1000, true),
            (0o400, 0, 0, true),
            (0o640, 0, 8, true),
            (0o440, 0, 0, true),
            (0o640, 0, 9, false),
            (0o640, 1000, 8, false),
            (0o660, 0, 8, false),
            (0o650, 0, 8, false),
            (0o644, 0, 8, false),
            (0o604, 0, 0, false),
            (0o602, 1000, 1000, false),
            (0o610, 1000, 1000, false),
        ] {
            let found = is_private(mode, uid, gid, &groups);
            assert_eq!(found, expected, "{mode:o} {uid} {gid}");
        }
    }
}
