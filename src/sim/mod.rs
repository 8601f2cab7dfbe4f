//! Simulated meters, receivers and a small broker: the same ones in the demo and in the tests.
//!
//! Invariants: only behind feature `demo`, never in a firmware build; each simulator is checked
//! by a client nobody here wrote (tests/). They listen on loopback and pseudo-terminals only.

pub mod amber_stick;
pub mod authority;
pub mod broker;
pub mod cul_stick;
pub mod dlms_meter;
pub mod iec_meter;
pub mod im871a;
pub mod iu891a;
pub mod mbus_meter;
mod modbus_content;
pub mod modbus_meter;
pub mod modbus_paced;
pub mod modem;
pub mod openlinkiq;
pub mod push_meter;
pub mod radio_replay;
pub mod rc1180_stick;
pub mod rtl_433;
pub mod stick;
