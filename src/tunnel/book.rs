//! What a tunnel tells about its sessions, for the audit.

use tokio::sync::mpsc;

/// A session with a peer has begun or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The name of the port.
    pub port: String,
    /// Who the peer is.
    pub peer: String,
    /// Bytes that were written to the port in this session.
    pub to_port: u64,
    /// Bytes that came from it.
    pub from_port: u64,
    /// Why it ended, in one sentence; `None`: it begins.
    pub ended: Option<String>,
}

/// Where sessions are told; without anybody who wants to know it costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Book(Option<mpsc::Sender<Session>>);

impl Book {
    /// Tells them there; one that finds no place is left out.
    pub const fn new(out: mpsc::Sender<Session>) -> Self {
        Self(Some(out))
    }

    /// Tells of a session.
    pub fn tell(&self, session: impl FnOnce() -> Session) {
        if let Some(out) = &self.0
            && out.try_send(session()).is_err()
        {
            tracing::debug!("a session of a tunnel is missing in the audit");
        }
    }
}
