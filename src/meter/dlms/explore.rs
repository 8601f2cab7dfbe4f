//! Asks a meter that nobody has described yet who it is, for `weir scan`.
//!
//! Invariants: only what the public client may do and only reading: SNRM and DISC, an association without
//! authentication, GET; no password leaves, so that no meter can lock itself; everything has an end.

use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::link::Link;
use super::object::{Objects, shown};
use super::service::{Content, Services};
use super::session::Client;
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::{Line, LineError};
use crate::wire::dlms::{AttributeDescriptor, Data, LogicalName};

/// The client that every meter lets in without a password (IEC 62056-5-3, annex).
const PUBLIC: u16 = 16;
/// The longest that a meter is asked about itself.
const LONGEST: Duration = Duration::from_secs(30);
/// The logical devices of this physical one (IEC 62056-6-2, clause 6.2.35).
const DEVICES: AttributeDescriptor = AttributeDescriptor::new(17, LogicalName::new(0, 0, 41, 0, 0, 255), 2);
const NAME: AttributeDescriptor = AttributeDescriptor::new(1, LogicalName::new(0, 0, 42, 0, 0, 255), 2);
const SERIAL: AttributeDescriptor = AttributeDescriptor::new(1, LogicalName::new(0, 0, 96, 1, 0, 255), 2);
const FIRMWARE: AttributeDescriptor = AttributeDescriptor::new(1, LogicalName::new(1, 0, 0, 2, 0, 255), 2);
const OBJECTS: AttributeDescriptor = AttributeDescriptor::new(15, LogicalName::new(0, 0, 40, 0, 0, 255), 2);
/// Total energy imported and exported: what is tried where no list is shown.
const GUESSES: [LogicalName; 2] = [LogicalName::new(1, 0, 1, 8, 0, 255), LogicalName::new(1, 0, 2, 8, 0, 255)];
/// How many energy registers are tried, and how many are proposed.
const MOST_TRIED: usize = 8;
const MOST_SHOWN: usize = 4;
/// The most logical devices that are told.
const MOST_DEVICES: usize = 16;

/// What came of an HDLC connection.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::meter) enum Knock {
    /// No DLMS meter is there.
    Nobody,
    /// It accepted the connection, which was ended again.
    Open,
    /// One is there, but wants no connection.
    Refused(String),
}

/// What a meter says of itself to the public client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::meter) struct Portrait {
    /// The logical device name: three letters of the maker and what he likes.
    pub(in crate::meter) name: Option<String>,
    /// The serial number.
    pub(in crate::meter) serial: Option<String>,
    /// The firmware's version.
    pub(in crate::meter) firmware: Option<String>,
    /// The logical devices behind the same address, with their names.
    pub(in crate::meter) devices: Vec<(u16, String)>,
    /// Objects that can be read: total energies, or the name when there are none.
    pub(in crate::meter) values: Vec<String>,
    /// How many objects it shows; `None` when it shows no list.
    pub(in crate::meter) objects: Option<usize>,
}

/// Opens the HDLC connection as the public client and ends it.
///
/// # Errors
/// When the line fails in such a way that it must be opened again.
pub(in crate::meter) async fn knock(line: &mut Line, settings: &MeterSettings) -> Result<Knock, LineError> {
    let Ok(mut link) = Link::new(settings) else { return Ok(Knock::Nobody) };
    match link.open(line, PUBLIC).await {
        Ok(()) => {
            link.close(line).await;
            Ok(Knock::Open)
        }
        Err(MeterError::Refused(why)) => Ok(Knock::Refused(why)),
        Err(MeterError::Line(error)) if error.must_reopen() => Err(error),
        Err(_) => Ok(Knock::Nobody),
    }
}

/// Opens an association without authentication, reads who the meter is, and releases it. What could not be
/// read is left out.
///
/// # Errors
/// When no association comes about.
pub(in crate::meter) async fn introduce(line: &mut Line, settings: &MeterSettings) -> Result<Portrait, MeterError> {
    let mut client = Client::new(settings).map_err(MeterError::Order)?;
    client.open(line).await?;
    let mut portrait = Portrait::default();
    let (mut services, _) = client.open_services(line);
    match timeout(LONGEST, ask(&mut services, &mut portrait)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the meter broke off while it was asked who it is"),
        Err(_) => debug!("the meter was slow to say who it is"),
    }
    client.association.close(line).await;
    Ok(portrait)
}

