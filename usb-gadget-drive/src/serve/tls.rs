// SPDX-License-Identifier: MIT OR Apache-2.0
//! Certificates for STARTTLS: the server's own, and those of clients, which one authority has signed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// The authority's certificate in a folder of certificates. The names are those that other NBD programs use.
pub const CA_CERT: &str = "ca-cert.pem";
/// The server's certificate.
pub const SERVER_CERT: &str = "server-cert.pem";
/// The server's key.
pub const SERVER_KEY: &str = "server-key.pem";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or no good.
    #[error("cannot use {path}; {}", remedy(source))]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificates do not fit together.
    #[error("cannot use the certificates in {dir}")]
    Config {
        /// Where they are.
        dir: PathBuf,
        /// What is wrong with them.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn remedy(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
            "let the user read it that this runs as"
        }
        _ => "make it with `usb-gadget-drive cert`",
    }
}

/// Reads [`CA_CERT`], [`SERVER_CERT`] and [`SERVER_KEY`] from a folder.
///
/// # Errors
/// See [`TlsError`].
pub fn load(dir: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let unfit = |source| TlsError::Config { dir: dir.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for root in certificates(dir, CA_CERT)? {
        roots.add(root).map_err(|error| unfit(error.into()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .map_err(|error| unfit(error.into()))?;
    let path = dir.join(SERVER_KEY);
    let key =
        PrivateKeyDer::from_pem_file(&path).map_err(|source| TlsError::File { path, source })?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            let builder = builder.with_client_cert_verifier(clients);
            builder.with_single_cert(certificates(dir, SERVER_CERT).unwrap_or_default(), key)
        })
        .map_err(|error| unfit(error.into()))?;
    Ok(Arc::new(config))
}

fn certificates(dir: &Path, file: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let path = dir.join(file);
    let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
    match read {
        Ok(certificates) => Ok(certificates),
        Err(source) => Err(TlsError::File { path, source }),
    }
}

/// The first DNS name that a certificate is for; none if there is no such name, or it is no certificate.
#[must_use]
pub fn name_of(certificate: &[u8]) -> Option<String> {
    let der = CertificateDer::from(certificate);
    let certificate = webpki::EndEntityCert::try_from(&der).ok()?;
    certificate.valid_dns_names().next().map(str::to_owned)
}
