//! ICMP echo without any capability: the kernel's datagram sockets for it (`net.ipv4.ping_group_range`).

use std::io;
use std::net::{IpAddr, SocketAddr};

use rand::Rng;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tokio::net::UdpSocket;

use super::random;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// The kernel gives no such socket to this user.
    #[error("ICMP is not allowed here: set net.ipv4.ping_group_range (systemd/weir-ping.sysctl)")]
    NotAllowed,
    /// It can't be reached.
    #[error("it can't be reached: {0}")]
    System(io::Error),
}

/// The types of request and answer (RFC 792, RFC 4443 4.1).
const ECHO: (u8, u8) = (8, 0);
const ECHO_6: (u8, u8) = (128, 129);

/// Asks a host for an echo and waits for it; without an answer for ever. The kernel sets id and checksum.
///
/// # Errors
/// [`PingError`].
pub async fn echo(host: IpAddr) -> Result<(), PingError> {
    let (family, protocol, (request, answer)) = match host {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, ECHO),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, ECHO_6),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::DGRAM, flags, Some(protocol)).map_err(|error| match error {
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM | rustix::io::Errno::PROTONOSUPPORT => {
            PingError::NotAllowed
        }
        other => PingError::System(other.into()),
    })?;
    let socket = UdpSocket::from_std(socket.into()).map_err(PingError::System)?;
    socket.connect(SocketAddr::new(host, 0)).await.map_err(PingError::System)?;
    let token = random::generator().next_u64().to_be_bytes();
    let mut packet = vec![request, 0, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(&token);
    socket.send(&packet).await.map_err(PingError::System)?;
    let mut heard = [0; 256];
    loop {
        let count = socket.recv(&mut heard).await.map_err(PingError::System)?;
        let heard = heard.get(..count).unwrap_or_default();
        if heard.first() == Some(&answer) && heard.ends_with(&token) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn this_machine_answers_or_says_that_icmp_is_not_allowed() {
        let asked = tokio::time::timeout(Duration::from_secs(60), echo("127.0.0.1".parse().unwrap())).await;
        match asked.expect("the kernel answers") {
            Ok(()) => {}
            Err(PingError::NotAllowed) => eprintln!("note: ICMP sockets are not allowed here; nothing was echoed"),
            Err(error) => panic!("{error}"),
        }
    }
}
