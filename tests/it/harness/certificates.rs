//! Certificates for tests, made by openssl: an authority, and what it signs for servers and clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

const OPENSSL_CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
[leaf]
basicConstraints = critical,CA:FALSE
subjectAltName = IP:127.0.0.1,DNS:localhost
";

/// An authority that a client may trust, with a folder of its own.
pub struct Authority {
    dir: TempDir,
}

/// A certificate and its key, as files in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A new authority; none, and a word on standard output, where there is no openssl.
    pub fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            println!("skipped: there is no openssl to make certificates with");
            return None;
        }
        let dir = TempDir::new().expect("a temporary directory");
        fs::write(dir.path().join("openssl.cnf"), OPENSSL_CONFIG).expect("write openssl.cnf");
        let authority = Self { dir };
        authority.make("authority", "authority", &[]);
        Some(authority)
    }

    /// A certificate for `localhost` and `127.0.0.1`, signed by this authority, in the files `NAME.pem` and `NAME.key`.
    /// A second one of the same name replaces the first.
    pub fn issue(&self, name: &str) -> Identity {
        let signer = ["-CA", "authority.pem", "-CAkey", "authority.key"];
        self.make(name, "leaf", &signer);
        Identity {
            cert: self.dir.path().join(format!("{name}.pem")),
            key: self.dir.path().join(format!("{name}.key")),
        }
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// How a client connects that trusts this authority, and presents a certificate of its own if it has one.
    /// The identity may be of another authority.
    pub fn client(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_file(self.certificate()).expect("a certificate");
        roots.add(own).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots);
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
                builder
                    .with_client_auth_cert(vec![identity.der()], key)
                    .expect("a client's certificate")
            }
        })
    }

    fn make(&self, name: &str, extensions: &str, signer: &[&str]) {
        let made = Command::new("openssl")
            .current_dir(self.dir.path())
            .args(["req", "-x509", "-days", "2", "-nodes", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-config", "openssl.cnf", "-extensions", extensions])
            .args(["-subj", &format!("/CN={name}")])
            .args(["-keyout", &format!("{name}.key")])
            .args(["-out", &format!("{name}.pem")])
            .args(signer)
            .output()
            .expect("run openssl");
        assert!(
            made.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&made.stderr)
        );
    }
}

impl Identity {
    /// The line `tls = …` for a listener with this certificate.
    pub fn toml(&self) -> String {
        format!(
            "tls = {{ cert = {:?}, key = {:?} }}\n",
            self.cert.display().to_string(),
            self.key.display().to_string()
        )
    }

    /// The same for a listener that asks its clients for certificates of an authority.
    pub fn toml_with_client_ca(&self, client_ca: &Path) -> String {
        self.toml().replace(
            " }\n",
            &format!(", client_ca = {:?} }}\n", client_ca.display().to_string()),
        )
    }

    /// The certificate as it travels.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).expect("a certificate")
    }
}
