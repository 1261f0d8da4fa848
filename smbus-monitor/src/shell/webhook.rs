// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON is posted to where somebody waits for it, over TLS if the address says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::Url;

/// Time for all of it.
const LIMIT: Duration = Duration::from_secs(10);

/// Posts, and waits for the answer's status.
///
/// # Errors
/// What went wrong, with the address.
pub async fn post(url: &Url, body: Vec<u8>) -> Result<(), String> {
    let scheme = if url.authorities.is_some() { "https" } else { "http" };
    let failed = |what: String| format!("{scheme}://{}{}: {what}", url.host, url.path);
    match timeout(LIMIT, exchange(url, body)).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("it answers {status}"))),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(format!("no answer within {} s", LIMIT.as_secs()))),
    }
}

async fn exchange(url: &Url, body: Vec<u8>) -> Result<StatusCode, String> {
    let stream = TcpStream::connect(url.host.as_str()).await.map_err(|e| e.to_string())?;
    let Some(authorities) = &url.authorities else { return ask(stream, url, body).await };
    let host = url.host.rsplit_once(':').map_or(url.host.as_str(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let stream = connector(authorities)?.connect(name, stream).await;
    ask(stream.map_err(|error| error.to_string())?, url, body).await
}

/// Read anew each time: it is needed seldom, and authorities change under a program that runs for years.
fn connector(authorities: &Path) -> Result<TlsConnector, String> {
    let unfit = |what: String| format!("{}: {what}", authorities.display());
    let read = CertificateDer::pem_file_iter(authorities).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|error| unfit(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(read);
    if added == 0 {
        return Err(unfit("no authority; install ca-certificates, or name a file".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into())
}

async fn ask<S>(stream: S, url: &Url, body: Vec<u8>) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let request = Request::post(url.path.as_str())
        .header(header::HOST, url.host.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("smbus-monitor/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    driver.abort();
    Ok(answer?.status())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// A server that answers one request, with its certificate in a file.
    async fn server(folder: &Path, name: &str) -> (u16, PathBuf) {
        let names = vec!["localhost".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let file = folder.join(name);
        std::fs::write(&file, cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // Who does not trust it goes away.
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
                return;
            };
            let mut got = vec![0; 4096];
            let len = stream.read(&mut got).await.unwrap();
            let text = String::from_utf8_lossy(&got[..len]).into_owned();
            let status = if text.starts_with("POST /x HTTP/1.1") { "204 OK" } else { "400 No" };
            stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        });
        (port, file)
    }

    #[tokio::test]
    async fn who_is_known_by_an_authority_is_told_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let (port, own) = server(folder.path(), "own").await;
        let url = |host: &str, port: u16, authorities: &Path| Url {
            host: format!("{host}:{port}"),
            path: "/x".to_owned(),
            authorities: Some(authorities.to_owned()),
        };
        assert_eq!(post(&url("localhost", port, &own), b"{}".to_vec()).await, Ok(()));
        let (port, _) = server(folder.path(), "other").await;
        let error = post(&url("localhost", port, &own), b"{}".to_vec()).await.unwrap_err();
        assert!(error.starts_with("https://localhost") && error.contains("certificate"), "{error}");
        let (port, third) = server(folder.path(), "third").await;
        let error = post(&url("127.0.0.1", port, &third), b"{}".to_vec()).await.unwrap_err();
        assert!(error.contains("not valid for name"), "{error}");
        std::fs::write(&third, "no certificate").unwrap();
        let (port, _) = server(folder.path(), "fourth").await;
        let error = post(&url("localhost", port, &third), b"{}".to_vec()).await.unwrap_err();
        assert!(error.contains("no authority"), "{error}");
    }
}
