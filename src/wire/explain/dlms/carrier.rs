//! What carries an APDU, in words.

use serde_json::json;

use super::{Json, Part, row};
use crate::wire::dlms::hdlc::{self, Address, Control};
use crate::wire::dlms::push::Frame;
use crate::wire::explain::Layer;

/// An address with its logical and physical device.
fn address(address: Address) -> String {
    match address {
        Address::Single(number) => number.to_string(),
        Address::Double { upper, lower } => format!("{upper}/{lower}"),
        Address::Quad { upper, lower } => format!("{upper}/{lower}"),
    }
}

fn control(control: Control) -> String {
    match control {
        Control::I { ns, nr, .. } => format!("I, number {ns}, awaits {nr}"),
        Control::Rr { nr, .. } => format!("RR, awaits {nr}"),
        Control::Rnr { nr, .. } => format!("RNR, awaits {nr}"),
        Control::Snrm => "SNRM: opens the link".to_owned(),
        Control::Ua => "UA: agrees".to_owned(),
        Control::Disc => "DISC: closes the link".to_owned(),
        Control::Dm => "DM: there is no link".to_owned(),
        Control::Rej { nr, .. } => format!("REJ, awaits {nr}"),
        Control::Other(byte) => format!("{byte:02x}, which DLMS does not use"),
        Control::Frmr => "FRMR: refuses a frame".to_owned(),
        Control::Ui => "UI: unnumbered information".to_owned(),
    }
}

pub(super) fn explain(frame: &Frame) -> Part {
    let mut json = Json::new();
    let mut put = |key: &str, value: serde_json::Value| drop(json.insert(key.to_owned(), value));
    let (title, rows) = match frame {
        Frame::Hdlc(frame) => {
            let hdlc::Frame { segmented, destination, source, control: kind, information } = frame;
            put("carrier", json!("hdlc"));
            put("destination", json!(address(*destination)));
            put("source", json!(address(*source)));
            put("control", json!(format!("{:02x}", kind.byte())));
            put("segmented", json!(segmented));
            put("information", json!(information.len()));
            let more = if *segmented { ", goes on in the next frame" } else { "" };
            let rows = vec![
                row("destination", &[], address(*destination)),
                row("source", &[], address(*source)),
                row("control", &[kind.byte()], control(*kind)),
                row("information", &[], format!("{} bytes{more}", information.len())),
                row("checks", &[], "good".to_owned()),
            ];
            ("HDLC frame (IEC 62056-46)", rows)
        }
        Frame::Mbus(segment) => {
            put("carrier", json!("mbus"));
            put("control", json!(format!("{:02x}", segment.control)));
            put("address", json!(segment.address));
            put("segment", json!(segment.number));
            put("last", json!(segment.last));
            put("source", json!(segment.source));
            put("destination", json!(segment.destination));
            put("information", json!(segment.data.len()));
            let ci = segment.number | if segment.last { 0x10 } else { 0 };
            let last = if segment.last { ", the last" } else { ", more follow" };
            let rows = vec![
                row("C", &[segment.control], "to the reader".to_owned()),
                row(
                    "A",
                    &[segment.address],
                    if segment.address == 255 { "everybody".to_owned() } else { segment.address.to_string() },
                ),
                row("CI", &[ci], format!("segment {}{last}", segment.number)),
                row("STSAP", &[segment.source], format!("from logical device {}", segment.source)),
                row("DTSAP", &[segment.destination], format!("to client {}", segment.destination)),
                row("data", &[], format!("{} bytes", segment.data.len())),
            ];
            ("wired M-Bus frame (EN 13757-2, IEC 62056-7-3)", rows)
        }
        Frame::Wrapper(unit) => {
            put("carrier", json!("wrapper"));
            put("source", json!(unit.source));
            put("destination", json!(unit.destination));
            put("information", json!(unit.apdu.len()));
            let rows = vec![
                row("source", &unit.source.to_be_bytes(), unit.source.to_string()),
                row("destination", &unit.destination.to_be_bytes(), unit.destination.to_string()),
                row("length", &[], format!("{} bytes", unit.apdu.len())),
            ];
            ("wrapper (IEC 62056-47)", rows)
        }
        Frame::Bare(apdu) => {
            put("carrier", json!("none"));
            put("information", json!(apdu.len()));
            ("no carrier", Vec::new())
        }
    };
    Part { layer: Layer { title, rows }, json }
}

/// The frame in a few words; nothing of what only carries an APDU that is told by itself.
pub(super) fn words(frame: &Frame) -> Option<String> {
    match frame {
        Frame::Hdlc(frame) => {
            let ends = format!("HDLC {} to {}", address(frame.source), address(frame.destination));
            Some(format!("{ends}: {}", control(frame.control)))
        }
        Frame::Mbus(segment) => Some(format!("M-Bus segment {}", segment.number)),
        Frame::Wrapper(unit) => Some(format!("wrapper {} to {}", unit.source, unit.destination)),
        Frame::Bare(_) => None,
    }
}
