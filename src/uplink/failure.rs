//! Why there is no session with the broker, in one sentence a technician can act on.

use std::error::Error;
use std::io;

use rumqttc::{ConnectReturnCode, ConnectionError, StateError};

use super::tls::{self, TlsError, TlsFiles};
use super::value::BrokerUrl;

/// What kind of failure it is; each kind is logged once per outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A file with a password, certificate or key can't be used.
    Files,
    /// The host name has no address.
    Name,
    /// Nobody answers, or the port is closed.
    Unreachable,
    /// The broker's certificate was not accepted.
    Certificate,
    /// The broker did not accept the client certificate, or wants one.
    ClientCertificate,
    /// The broker refused the user name or password.
    Credentials,
    /// The broker refused the client id.
    ClientId,
    /// The broker is there but can't serve.
    Unavailable,
    /// The other side does not speak the protocol as it should.
    Protocol,
    /// The connection broke.
    Lost,
    /// The broker stopped acknowledging.
    Stalled,
}

/// One failure: its kind and its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind it is.
    pub kind: Kind,
    /// What happened and what to do about it.
    pub sentence: String,
}

impl Failure {
    pub(super) fn new(kind: Kind, sentence: impl Into<String>) -> Self {
        Self { kind, sentence: sentence.into() }
    }

    /// Explains an error of the MQTT client. `connected` says whether the broker had accepted
    /// the session before.
    pub(super) fn explain(error: &ConnectionError, url: &BrokerUrl, files: &TlsFiles, connected: bool) -> Self {
        if let Some(tls) = tls_error(error) {
            return tls::explain(tls, &url.host, files);
        }
        match error {
            ConnectionError::ConnectionRefused(code) => refused(*code),
            ConnectionError::Io(io) if !connected => unreachable(io, url),
            ConnectionError::NetworkTimeout => {
                Self::new(Kind::Unreachable, format!("{url} did not answer in time: check the network and the broker"))
            }
            ConnectionError::FlushTimeout => {
                Self::new(Kind::Stalled, "the broker took no data for too long: the link is too slow or stuck")
            }
            ConnectionError::MqttState(StateError::AwaitPingResp) => {
                Self::new(Kind::Stalled, "the broker did not answer a ping: the link is stuck or the broker hangs")
            }
            ConnectionError::NotConnAck(_) => {
                Self::new(Kind::Protocol, format!("{url} does not answer as an MQTT 3.1.1 broker: check broker.url"))
            }
            ConnectionError::Tls(_) if !connected => Self::new(
                Kind::Protocol,
                format!("{url} closed the connection during the TLS handshake: is it a TLS port?"),
            ),
            _ if connected => Self::new(Kind::Lost, format!("the connection to {url} broke ({})", short(error))),
            _ => closed_before_answer(url, files),
        }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::new(Kind::Files, error.to_string())
    }
}

fn refused(code: ConnectReturnCode) -> Failure {
    let (kind, sentence) = match code {
        ConnectReturnCode::BadUserNamePassword => {
            (Kind::Credentials, "the broker refused the user name or password: check broker.username and password_file")
        }
        ConnectReturnCode::NotAuthorized => (
            Kind::Credentials,
            "the broker says this client is not authorized: check broker.username, password_file and the broker's rules",
        ),
        ConnectReturnCode::BadClientId => (Kind::ClientId, "the broker refused the client id: check broker.client_id"),
        ConnectReturnCode::ServiceUnavailable => {
            (Kind::Unavailable, "the broker is there but says its service is unavailable")
        }
        ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::Success => {
            (Kind::Protocol, "the broker does not speak MQTT 3.1.1")
        }
    };
    Failure::new(kind, sentence)
}

fn unreachable(error: &io::Error, url: &BrokerUrl) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            Kind::Name,
            format!("the name {} has no address ({error}): check broker.url and the gateway's DNS", url.host),
        ),
        io::ErrorKind::ConnectionRefused => {
            Failure::new(Kind::Unreachable, format!("nobody listens at {url}: check the port and the broker"))
        }
        _ => Failure::new(Kind::Unreachable, format!("{url} can't be reached ({error}): check the network")),
    }
}

fn closed_before_answer(url: &BrokerUrl, files: &TlsFiles) -> Failure {
    if url.tls && files.client.is_none() {
        Failure::new(
            Kind::ClientCertificate,
            format!("{url} closed the connection right after the TLS handshake: it may require a client certificate"),
        )
    } else if url.tls {
        Failure::new(
            Kind::ClientCertificate,
            format!(
                "{url} closed the connection right after the TLS handshake: it may have refused the client certificate"
            ),
        )
    } else {
        Failure::new(
            Kind::Protocol,
            format!("{url} closed the connection without an answer: if it is a TLS port, use ssl:// in broker.url"),
        )
    }
}

/// What ended a session, without the libraries' own wording where the kind says it all.
fn short(error: &ConnectionError) -> String {
    match io_error(error).map(|io| (io.kind(), io)) {
        Some((io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionAborted, _)) => {
            "the other side hung up".to_owned()
        }
        Some((io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, _)) => "it was reset".to_owned(),
        Some((_, io)) => io.to_string(),
        None => error.to_string(),
    }
}

/// Finds the system's error wherever it is wrapped.
fn io_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = match error.downcast_ref::<ConnectionError>() {
            Some(ConnectionError::MqttState(StateError::Io(io))) => Some(io),
            Some(ConnectionError::MqttState(StateError::Deserialization(rumqttc::mqttbytes::Error::Io(io)))) => {
                Some(io)
            }
            _ => error.source(),
        };
    }
    None
}

/// Finds the TLS library's error wherever it is wrapped. An `io::Error` hides what it carries
/// from `source()`, so both ways are looked at.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hung_up_connection_is_told_in_plain_words() {
        let url = BrokerUrl::parse("ssl://b").unwrap();
        let eof = || io::Error::new(io::ErrorKind::UnexpectedEof, "see https://docs.rs");
        for error in [
            ConnectionError::MqttState(StateError::Io(eof())),
            ConnectionError::MqttState(StateError::Deserialization(rumqttc::mqttbytes::Error::Io(eof()))),
        ] {
            let failure = Failure::explain(&error, &url, &TlsFiles::default(), true);
            assert_eq!(failure.sentence, "the connection to ssl://b:8883 broke (the other side hung up)");
        }
    }

    #[test]
    fn a_tls_error_is_found_however_deep_it_is_wrapped() {
        let deep = || {
            let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
            io::Error::new(io::ErrorKind::InvalidData, alert)
        };
        let url = BrokerUrl::parse("ssl://b").unwrap();
        for error in [
            ConnectionError::MqttState(StateError::Io(deep())),
            ConnectionError::MqttState(StateError::Deserialization(rumqttc::mqttbytes::Error::Io(deep()))),
            ConnectionError::Tls(rumqttc::TlsError::Io(deep())),
            ConnectionError::Io(deep()),
        ] {
            let failure = Failure::explain(&error, &url, &TlsFiles::default(), false);
            assert_eq!(failure.kind, Kind::ClientCertificate, "{error:?}");
            assert!(failure.sentence.contains("requires a client certificate"));
        }
    }
}
