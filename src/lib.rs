//! weir, the edge concentrator agent: the map of its rooms, floor by floor.
//!
//! A room imports only from floors below its own; rooms on one floor are strangers to each
//! other. `tests/architecture.rs` holds the table and fails on a breach.

// Floor 0: pure values and codecs. No operating system, no clock, no async, no logging.
pub mod model;
pub mod setting;
pub mod wire;

// Floor 1: the only room that touches serial lines, files, the clock and random numbers.
pub mod os;

// Floor 2: rooms that do one thing each and never meet.
pub mod board;
pub mod meter;
pub mod modem;
pub mod radio;
#[cfg(feature = "demo")]
pub mod sim;
pub mod store;

// Floor 3: the platform: its sessions, its bytes, its commands.
pub mod control;
pub mod tunnel;
pub mod uplink;
pub mod watchdog;

// Floor 4: the settings of all rooms, read from one file.
pub mod config;

// Floor 5: builds the rooms, joins them by bounded channels, supervises them.
pub mod agent;

// Floor 6: the commands a person types.
pub mod cli;

#[cfg(test)]
#[path = "../tests/tools/pace.rs"]
mod pace;
