//! A certificate authority for one demo or one test, made in memory.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;

use crate::os::file::write_atomic;

/// A self-made CA that issues certificates for servers and clients.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key as PEM text.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

impl Authority {
    /// Makes a CA that calls itself `name`.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(name: &str) -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)? })
    }

    /// The CA's certificate as PEM text.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for host names or IP addresses; `years` bounds its validity.
    ///
    /// # Errors
    /// When a name is none, or the system gives no random numbers.
    pub fn issue(&self, names: &[&str], years: Option<Range<i32>>) -> io::Result<Issued> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, names.first().cloned().unwrap_or_default());
        if let Some(years) = years {
            let first_of = |year| -> OffsetDateTime { rcgen::date_time_ymd(year, 1, 1) };
            (params.not_before, params.not_after) = (first_of(years.start), first_of(years.end));
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl Issued {
    /// Writes `<name>.pem` and `<name>.key` (readable by the owner only) and returns their paths.
    ///
    /// # Errors
    /// The system's error.
    pub fn write(&self, directory: &Path, name: &str) -> io::Result<(PathBuf, PathBuf)> {
        let paths = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
        write_atomic(&paths.0, self.certificate.as_bytes(), 0o644)?;
        write_atomic(&paths.1, self.key.as_bytes(), 0o600)?;
        Ok(paths)
    }
}
