//! Looks at certificates and keys that somebody sends, before anything trusts or uses them.

use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error as RustlsError, RootCertStore};

use crate::model::Timestamp;

/// What a PEM text is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The certificates that a broker's is checked against.
    Authority,
    /// The gateway's own certificate, then its issuers.
    Client,
}

/// Sees that a PEM text holds certificates that can be used at `now` (`None`: the time is not known), and no private key.
///
/// # Errors
/// One sentence that says what is wrong; nothing of a key is in it.
pub fn check_certificates(pem: &str, wanted: Wanted, now: Option<Timestamp>) -> Result<(), String> {
    if pem.contains("PRIVATE KEY") {
        return Err("a private key stands beside the certificate; send it by itself, as KEY".to_owned());
    }
    let certificates = certificates(pem)?;
    if wanted == Wanted::Authority {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| format!("the certificate can't be trusted: {error}"))?;
        }
    }
    // The issuers' own times are the broker's affair.
    let judged = if wanted == Wanted::Authority { certificates.len() } else { 1 };
    for certificate in certificates.iter().take(judged) {
        is_timely(certificate, now)?;
    }
    Ok(())
}

/// Sees that a PEM text holds one private key that can be used.
///
/// # Errors
/// As [`check_certificates`].
pub fn check_key(pem: &str) -> Result<(), String> {
    let key = private_key(pem)?;
    rustls::crypto::ring::sign::any_supported_type(&key).map(|_| ()).map_err(|_| UNUSABLE.to_owned())
}

/// Whether a certificate and a key were made for each other.
///
/// # Errors
/// One sentence when either can't be read.
pub fn is_pair(certificate: &str, key: &str) -> Result<bool, String> {
    let (chain, key) = (certificates(certificate)?, private_key(key)?);
    match CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()) {
        Ok(_) => Ok(true),
        Err(RustlsError::InconsistentKeys(_)) => Ok(false),
        Err(_) => Err(UNUSABLE.to_owned()),
    }
}

const UNUSABLE: &str = "the private key is of a kind that weir can't use; make one for ECDSA P-256, Ed25519 or RSA";

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err("there is no certificate; send PEM text with BEGIN CERTIFICATE and END CERTIFICATE".to_owned()),
    }
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        let sealed = pem.contains("ENCRYPTED");
        let why = if sealed {
            "is protected by a passphrase; send it without one"
        } else {
            "can't be read; send PEM text with BEGIN PRIVATE KEY"
        };
        format!("the private key {why}")
    })
}

/// Sees that a certificate is valid now. Nobody vouches for it here, so every other complaint of the library is expected.
fn is_timely(certificate: &CertificateDer<'_>, now: Option<Timestamp>) -> Result<(), String> {
    let parsed =
        ParsedCertificate::try_from(certificate).map_err(|error| format!("the certificate is damaged: {error}"))?;
    let Some(millis) = now.and_then(|now| u64::try_from(now.as_millis()).ok()) else { return Ok(()) };
    let at = UnixTime::since_unix_epoch(Duration::from_millis(millis));
    let spoken = |time: &UnixTime| {
        Timestamp::from_millis(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000)).to_string()
    };
    match verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], at, &[]) {
        Err(RustlsError::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Err(format!("the certificate has expired on {}; send one that is valid", spoken(&not_after)))
        }
        Err(RustlsError::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Err(format!("the certificate is not valid before {}; send one that is valid now", spoken(&not_before)))
        }
        Err(RustlsError::InvalidCertificate(CertificateError::Expired)) => {
            Err("the certificate has expired".to_owned())
        }
        Err(RustlsError::InvalidCertificate(CertificateError::NotValidYet)) => {
            Err("the certificate is not valid yet".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[cfg(feature = "demo")]
mod tests {
    use super::*;

    fn made(name: &str, years: std::ops::Range<i32>) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (parameters.not_before, parameters.not_after) =
            (rcgen::date_time_ymd(years.start, 1, 1), rcgen::date_time_ymd(years.end, 1, 1));
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn certificates_and_keys_are_judged_and_no_sentence_shows_a_key() {
        let now = Timestamp::parse("2026-11-22T00:00:00Z");
        let (good, key) = made("a", 2020..2040);
        let (_, other) = made("b", 2020..2040);
        for wanted in [Wanted::Authority, Wanted::Client] {
            assert_eq!(check_certificates(&good, wanted, now), Ok(()));
            for (years, said) in [(2010..2020, "expired on 2020-01-01"), (2030..2040, "not valid before 2030-01-01")] {
                let (bad, _) = made("a", years);
                let why = check_certificates(&bad, wanted, now).unwrap_err();
                assert!(why.contains(said), "{why}");
                assert_eq!(check_certificates(&bad, wanted, None), Ok(()), "no clock, no judgement");
            }
            assert!(check_certificates(&format!("{good}{key}"), wanted, now).unwrap_err().contains("as KEY"));
            assert!(check_certificates("-----BEGIN NOTHING", wanted, now).unwrap_err().contains("no certificate"));
        }
        assert_eq!((check_key(&key), is_pair(&good, &key)), (Ok(()), Ok(true)));
        assert_eq!(is_pair(&good, &other), Ok(false));
        let damaged = key.replace("MIGH", "!!!!").replace("MI", "XX");
        let why = check_key(&damaged).unwrap_err();
        assert!(!why.contains(&damaged[40..60]), "{why}");
    }
}
