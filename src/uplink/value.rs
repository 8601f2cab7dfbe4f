//! Settings that can't hold nonsense: broker addresses, keep-alive times, limits.

use std::fmt;
use std::time::Duration;

use crate::setting::{Node, Printed, Problems, Setting, Shape, Size};

/// Where the broker listens, and whether it speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Whether the session is encrypted and the broker's certificate checked.
    pub tls: bool,
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl BrokerUrl {
    /// Reads `ssl://host:8883` and its kin; the error ends a sentence that starts with the key.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or(Self::FORM)?;
        let (tls, default_port) = match scheme {
            "ssl" | "mqtts" => (true, 8883),
            "tcp" | "mqtt" => (false, 1883),
            _ => return Err(Self::FORM),
        };
        if rest.contains('@') {
            return Err(
                "must not hold a user name or password: use username and password_file, which are never printed",
            );
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, after) = bracketed.split_once(']').ok_or(Self::FORM)?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(Self::FORM)?) };
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(Self::FORM);
            }
            (host, port)
        } else {
            match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        let host_is_sane = |h: &str| h.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b));
        if host.is_empty() || host.len() > 253 || !host_is_sane(host) {
            return Err(Self::FORM);
        }
        let port = match port {
            None => default_port,
            Some(port) => port.parse().ok().filter(|&p| p > 0).ok_or("has a port that is not from 1 to 65535")?,
        };
        Ok(Self { tls, host: host.to_owned(), port })
    }

    const FORM: &'static str =
        "must look like ssl://broker.example.com:8883 (ssl or mqtts with TLS, tcp or mqtt without)";
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "ssl" } else { "tcp" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl Setting for BrokerUrl {
    fn shape() -> Shape {
        Shape::Value("broker address, e.g. \"ssl://broker.example.com:8883\"")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let text = node.text("a broker address such as \"ssl://broker.example.com:8883\"", problems)?;
        Self::parse(text).map_or_else(|why| node.refused(why, problems), Some)
    }

    fn stand_in() -> Option<Self> {
        Some(Self { tls: true, host: String::new(), port: 8883 })
    }

    fn printed(&self) -> Printed {
        Printed::text(&self.to_string())
    }
}

/// The keep-alive time: whole seconds from 5 s to 18 h (MQTT 3.1.1, 3.1.2.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive(u16);

impl KeepAlive {
    /// Takes so many seconds, held to the range.
    pub const fn clamped(seconds: u16) -> Self {
        Self(if seconds < 5 { 5 } else { seconds })
    }

    /// The time in seconds.
    pub const fn seconds(self) -> u16 {
        self.0
    }
}

impl Setting for KeepAlive {
    fn shape() -> Shape {
        Shape::Value("duration from \"5s\" to \"18h\"")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let time = Duration::read(node, problems)?;
        match u16::try_from(time.as_secs()) {
            Ok(seconds) if seconds >= 5 && time.subsec_millis() == 0 => Some(Self(seconds)),
            _ => node.refused("must be whole seconds from \"5s\" to \"18h\"", problems),
        }
    }

    fn printed(&self) -> Printed {
        Duration::from_secs(self.0.into()).printed()
    }
}

/// The longest payload of one message: 1 KiB to 16 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadLimit(usize);

impl PayloadLimit {
    /// Takes so many bytes, held to the range.
    pub fn clamped(bytes: usize) -> Self {
        Self(bytes.clamp(1 << 10, 16 << 20))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl Setting for PayloadLimit {
    fn shape() -> Shape {
        Shape::Value("size from \"1KiB\" to \"16MiB\"")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let size = usize::try_from(Size::read(node, problems)?.bytes()).unwrap_or(usize::MAX);
        if size == Self::clamped(size).0 {
            Some(Self(size))
        } else {
            node.refused("must be from \"1KiB\" to \"16MiB\"", problems)
        }
    }

    fn printed(&self) -> Printed {
        Size::from_bytes(self.0 as u64).printed()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broker_addresses_are_understood() {
        let parsed = |text: &str| BrokerUrl::parse(text).unwrap().to_string();
        assert_eq!(parsed("ssl://broker.example.com:8884"), "ssl://broker.example.com:8884");
        assert_eq!(parsed("mqtts://broker.example.com"), "ssl://broker.example.com:8883");
        assert_eq!(parsed("tcp://10.0.0.1/"), "tcp://10.0.0.1:1883");
        assert_eq!(parsed("mqtt://[fe80::1]:99"), "tcp://[fe80::1]:99");
    }

    #[test]
    fn wrong_broker_addresses_are_refused_with_a_reason() {
        for text in ["broker:1883", "http://x", "ssl://", "ssl://a b", "ssl://[x]:1", "ssl://h/path", ""] {
            assert!(BrokerUrl::parse(text).unwrap_err().contains("must look like"), "{text}");
        }
        assert!(BrokerUrl::parse("ssl://h:0").unwrap_err().contains("65535"));
        assert!(BrokerUrl::parse("ssl://h:70000").unwrap_err().contains("65535"));
        assert!(BrokerUrl::parse("ssl://user:secret@h").unwrap_err().contains("password_file"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,40}", host in "[a-z.:\\[\\]0-9/@]{0,20}") {
            for url in [text, format!("ssl://{host}")] {
                if let Ok(url) = BrokerUrl::parse(&url) {
                    prop_assert_eq!(BrokerUrl::parse(&url.to_string()).unwrap(), url);
                }
            }
        }
    }
}
