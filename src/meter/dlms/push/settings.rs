//! `[meter.push]` of weir.toml.

use crate::setting::At;
use crate::settings;

settings! {
    /// What the pushes of a DLMS/COSEM meter must have to be believed.
    pub struct PushSettings {
        /// The meter's system title, 16 hexadecimal digits; pushes of other meters are refused. Unset: any that the
        /// keys open.
        pub system_title: Option<At<String>>,
        /// Whether encrypted pushes without a tag are taken although there is an authentication key. Some meters
        /// send no others; then anybody on the wire can change values unseen.
        pub untagged: bool = false,
    }
}
