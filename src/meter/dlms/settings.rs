//! `[meter.dlms]` of weir.toml.

use std::time::Duration;

use crate::setting::{At, Count, SecretFile};
use crate::{choices, settings};

settings! {
    /// How a DLMS/COSEM meter is reached, and as whom.
    pub struct DlmsSettings {
        /// What carries the APDUs.
        pub link: DlmsLink = "hdlc",
        /// The client's address: 16 is the public client, others as the meter's manual says.
        pub client: Count<1, 65_535> = 16,
        /// The meter's logical device: 1 is the management one. Its physical device is `address`, which only HDLC has.
        pub server: Count<0, 65_535> = 1,
        /// HDLC: the bytes of the meter's address, 1, 2 or 4. Unset: as many as its numbers need.
        pub address_bytes: Option<At<Count<1, 4>>>,
        /// HDLC: the most bytes of a frame that are asked for, both ways; a meter that has shorter ones says so. With the
        /// default an APDU of 1024 bytes takes one frame; on a line with noise less may be quicker.
        pub information_field: Count<32, 2030> = 1030,
        /// HDLC: the most frames before an acknowledgement that are asked for.
        pub window: Count<1, 7> = 1,
        /// HDLC: the longest pause between two bytes of a frame; behind a slow network it may need to be longer.
        pub octet_timeout: Duration = "1s",
        /// Mode E: the wait between the change of speed and the first HDLC frame.
        pub mode_e_pause: Duration = "1s",
        /// How objects are named.
        pub referencing: DlmsReferencing = "logical-names",
        /// How the client shows who it is; a secret comes from `password_file`, for gmac from `authentication_key_file`.
        pub authentication: DlmsAuthentication = "none",
        /// What every APDU carries; the keys are `key_file` and `authentication_key_file`.
        pub security: DlmsSecurity = "none",
        /// The security suite: 0 and 1 have keys of 32 hexadecimal digits, 2 has keys of 64.
        pub suite: Count<0, 2> = 0,
        /// How ciphered APDUs are wrapped.
        pub ciphering: DlmsCiphering = "auto",
        /// The file with the global broadcast key of a meter whose answers are ciphered with it.
        pub broadcast_key_file: Option<At<SecretFile>>,
        /// This client's system title, 16 hexadecimal digits. Unset: one made at random once and kept beside the
        /// invocation counters, so that no counter was ever used with it elsewhere.
        pub system_title: Option<At<String>>,
        /// The object that tells this client's invocation counter, which the public client may read.
        pub counter: Option<At<String>>,
        /// Whether general block transfer is proposed: long APDUs whole, in numbered blocks.
        pub general_blocks: bool = false,
        /// The longest APDU that the meter may send; it says how long ours may be. Over HDLC as much less is asked for as
        /// leaves no frame nearly empty.
        pub max_pdu: Count<64, 65_535> = 1024,
        /// The longest time that one reading, or one piece of a profile, may hold the meter and its line, from the opening to
        /// the farewell. A reading that needs more keeps what it has, and the next one goes on where it stopped.
        pub longest_session: Duration = "5m",
        /// The meter's clock.
        pub clock: DlmsClockSettings = {},
    }
}

settings! {
    /// What is done about a meter's clock; nothing while the gateway's own clock is not trusted.
    pub struct DlmsClockSettings {
        /// How often it is compared with the gateway's; "0s" never.
        pub check: Duration = "24h",
        /// How far it may be off without being called wrong.
        pub tolerance: Duration = "10s",
        /// Whether a clock that is wrong is set; else it is only told.
        pub set: bool = false,
        /// The most that it is moved by; one that is farther off is told.
        pub limit: Duration = "5m",
        /// Whether one that is off by a capture period or more, and by no more than the limit, is set too: the meter
        /// then skips intervals or captures them twice.
        pub skip_intervals: bool = false,
    }
}

choices! {
    /// What carries the APDUs.
    pub enum DlmsLink {
        /// HDLC at the meter's speed, on a serial line or through a serial server.
        Hdlc = "hdlc",
        /// HDLC after an opening by IEC 62056-21 mode E.
        HdlcModeE = "hdlc-mode-e",
        /// The wrapper, over TCP.
        Wrapper = "wrapper",
    }
}

choices! {
    /// How objects are named.
    pub enum DlmsReferencing {
        /// By class and logical name.
        LogicalNames = "logical-names",
        /// By short names, as older meters do.
        ShortNames = "short-names",
    }
}

choices! {
    /// How a client shows who it is.
    pub enum DlmsAuthentication {
        /// Not at all: the public client.
        None = "none",
        /// Low level security: a password.
        Low = "low",
        /// High level security 2, as Gurux does it: AES-128 of the challenge.
        Manufacturer = "manufacturer",
        /// High level security 3.
        Md5 = "md5",
        /// High level security 4.
        Sha1 = "sha1",
        /// High level security 5.
        Gmac = "gmac",
        /// High level security 6.
        Sha256 = "sha256",
        /// High level security 7.
        Ecdsa = "ecdsa",
    }
}

choices! {
    /// What every APDU carries.
    pub enum DlmsSecurity {
        /// Nothing.
        None = "none",
        /// A tag.
        Authenticated = "authenticated",
        /// Ciphertext.
        Encrypted = "encrypted",
        /// Ciphertext and a tag.
        AuthenticatedEncrypted = "authenticated-encrypted",
    }
}

choices! {
    /// How ciphered APDUs are wrapped.
    pub enum DlmsCiphering {
        /// As general-glo-ciphering where the meter grants it, else by service.
        Auto = "auto",
        /// As general-glo-ciphering.
        General = "general",
        /// Each service in its own glo- APDU.
        Service = "service",
        /// As general, with a key made for each association.
        Dedicated = "dedicated",
    }
}
