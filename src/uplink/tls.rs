//! The only TLS door: whom the agent trusts and how it proves itself.
//!
//! TLS 1.2 and 1.3 with the ring provider. Files are read anew for every connection, so that a
//! renewed certificate needs no restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error as RustlsError, InconsistentKeys, RootCertStore};

use super::failure::{Failure, Kind};
use crate::model::Timestamp;
use crate::os::clock::Clock;
use crate::os::file::read_small;

/// Where Linux distributions keep the certificates of the public authorities.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const LARGEST_FILE: u64 = 2 << 20;

/// The files that TLS needs.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Whom to trust; unset: the system's roots.
    pub ca: Option<PathBuf>,
    /// The client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// What is wrong with a file that TLS needs.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It can't be read.
    #[error("{what} {path} can't be read: {source}")]
    Unreadable {
        /// What the file is for.
        what: &'static str,
        /// Its path.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// It holds no usable certificate.
    #[error("{what} {path} holds no certificate that can be used: it must be PEM text with BEGIN CERTIFICATE ({why})")]
    NoCertificate {
        /// What the file is for.
        what: &'static str,
        /// Its path.
        path: String,
        /// What the reader says.
        why: String,
    },
    /// It holds no usable key.
    #[error("the client key {path} can't be used: {why}")]
    NoKey {
        /// Its path.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "the client key {key} does not match the client certificate {certificate}: they must come from one request"
    )]
    Mismatch {
        /// The certificate's path.
        certificate: String,
        /// The key's path.
        key: String,
    },
    /// There are no system roots to fall back on.
    #[error("this system has no certificates of public authorities: set broker.ca_file to the broker's CA")]
    NoSystemRoots,
    /// The TLS library refused.
    #[error("TLS can't be set up: {0}")]
    Library(RustlsError),
}

