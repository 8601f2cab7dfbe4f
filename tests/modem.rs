//! The cellular modem, from outside: the room against the simulated modem, the simulated modem and the codec against
//! programs nobody here wrote (gammu, smstools, codecs in Python).

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test may fail loudly"
)]

#[path = "peers/mod.rs"]
mod peers;

#[path = "modem/faults.rs"]
mod faults;
#[path = "modem/gammu.rs"]
mod gammu;
#[path = "modem/log.rs"]
mod log;
#[path = "modem/managed.rs"]
mod managed;
#[path = "modem/messages.rs"]
mod messages;
#[path = "modem/oracle.rs"]
mod oracle;
#[path = "modem/rig.rs"]
mod rig;
#[path = "modem/smstools.rs"]
mod smstools;
#[path = "modem/start.rs"]
mod start;
