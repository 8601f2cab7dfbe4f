//! The TLS door for other rooms' connections: the same trust as a broker's, without MQTT.

use rustls::pki_types::ServerName;
use rustls::{CertificateError, Error as RustlsError};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::TlsFiles;
use crate::os::clock::Clock;

/// Speaks TLS over a connection and checks who is there.
///
/// # Errors
/// One sentence that says why the other side is not believed, or what is wrong with a file.
pub async fn secured(
    stream: TcpStream,
    host: &str,
    (files, clock): (&TlsFiles, &Clock),
) -> Result<TlsStream<TcpStream>, String> {
    let config = files.config(clock).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("\"{host}\" is no name that a certificate can be for"))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        let why = error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>());
        let hint = match why {
            Some(RustlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
                "its certificate was not issued by the CA that is trusted: set ca_file to the CA that issued it"
            }
            Some(RustlsError::InvalidCertificate(CertificateError::NotValidForNameContext { .. } | CertificateError::NotValidForName)) => {
                "its certificate is for another name: use a name that it is for"
            }
            Some(RustlsError::AlertReceived(_)) => {
                "it refused: it may want a client certificate (client_certificate_file, client_key_file), or another one"
            }
            Some(RustlsError::InvalidMessage(_)) => "it does not speak TLS on this port",
            _ => "check its certificate, its port and the gateway's clock",
        };
        format!("no TLS session with {host}: {hint} ({error})")
    })
}
