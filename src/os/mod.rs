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
pub mod file;
pub mod line;
pub mod notify;
pub mod pty;
pub mod random;
mod rs485;
pub mod stdin;
pub mod usb;
