//! As much of MQTT 3.1.1 as the proxy, the head-end and the bridge's meter need.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const SUBACK: u8 = 9;

/// A packet with its fixed header, byte for byte.
#[derive(Debug, Clone)]
pub struct Packet {
    pub bytes: Vec<u8>,
    /// Where the variable header begins.
    body: usize,
}

/// A PUBLISH of QoS 1 taken apart.
pub struct Publish<'a> {
    pub topic: &'a [u8],
    pub id: u16,
    pub payload: &'a [u8],
}

impl Packet {
    /// Reads one packet; `None` at a clean end.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(256);
        match from.read_u8().await {
            Ok(first) => bytes.push(first),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = from.read_u8().await?;
            bytes.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let body = bytes.len();
        bytes.resize(body + length, 0);
        from.read_exact(&mut bytes[body..]).await?;
        Ok(Some(Self { bytes, body }))
    }

    pub fn kind(&self) -> u8 {
        self.bytes[0] >> 4
    }

    /// The packet as a PUBLISH with an id; `None` for any other packet.
    pub fn publish(&self) -> Option<Publish<'_>> {
        let qos = (self.bytes[0] >> 1) & 3;
        if self.kind() != PUBLISH || qos == 0 {
            return None;
        }
        let (length, rest) = self.bytes[self.body..].split_at(2);
        let (topic, rest) = rest.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
        let (id, payload) = rest.split_at(2);
        Some(Publish { topic, id: u16::from_be_bytes([id[0], id[1]]), payload })
    }

    /// The id of a PUBACK.
    pub fn acknowledged(&self) -> Option<u16> {
        let body = &self.bytes[self.body..];
        (self.kind() == PUBACK).then(|| u16::from_be_bytes([body[0], body[1]]))
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let low = (length & 0x7F) as u8;
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// CONNECT with a keep-alive of 60 s.
pub fn connect(client: &str, clean: bool) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([4, if clean { 2 } else { 0 }, 0, 60]);
    body.extend(text(client));
    packet(0x10, &body)
}

/// SUBSCRIBE to everything with QoS 1.
pub fn subscribe_to_all() -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(text("#"));
    body.push(1);
    packet(0x82, &body)
}

/// PUBLISH with QoS 1.
pub fn publish(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    body.extend(id.to_be_bytes());
    body.extend(payload);
    packet(0x32, &body)
}

/// PUBACK.
pub fn acknowledge(id: u16) -> Vec<u8> {
    packet(0x40, &id.to_be_bytes())
}

/// PINGREQ.
pub fn ping() -> Vec<u8> {
    vec![0xC0, 0]
}
