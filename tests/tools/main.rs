//! The tools of the store from outside: the real binary on real stores.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test may fail loudly, and says what it measured"
)]

mod carry;
mod damage;
mod kill;
mod proof;
mod rig;
