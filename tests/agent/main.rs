//! The whole agent from outside: the real binary, real meters, receivers and brokers.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test may fail loudly, and says what it measured"
)]

mod broker;
mod clock;
mod commands;
mod configuration;
mod crowd;
mod decode;
mod delivery;
mod door;
mod firmware;
mod imei;
mod kill;
mod lines;
mod manifest;
#[path = "../peers/mod.rs"]
mod peers;
mod profile;
mod push;
mod refusal;
mod report;
mod rig;
mod shutdown;
mod statement;
mod traffic;