impl TlsFiles {
    /// Builds what a connection needs. Certificates are judged by the time as well as `clock`
    /// knows it, so that a gateway whose clock is not set yet can connect.
    ///
    /// # Errors
    /// The first file that is missing, damaged or does not fit the others.
    pub fn config(&self, clock: &Clock) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = self.roots()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        #[expect(clippy::disallowed_methods, reason = "this is the TLS door the rule points to")]
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Reckoned(clock.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Library)?
            .with_root_certificates(roots);
        let Some((certificate, key)) = &self.client else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let own = own_identity(certificate, key)?;
        Ok(Arc::new(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let what = "the CA file";
        let path = match &self.ca {
            Some(path) => path.as_path(),
            None => SYSTEM_ROOTS.map(Path::new).into_iter().find(|p| p.exists()).ok_or(TlsError::NoSystemRoots)?,
        };
        let certificates = certificates(what, path)?;
        let mut roots = RootCertStore::empty();
        if self.ca.is_none() {
            // A bundle of a hundred authorities may hold one the library does not like.
            roots.add_parsable_certificates(certificates);
        } else {
            for certificate in certificates {
                roots.add(certificate).map_err(|error| TlsError::NoCertificate {
                    what,
                    path: path.display().to_string(),
                    why: error.to_string(),
                })?;
            }
        }
        if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
    }
}

/// The gateway's best knowledge of the time, as the TLS library asks for it.
#[derive(Debug)]
struct Reckoned(Clock);

impl TimeProvider for Reckoned {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.now().as_millis()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

/// Reads the client certificate and its key and sees that they belong together.
///
/// # Errors
/// What is wrong with one of them or with the pair.
pub(super) fn own_identity(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates("the client certificate", certificate)?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, private_key(key)?, &provider).map_err(|error| match error {
        RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { certificate: certificate.display().to_string(), key: key.display().to_string() }
        }
        other => TlsError::NoKey { path: key.display().to_string(), why: other.to_string() },
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    read_small(path, LARGEST_FILE).map_err(|source| TlsError::Unreadable {
        what,
        path: path.display().to_string(),
        source,
    })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = read(what, path)?;
    let unusable = |why: String| TlsError::NoCertificate { what, path: path.display().to_string(), why };
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&content).collect();
    let found = found.map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() { Err(unusable("none found".into())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let content = read("the client key", path)?;
    PrivateKeyDer::from_pem_slice(&content).map_err(|error| {
        let encrypted = content.windows(9).any(|w| w == b"ENCRYPTED");
        let why = if encrypted {
            "it is protected by a passphrase; store it without one, readable by weir only".to_owned()
        } else {
            format!("it must be PEM text with BEGIN PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY ({error})")
        };
        TlsError::NoKey { path: path.display().to_string(), why }
    })
}

/// Says in one sentence why a handshake with `host` failed.
pub(super) fn explain(error: &RustlsError, host: &str, files: &TlsFiles) -> Failure {
    match error {
        RustlsError::InvalidCertificate(why) => Failure::new(Kind::Certificate, certificate_sentence(why, host, files)),
        RustlsError::AlertReceived(alert) => alert_sentence(*alert, files),
        RustlsError::InvalidMessage(_) => Failure::new(
            Kind::Protocol,
            format!(
                "{host} does not speak TLS on this port: use the broker's TLS port (often 8883), or tcp:// without TLS"
            ),
        ),
        other => Failure::new(Kind::Protocol, format!("the TLS handshake with {host} failed: {other}")),
    }
}

fn certificate_sentence(why: &CertificateError, host: &str, files: &TlsFiles) -> String {
    let trusted = files.ca.as_ref().map_or("the system's CA certificates".into(), |p| p.display().to_string());
    let time = |t: &UnixTime| {
        Timestamp::from_millis(i64::try_from(t.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000)).to_string()
    };
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the certificate of {host} was not issued by the CA in {trusted}: put the broker's CA into broker.ca_file"
        ),
        CertificateError::ExpiredContext { time: now, not_after } => format!(
            "the certificate of {host} has expired on {}: renew it, or set the gateway's clock, which says {}",
            time(not_after),
            time(now)
        ),
        CertificateError::Expired => {
            format!("the certificate of {host} has expired: renew it, or set the gateway's clock")
        }
        CertificateError::NotValidYetContext { time: now, not_before } => format!(
            "the certificate of {host} is not valid before {}: set the gateway's clock, which says {}",
            time(not_before),
            time(now)
        ),
        CertificateError::NotValidYet => {
            format!("the certificate of {host} is not valid yet: set the gateway's clock")
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the certificate is for {}, not for {host}: use one of these names in broker.url, or have it issued for {host}",
            names(presented)
        ),
        CertificateError::NotValidForName => format!("the certificate is not for {host}: check broker.url"),
        CertificateError::Revoked => format!("the certificate of {host} was revoked by its CA"),
        other => format!("the certificate of {host} can't be accepted: {other}"),
    }
}

/// The names of a certificate as a person writes them; the library says `DnsName("a.example")`.
fn names(presented: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    if presented.is_empty() {
        return "no name at all".to_owned();
    }
    presented.iter().map(plain).collect::<Vec<_>>().join(", ")
}

fn alert_sentence(alert: AlertDescription, files: &TlsFiles) -> Failure {
    use AlertDescription as Alert;
    let sentence = match (alert, &files.client) {
        (Alert::CertificateRequired | Alert::HandshakeFailure | Alert::NoCertificate, None) => {
            "the broker requires a client certificate: set broker.client_certificate_file and broker.client_key_file"
                .to_owned()
        }
        (Alert::CertificateExpired, Some((certificate, _))) => {
            format!("the broker says that the client certificate {} has expired: renew it", certificate.display())
        }
        (
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::CertificateRequired
            | Alert::HandshakeFailure,
            Some((certificate, _)),
        ) => format!(
            "the broker refused the client certificate {} ({alert:?}): it must be issued by a CA the broker trusts",
            certificate.display()
        ),
        (alert, _) => {
            return Failure::new(
                Kind::Protocol,
                format!("the broker ended the TLS handshake with the alert {alert:?}"),
            );
        }
    };
    Failure::new(Kind::ClientCertificate, sentence)
}
