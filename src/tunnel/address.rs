//! Addresses of the network as weir.toml writes them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::setting::{Node, Printed, Problems, Setting, Shape};

/// A host by its name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Place {
    /// Reads `host:port` or `[2001:db8::1]:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.filter(|host| host.contains(':')).unwrap_or(host);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b) || (bracketed.is_some() && b == b':');
        let named = !host.is_empty() && host.len() <= 253 && host.bytes().all(plain);
        let port = port.parse().ok().filter(|port| *port > 0)?;
        named.then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An address and port of this gateway to listen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local(pub SocketAddr);

impl Local {
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The addresses of a network: an address and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `80.1.2.3`, `10.0.0.0/8` or `2001:db8::/32`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
            None => most,
        };
        Some(Self { address, bits })
    }

    /// Whether an address belongs to it; one of IPv4 inside IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, all: u32| {
            let beyond = all.saturating_sub(u32::from(self.bits));
            ours.checked_shr(beyond).unwrap_or(0) == theirs.checked_shr(beyond).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => same(ours.to_bits().into(), theirs.to_bits().into(), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        if self.bits == whole { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.bits) }
    }
}

/// Where the Modbus unit of a number is: `ip@n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The gateway that the unit hangs on.
    pub ip: IpAddr,
    /// 1 to 255.
    pub unit: u8,
}

impl Route {
    /// Reads `10.1.1.10@1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, unit) = text.split_once('@')?;
        let unit = unit.parse().ok().filter(|unit| *unit > 0)?;
        Some(Self { ip: ip.parse().ok()?, unit })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.ip, self.unit)
    }
}

/// A setting that is one text.
macro_rules! one_text {
    ($kind:ty, $shape:literal, $form:literal) => {
        impl Setting for $kind {
            fn shape() -> Shape {
                Shape::Value($shape)
            }

            fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
                let text = node.text($form, problems)?;
                Self::parse(text).or_else(|| node.refused(&format!("is \"{text}\", but must be {}", $form), problems))
            }

            fn printed(&self) -> Printed {
                Printed::text(&self.to_string())
            }
        }
    };
}

one_text!(Place, "host:port", "a host and a port such as \"centre.example.com:4059\"");
one_text!(Local, "address:port", "an address of this gateway and a port such as \"0.0.0.0:20010\"");
one_text!(Network, "IP address or network", "an address such as \"80.1.2.3\" or a network such as \"10.0.0.0/8\"");
one_text!(Route, "ip@unit", "an IP address and a Modbus unit from 1 to 255, such as \"10.1.1.10@1\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_as_it_does() {
        let ten = Network::parse("10.0.0.0/8").unwrap();
        let hold = |network: &Network, address: &str| network.contains(address.parse().unwrap());
        assert!(hold(&ten, "10.200.3.4") && hold(&ten, "::ffff:10.1.2.3"));
        assert!(!hold(&ten, "11.0.0.1") && !hold(&ten, "::1"));
        let one = Network::parse("80.1.2.3").unwrap();
        assert!(hold(&one, "80.1.2.3") && !hold(&one, "80.1.2.4"));
        let all = Network::parse("0.0.0.0/0").unwrap();
        assert!(hold(&all, "1.2.3.4") && !hold(&all, "2001:db8::1"));
        let wide = Network::parse("2001:db8::/32").unwrap();
        assert!(hold(&wide, "2001:db8:1::1") && !hold(&wide, "2001:db9::1"));
        assert!(hold(&Network::parse("::/0").unwrap(), "2001:db8::1"));
    }

    #[test]
    fn what_is_read_is_printed_and_nonsense_is_refused() {
        for text in ["centre.example.com:4059", "10.0.0.1:1", "[2001:db8::1]:20010"] {
            assert_eq!(Place::parse(text).map(|place| place.to_string()).as_deref(), Some(text));
        }
        for text in ["centre", "centre:", ":4059", "centre:0", "centre:70000", "a b:1", "::1:80", "user@host:1"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
        for text in ["10.0.0.0/8", "80.1.2.3", "2001:db8::/32"] {
            assert_eq!(Network::parse(text).map(|network| network.to_string()).as_deref(), Some(text));
        }
        assert!(["10.0.0.0/33", "10.0.0", "", "/8", "10.0.0.0/-1"].iter().all(|text| Network::parse(text).is_none()));
        assert_eq!(Route::parse("10.1.1.10@7").map(|route| route.to_string()).as_deref(), Some("10.1.1.10@7"));
        assert!(["10.1.1.10@0", "10.1.1.10@256", "10.1.1.10", "x@1"].iter().all(|text| Route::parse(text).is_none()));
    }
}
