//! Hosts that are asked whether there is a way to the world.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::os::ping::{self, PingError};

/// How long one host may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A host and the way it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// By ICMP echo.
    Echo(String),
    /// By a TCP connection, which is closed at once.
    Connect(String, u16),
}

impl Host {
    /// Reads `8.8.8.8`, `gateway.example`, `2001:db8::1`, `host:port`, `[2001:db8::1]:port`.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no host; write 8.8.8.8, a name, or host:port");
        let name = |text: &str| {
            let fits = !text.is_empty() && text.len() <= 253;
            fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if text.parse::<IpAddr>().is_ok() || name(text) {
            return Ok(Self::Echo(text.to_owned()));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Connect(address.ip().to_string(), address.port()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0 && name(host)).ok_or_else(wrong)?;
        Ok(Self::Connect(host.to_owned(), port))
    }

    /// Asks it. Where ICMP sockets are not allowed `instead` is connected to.
    ///
    /// # Errors
    /// One sentence that says how it failed.
    pub async fn answers(&self, instead: Option<&(String, u16)>) -> Result<(), String> {
        let asked = async {
            match self {
                Self::Connect(host, port) => connect(host, *port).await,
                Self::Echo(host) => match echo(host).await {
                    Err(PingError::NotAllowed) => match instead {
                        Some((host, port)) => connect(host, *port).await,
                        None => Err(PingError::NotAllowed.to_string()),
                    },
                    other => other.map_err(|error| error.to_string()),
                },
            }
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer in 10 s".to_owned()))
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Echo(host) => f.write_str(host),
            Self::Connect(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Connect(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

async fn connect(host: &str, port: u16) -> Result<(), String> {
    TcpStream::connect((host, port)).await.map(drop).map_err(|error| error.to_string())
}

async fn echo(host: &str) -> Result<(), PingError> {
    let mut addresses = lookup_host((host, 0)).await.map_err(PingError::System)?;
    let address =
        addresses.next().ok_or_else(|| PingError::System(std::io::Error::other("the name has no address")))?;
    ping::echo(address.ip()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_people_write_them() {
        for (text, host) in [
            ("8.8.8.8", Host::Echo("8.8.8.8".into())),
            ("2001:db8::1", Host::Echo("2001:db8::1".into())),
            ("mqtt.example.org", Host::Echo("mqtt.example.org".into())),
            ("mqtt.example.org:8883", Host::Connect("mqtt.example.org".into(), 8883)),
            ("[2001:db8::1]:53", Host::Connect("2001:db8::1".into(), 53)),
        ] {
            assert_eq!(Host::parse(text).unwrap(), host);
            assert_eq!(host.to_string(), text);
        }
        for text in ["", "a b", "host:0", "host:99999", ":1", "$(reboot)", "a:b:c"] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_port_that_listens_answers_and_one_that_does_not_is_told_why() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = Host::Connect("127.0.0.1".into(), port);
        host.answers(None).await.unwrap();
        drop(listener);
        assert!(host.answers(None).await.unwrap_err().contains("refused"));
    }
}
