//! Every decoder of `src/wire` as a target for arbitrary bytes: one table, two users. `tests/fuzz.rs` runs it over
//! seeds and their mutations in CI; `fuzz/` runs it under libFuzzer for as long as wanted.
//!
//! A target gives bytes to a decoder and asserts what the codec promises: it never panics, what comes out
//! is bounded by what went in, the way the bytes were cut changes nothing, what was decoded is decoded
//! again from its own encoding.

#![allow(unreachable_pub, reason = "two crates use it, each as a module of its own")]

mod carrier;
mod dlms;
mod line;
mod mbus;
mod modbus;
mod radio;
mod receiver;
mod remote;
mod seeds;
mod sources;
mod stream;
mod words;

pub use sources::Sources;
pub use stream::How;

/// One decoder, or a few that need each other.
pub struct Target {
    /// What it is called on the command line.
    pub name: &'static str,
    /// The files of `src/wire` whose decoders it reaches.
    pub covers: &'static [&'static str],
    /// Runs it once.
    pub run: fn(How, &[u8]),
    /// Bytes to begin with.
    pub seeds: fn(&Sources) -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    // Receivers of radio telegrams.
    Target { name: "amber", covers: &["amber.rs"], run: receiver::amber, seeds: seeds::amber },
    Target { name: "cul", covers: &["cul.rs"], run: line::cul, seeds: seeds::cul },
    Target { name: "hex_line", covers: &["hex_line.rs"], run: line::hex, seeds: seeds::hex },
    Target { name: "imst_hci", covers: &["imst_hci/mod.rs"], run: receiver::imst_hci, seeds: seeds::imst_hci },
    Target { name: "iu891a", covers: &["iu891a.rs"], run: receiver::iu891a, seeds: seeds::iu891a },
    Target {
        name: "openlinkiq_line",
        covers: &["openlinkiq_line.rs"],
        run: receiver::openlinkiq_line,
        seeds: seeds::openlinkiq_line,
    },
    Target { name: "radio_line", covers: &["radio_line.rs"], run: line::cut, seeds: seeds::lines },
    Target { name: "rc1180", covers: &["rc1180.rs"], run: receiver::rc1180, seeds: seeds::rc1180 },
    Target { name: "rtl_433", covers: &["rtl_433.rs"], run: line::rtl_433, seeds: seeds::rtl_433 },
    Target { name: "rtl_wmbus", covers: &["rtl_wmbus.rs"], run: line::rtl_wmbus, seeds: seeds::rtl_wmbus },
    Target { name: "unframed", covers: &["unframed.rs"], run: receiver::unframed, seeds: seeds::unframed },
    // Radio telegrams.
    Target { name: "mbal", covers: &["mbal.rs"], run: radio::mbal, seeds: seeds::mbal },
    Target { name: "openlinkiq", covers: &["openlinkiq/mod.rs"], run: radio::openlinkiq, seeds: seeds::on_air },
    Target { name: "telegram", covers: &["telegram.rs"], run: radio::telegram, seeds: seeds::telegrams },
    Target { name: "wmbus", covers: &["wmbus/mod.rs"], run: radio::wmbus, seeds: seeds::telegrams },
    Target { name: "wmbus_chips", covers: &["wmbus/chips.rs"], run: radio::chips, seeds: seeds::chips },
    Target { name: "wmbus_format", covers: &["wmbus/format.rs"], run: radio::format, seeds: seeds::formats },
    Target {
        name: "wmbus_open",
        covers: &["wmbus/fragment.rs", "wmbus/layers.rs", "wmbus/security.rs"],
        run: radio::open,
        seeds: seeds::keyed_telegrams,
    },
    // Wired meters.
    Target {
        name: "iec62056",
        covers: &["iec62056/mod.rs", "iec62056/decoder.rs"],
        run: words::iec62056,
        seeds: seeds::iec62056,
    },
    Target { name: "iec62056_data", covers: &["iec62056/data.rs"], run: words::data, seeds: seeds::data },
    Target { name: "iec62056_profile", covers: &["iec62056/profile.rs"], run: words::profile, seeds: seeds::profile },
    Target { name: "mbus", covers: &["mbus/mod.rs", "mbus/decoder.rs"], run: mbus::frames, seeds: seeds::mbus },
    Target { name: "mbus_compact", covers: &["mbus/compact.rs"], run: mbus::compact, seeds: seeds::records },
    Target { name: "mbus_records", covers: &["mbus/record.rs"], run: mbus::records, seeds: seeds::records },
    Target { name: "modbus_ascii", covers: &["modbus/ascii.rs"], run: modbus::ascii, seeds: seeds::modbus_ascii },
    Target {
        name: "modbus_pdu",
        covers: &["modbus/identity.rs", "modbus/request.rs"],
        run: modbus::pdu,
        seeds: seeds::modbus_pdu,
    },
    Target { name: "modbus_rtu", covers: &["modbus/rtu.rs"], run: modbus::rtu, seeds: seeds::modbus_rtu },
    Target { name: "modbus_tcp", covers: &["modbus/tcp.rs"], run: modbus::tcp, seeds: seeds::modbus_tcp },
    Target { name: "p1", covers: &["p1/decoder.rs"], run: words::p1, seeds: seeds::p1 },
    Target { name: "p1_cipher", covers: &["p1/cipher.rs"], run: words::p1_cipher, seeds: seeds::p1 },
    Target { name: "sml", covers: &["sml/mod.rs", "sml/transport.rs"], run: words::sml, seeds: seeds::sml },
    // DLMS/COSEM.
    Target { name: "dlms_apdu", covers: &["dlms/mod.rs"], run: dlms::apdu, seeds: seeds::apdus },
    Target { name: "dlms_auth", covers: &["dlms/auth.rs"], run: dlms::auth, seeds: seeds::apdus },
    Target { name: "dlms_blocks", covers: &["dlms/blocks.rs"], run: dlms::blocks, seeds: seeds::apdus },
    Target {
        name: "dlms_hdlc",
        covers: &["dlms/hdlc.rs", "dlms/hdlc/parameters.rs"],
        run: carrier::hdlc,
        seeds: seeds::pushes,
    },
    Target {
        name: "dlms_notification",
        covers: &["dlms/notification.rs", "dlms/vendor.rs"],
        run: dlms::notification,
        seeds: seeds::apdus,
    },
    Target { name: "dlms_open", covers: &["dlms/open.rs"], run: dlms::open, seeds: seeds::apdus },
    Target { name: "dlms_protect", covers: &["dlms/protect.rs"], run: dlms::protect, seeds: seeds::apdus },
    Target { name: "dlms_push", covers: &["dlms/push/mod.rs"], run: carrier::push, seeds: seeds::pushes },
    Target { name: "dlms_wrap", covers: &["dlms/wrap.rs"], run: dlms::wrap, seeds: seeds::apdus },
    Target { name: "dlms_wrapper", covers: &["dlms/wrapper.rs"], run: carrier::wrapper, seeds: seeds::wrapped },
    // What people and platforms send.
    Target { name: "at", covers: &["at.rs"], run: remote::command, seeds: seeds::commands },
    Target { name: "at_tags", covers: &["at/tags.rs"], run: remote::tagged, seeds: seeds::commands },
    Target { name: "modem", covers: &["modem/stream.rs"], run: remote::modem, seeds: seeds::modem },
    Target { name: "mtx", covers: &["mtx.rs"], run: remote::config_txt, seeds: seeds::config_txt },
    Target { name: "numbered", covers: &["numbered.rs"], run: remote::numbered, seeds: seeds::numbered },
    Target { name: "rfc2217", covers: &["rfc2217/mod.rs"], run: remote::remote_port, seeds: seeds::rfc2217 },
    Target {
        name: "sms",
        covers: &["sms/alphabet.rs", "sms/pdu.rs"],
        run: remote::short_message,
        seeds: seeds::short_messages,
    },
    // What shows bytes to people, and what ciphers them.
    Target { name: "cipher", covers: &["aes.rs", "gcm.rs"], run: radio::cipher, seeds: seeds::telegrams },
    Target { name: "explain", covers: &["explain/mod.rs"], run: words::explain, seeds: seeds::anything },
    Target {
        name: "explain_dlms",
        covers: &["explain/dlms/mod.rs"],
        run: words::explain_dlms,
        seeds: seeds::keyed_pushes,
    },
];

/// How many bytes before the input proper say [`How`].
const HEAD: usize = 2;

/// Runs a target over what a fuzzer made: two bytes of [`How`], then what the decoder gets.
pub fn run(target: &Target, data: &[u8]) {
    if let Some((&[choice, cuts], bytes)) = data.split_first_chunk::<HEAD>() {
        (target.run)(How { choice, cuts }, bytes);
    }
}
