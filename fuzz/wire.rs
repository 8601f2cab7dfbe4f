//! The ground floor of weir: its values and its codecs, which import nothing from the floors above.

#[path = "../src/model/mod.rs"]
pub mod model;
#[path = "../src/wire/mod.rs"]
pub mod wire;
