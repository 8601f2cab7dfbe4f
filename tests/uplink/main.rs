//! The uplink against a real broker (mosquitto) and against one that misbehaves.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test may fail loudly"
)]

mod budget;
mod crooked;
mod delivery;
mod latency;
mod line;
mod nudge;
#[path = "../tools/pace.rs"]
mod pace;
#[path = "../peers/mod.rs"]
mod peers;
mod refusal;
mod rig;
mod session;
mod several;
mod simulated;
mod stall;
