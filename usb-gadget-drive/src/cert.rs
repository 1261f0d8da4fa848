// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the certificates of a chassis: one authority, its servers and clients.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::serve::tls::{CA_CERT, SERVER_CERT, SERVER_KEY};

/// The authority's key. The server does not need it.
pub const CA_KEY: &str = "ca-key.pem";
/// A client's certificate and key, in a folder of its own.
pub const CLIENT_CERT: &str = "client-cert.pem";
/// See [`CLIENT_CERT`].
pub const CLIENT_KEY: &str = "client-key.pem";
/// Every authority has this name; what tells them apart is the key.
const CA_NAME: &str = "usb-gadget-drive CA";

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// There is one, which may be in use.
    #[error("{path} exists, and is not overwritten; remove it to have another")]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// There is nobody to sign.
    #[error("there is no {path}; make the authority first: usb-gadget-drive cert ca")]
    NoAuthority {
        /// Its key or certificate.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A name or a key is no good.
    #[error("cannot make a certificate for `{name}`")]
    Make {
        /// For whom.
        name: String,
        /// Why not.
        source: rcgen::Error,
    },
    /// A name that would be a path.
    #[error("`{0}` is no name for a client: use letters, digits, dots and hyphens")]
    Name(String),
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A server, by the name or address at which clients reach it.
    Server,
    /// A client, by the name under which it has rights.
    Client,
}

/// Makes an authority in `dir`.
///
/// # Errors
/// See [`CertError`].
pub fn make_ca(dir: &Path) -> Result<(), CertError> {
    let make = |source| CertError::Make { name: CA_NAME.to_owned(), source };
    let key = KeyPair::generate().map_err(make)?;
    let certificate = ca_params().self_signed(&key).map_err(make)?;
    make_dir(dir)?;
    write_new(&dir.join(CA_KEY), &key.serialize_pem(), 0o600)?;
    write_new(&dir.join(CA_CERT), &certificate.pem(), 0o644)
}

/// Makes a certificate with the authority in `dir`: of the server there, or of a client in a folder of its name.
/// Says in which folder it is.
///
/// # Errors
/// See [`CertError`].
pub fn make(dir: &Path, kind: Kind, name: &str) -> Result<PathBuf, CertError> {
    let make = |source| CertError::Make { name: name.to_owned(), source };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if kind == Kind::Client && (!name.chars().all(is_plain) || name.starts_with('.')) {
        return Err(CertError::Name(name.to_owned()));
    }
    let ca_key = KeyPair::from_pem(&read(&dir.join(CA_KEY))?).map_err(make)?;
    let ca_cert = read(&dir.join(CA_CERT))?;
    let issuer = Issuer::new(ca_params(), ca_key);

    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(make)?;
    params.distinguished_name = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match kind {
        Kind::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Kind::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    make_lasting(&mut params);
    let key = KeyPair::generate().map_err(make)?;
    let certificate = params.signed_by(&key, &issuer).map_err(make)?;

    // The package's folder gives the server's group to what is made in it, by its set-group-ID bit.
    let is_shared = std::fs::metadata(dir).is_ok_and(|dir| dir.mode() & 0o2000 != 0);
    let server_mode = if is_shared { 0o640 } else { 0o600 };
    let (folder, cert_file, key_file, key_mode) = match kind {
        Kind::Server => (dir.to_owned(), SERVER_CERT, SERVER_KEY, server_mode),
        Kind::Client => (dir.join(name), CLIENT_CERT, CLIENT_KEY, 0o600),
    };
    make_dir(&folder)?;
    write_new(&folder.join(key_file), &key.serialize_pem(), key_mode)?;
    write_new(&folder.join(cert_file), &certificate.pem(), 0o644)?;
    if kind == Kind::Client {
        write_new(&folder.join(CA_CERT), &ca_cert, 0o644)?;
    }
    Ok(folder)
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    make_lasting(&mut params);
    params
}

/// A blade's clock may stand at 1970 plus its firmware's age, and nobody renews what lies in a drawer: the certificates
/// last as long as the hardware. Taking one back is done by making a new authority.
fn make_lasting(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 12, 31);
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn make_dir(dir: &Path) -> Result<(), CertError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(|source| CertError::File { path: dir.to_owned(), source })
}

fn read(path: &Path) -> Result<String, CertError> {
    std::fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CertError::NoAuthority { path: path.to_owned() },
        _ => CertError::File { path: path.to_owned(), source },
    })
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CertError::Exists { path: path.to_owned() },
        _ => CertError::File { path: path.to_owned(), source },
    })
}
