//! What a meter's objects are (IEC 62056-6-2): their names, classes, attributes, and what stands in them.
//!
//! Everything here is pure: bytes and settings go in, texts and exact numbers come out.

mod class;
mod input;
mod list;
mod target;
mod text;
mod time;

pub(super) use class::{
    CANDIDATES, Scales, attribute_name, attributes, class_name, is_long, is_status, method_name, scales,
    value_attributes, value_word, watches,
};
pub(super) use input::{like, typed};
pub(super) use list::{Object, Objects};
pub(super) use target::Target;
pub(super) use text::{Scaler, scaled, shown};
pub(super) use time::{Face, coded, moment, octets, plus};
