//! `[meter.push]` of weir.toml.

use crate::setting::{At, SecretFile};
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
        /// The file with the key of pushes that go to many at once, 32 hexadecimal digits. Unset: such are refused.
        pub broadcast_key_file: Option<At<SecretFile>>,
    }
}