async fn ask(services: &mut Services<'_>, portrait: &mut Portrait) -> Result<(), MeterError> {
    if let Some(list) = read(services, DEVICES).await? {
        portrait.devices = devices(&list.data());
    }
    portrait.name = text(services, NAME).await?;
    portrait.values.extend(portrait.name.iter().map(|_| NAME.instance_id.to_string()));
    portrait.serial = text(services, SERIAL).await?;
    portrait.firmware = text(services, FIRMWARE).await?;
    let list = read(services, OBJECTS).await?;
    let objects = list.as_ref().and_then(|list| Objects::of(&list.data()));
    portrait.objects = objects.as_ref().map(Objects::len);
    let tried = objects.as_ref().map_or_else(|| GUESSES.to_vec(), energies);
    let mut readable = Vec::new();
    for name in tried.into_iter().take(MOST_TRIED) {
        let number = read(services, AttributeDescriptor::new(3, name, 2)).await?;
        let scaled = read(services, AttributeDescriptor::new(3, name, 3)).await?;
        if number.is_some() && scaled.is_some() && readable.len() < MOST_SHOWN {
            readable.push(name.to_string());
        }
    }
    if !readable.is_empty() {
        portrait.values = readable;
    }
    Ok(())
}

/// The value of an attribute; `None` when the meter refuses it or has none.
async fn read(services: &mut Services<'_>, attribute: AttributeDescriptor) -> Result<Option<Content>, MeterError> {
    let answer = services.get(attribute).await?;
    Ok(answer.ok().filter(|content| !matches!(content.data(), Data::Null)))
}

async fn text(services: &mut Services<'_>, attribute: AttributeDescriptor) -> Result<Option<String>, MeterError> {
    let content = read(services, attribute).await?;
    Ok(content.and_then(|content| shown(&content.data())).filter(|text| !text.trim().is_empty()))
}

/// The pairs of an SAP assignment list; what is no pair is left out.
fn devices(list: &Data<'_>) -> Vec<(u16, String)> {
    let pair = |item: Data<'_>| {
        let fields = item.as_structure()?;
        let sap = fields.get(0).ok()?.as_i64()?.try_into().ok()?;
        Some((sap, fields.get(1).ok().and_then(|name| shown(&name)).unwrap_or_default()))
    };
    let items = list.as_array().into_iter().flat_map(|items| items.iter());
    items.take(MOST_DEVICES).filter_map(|item| pair(item.ok()?)).collect()
}

/// The energy registers that may be read: totals first, then those of tariffs.
fn energies(objects: &Objects) -> Vec<LogicalName> {
    let mut names: Vec<LogicalName> = objects
        .iter()
        .filter(|object| object.class == 3 && object.may_read(2))
        .map(|object| object.name)
        .filter(|name| matches!(name.as_bytes(), [1, _, 1..=4, 8, _, 255]))
        .collect();
    names.sort_by_key(|name| {
        let [_, _, quantity, _, tariff, _] = *name.as_bytes();
        (tariff, quantity)
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dlms::decode;

    #[test]
    fn the_logical_devices_of_a_list_are_told_and_what_is_none_is_left_out() {
        let list = [1, 3, 2, 2, 0x12, 0, 1, 9, 3, b'A', b'B', b'C', 2, 2, 0x12, 0, 2, 9, 1, b'D', 0x11, 7];
        let (data, _) = decode::<Data<'_>>(&list).unwrap();
        assert_eq!(devices(&data), [(1, "ABC".to_owned()), (2, "D".to_owned())]);
        assert_eq!(devices(&Data::Null), []);
    }

    #[test]
    fn totals_are_proposed_before_tariffs_and_nothing_else() {
        let name = |c, d, e| LogicalName::new(1, 0, c, d, e, 255);
        let objects = [(3, 0, name(1, 8, 1)), (3, 0, name(2, 8, 0)), (3, 0, name(1, 8, 0)), (3, 0, name(32, 7, 0))];
        let objects = Objects::bare([&objects[..], &[(7, 1, name(1, 8, 0))]].concat());
        let shown: Vec<_> = energies(&objects).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["1-0:1.8.0*255", "1-0:2.8.0*255", "1-0:1.8.1*255"]);
    }
}
