//! The only room that touches serial lines, files, the clock, random numbers and the service
//! manager.
//!
//! Invariants: nothing here knows a protocol; a call never blocks the runtime's thread longer
//! than a system call on local memory does (serial transmission is awaited by time, files are
//! small or handled on the store's own thread). Start with [`line::Line`].

pub mod alarm;
pub mod arrival;
pub mod child;
pub mod clock;
pub mod dog;
pub mod file;
pub mod gpio;
pub mod line;
pub mod log_tail;
pub mod machine;
pub mod notify;
pub mod ping;
pub mod pty;
pub mod random;
pub mod request;
mod rs485;
pub mod seal;
pub mod stdin;
pub mod usb;
