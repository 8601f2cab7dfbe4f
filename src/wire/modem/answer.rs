//! What the answers of a modem mean (3GPP TS 27.007 and 27.005).

use super::fields::{Field, after, fields};

/// How well the network is heard (`+CSQ`, 27.007, 8.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// 0 to 31; `None` when the modem does not know.
    pub csq: Option<u8>,
}

impl Signal {
    /// The strength in dBm.
    pub fn rssi(self) -> Option<i16> {
        self.csq.map(|csq| -113 + 2 * i16::from(csq))
    }
}

/// Reads `+CSQ: 20,99`.
pub fn signal(line: &str) -> Option<Signal> {
    let csq = fields(after(line, "+CSQ")?).first()?.number::<u16>()?;
    Some(Signal { csq: u8::try_from(csq).ok().filter(|csq| *csq <= 31) })
}

/// Strength and quality of an LTE cell, in dBm and dB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strength {
    /// RSRP in dBm.
    pub rsrp: Option<i16>,
    /// RSRQ in dB, rounded down.
    pub rsrq: Option<i16>,
}

/// Reads `+CESQ: 99,99,255,255,20,80` (27.007, 8.69), or Quectel's `+QCSQ: "LTE",-52,-83,157,-10`.
pub fn strength(line: &str) -> Option<Strength> {
    if let Some(rest) = after(line, "+CESQ") {
        let fields = fields(rest);
        let raw = |at: usize, most: i16| fields.get(at)?.number::<i16>().filter(|raw| (0..=most).contains(raw));
        return Some(Strength {
            rsrp: raw(5, 97).map(|raw| raw - 141),
            rsrq: raw(4, 34).map(|raw| (raw - 40).div_euclid(2)),
        });
    }
    let fields = fields(after(line, "+QCSQ")?);
    if fields.first()?.text != "LTE" {
        return Some(Strength::default());
    }
    let raw = |at: usize| fields.get(at)?.number::<i16>().filter(|dbm| (-160..0).contains(dbm));
    Some(Strength { rsrp: raw(2), rsrq: raw(4) })
}

/// Whether the modem is in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Not, and not looking for one.
    Idle,
    /// In its own network.
    Home,
    /// Looking for one.
    Searching,
    /// The networks refuse it.
    Denied,
    /// The modem does not know.
    Unknown,
    /// In another network.
    Roaming,
    /// Emergency calls only.
    Emergency,
}

impl Registration {
    const fn of(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Idle,
            1 | 6 | 9 => Self::Home,
            2 => Self::Searching,
            3 => Self::Denied,
            4 => Self::Unknown,
            5 | 7 | 10 => Self::Roaming,
            8 => Self::Emergency,
            _ => return None,
        })
    }

    /// The word that status and JSON use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Home => "home",
            Self::Searching => "searching",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
            Self::Roaming => "roaming",
            Self::Emergency => "emergency-only",
        }
    }

    /// Whether messages can be sent and received.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Home | Self::Roaming)
    }
}

/// The radio technology (27.007, 7.2, `<AcT>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Technology {
    /// GSM, GPRS and EDGE.
    G2,
    /// UMTS and HSPA.
    G3,
    /// LTE.
    G4,
    /// LTE-M.
    LteM,
    /// NB-IoT.
    NbIot,
    /// 5G.
    G5,
}

impl Technology {
    const fn of(code: u8) -> Option<Self> {
        Some(match code {
            0 | 1 | 3 => Self::G2,
            2 | 4..=6 => Self::G3,
            7 | 10 => Self::G4,
            8 => Self::LteM,
            9 => Self::NbIot,
            11..=13 => Self::G5,
            _ => return None,
        })
    }

    /// The word that status and JSON use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::G2 => "2g",
            Self::G3 => "3g",
            Self::G4 => "4g",
            Self::LteM => "lte-m",
            Self::NbIot => "nb-iot",
            Self::G5 => "5g",
        }
    }
}

/// Where the modem is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Whether it is.
    pub registration: Registration,
    /// The location or tracking area, in hex.
    pub area: Option<String>,
    /// The cell, in hex.
    pub cell: Option<String>,
    /// The radio technology.
    pub technology: Option<Technology>,
}

const NETWORKS: [&str; 3] = ["+CEREG", "+CGREG", "+CREG"];

fn network(fields: &[Field]) -> Option<Network> {
    let hex = |at: usize| {
        let text = fields.get(at)?.filled()?;
        (text.len() <= 16 && text.bytes().all(|c| c.is_ascii_hexdigit())).then(|| text.to_ascii_uppercase())
    };
    Some(Network {
        registration: Registration::of(fields.first()?.number()?)?,
        area: hex(1),
        cell: hex(2),
        technology: fields.get(3).and_then(Field::number).and_then(Technology::of),
    })
}

/// A small number without quotes, as modes and states are; an area has four digits or quotes.
fn is_code(field: &Field) -> bool {
    !field.quoted && field.text.len() <= 2 && field.number::<u8>().is_some()
}

/// Reads the answer to a query: `+CREG: 2,1,"00C3","0001A2B3",7` (27.007, 7.2).
pub fn registration(line: &str) -> Option<Network> {
    let fields = fields(NETWORKS.iter().find_map(|name| after(line, name))?);
    let behind = fields.get(1..)?;
    behind.first().filter(|field| is_code(field))?;
    network(behind)
}

/// Reads what comes unasked: `+CREG: 1,"00C3","0001A2B3",7`; `None` for the answer to a query.
pub(super) fn network_notice(line: &str) -> Option<Network> {
    let fields = fields(NETWORKS.iter().find_map(|name| after(line, name))?);
    let is_answer = fields.get(1).is_some_and(is_code);
    if is_answer { None } else { network(&fields) }
}

/// The network and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Its name, or its number.
    pub name: String,
    /// The radio technology.
    pub technology: Option<Technology>,
}

/// Reads `+COPS: 0,0,"Movistar",7` (27.007, 7.3); `None` when there is none.
pub fn operator(line: &str) -> Option<Operator> {
    let fields = fields(after(line, "+COPS")?);
    let name = fields.get(2)?.filled()?.chars().filter(|c| !c.is_control()).take(40).collect();
    Some(Operator { name, technology: fields.get(3).and_then(Field::number).and_then(Technology::of) })
}

/// What the SIM wants (`+CPIN`, 27.007, 8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// Nothing.
    Ready,
    /// Its PIN.
    Pin,
    /// Its PUK: it was blocked by wrong PINs.
    Puk,
    /// Something else, in the modem's words.
    Other(String),
}

/// Reads `+CPIN: READY`.
pub fn pin(line: &str) -> Option<Pin> {
    Some(match after(line, "+CPIN")?.trim_matches('"') {
        "READY" => Pin::Ready,
        "SIM PIN" => Pin::Pin,
        "SIM PUK" => Pin::Puk,
        other => Pin::Other(other.chars().filter(|c| !c.is_control()).take(40).collect()),
    })
}

/// What stands behind any name and colon, or the whole line, without quotes.
pub fn quoted_or_rest(line: &str) -> &str {
    let rest = line.split_once(':').filter(|(name, _)| !name.contains('"')).map_or(line, |(_, rest)| rest);
    rest.trim().trim_matches('"').trim()
}

/// Reads the IMEI of `+CGSN: "356..."` or a line of 14 to 16 digits.
pub fn imei(line: &str) -> Option<String> {
    let digits = quoted_or_rest(line);
    ((14..=16).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit())).then(|| digits.to_owned())
}

/// Reads the number of the SIM of `+ICCID: 8934...`, `+CCID: "8934..."` or a line of 18 to 20 digits; F fills it up.
pub fn iccid(line: &str) -> Option<String> {
    let digits = quoted_or_rest(line).trim_end_matches(['F', 'f']);
    ((18..=20).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit())).then(|| digits.to_owned())
}

/// How full a message storage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Messages it holds.
    pub used: u32,
    /// Messages it can hold.
    pub total: u32,
}

/// Reads the first storage of `+CPMS: "SM",3,10,...` or, after it was set, `+CPMS: 3,10,...` (27.005, 3.2.2).
pub fn room(line: &str) -> Option<Room> {
    let fields = fields(after(line, "+CPMS")?);
    let behind = if fields.first()?.quoted { fields.get(1..)? } else { fields.as_slice() };
    Some(Room { used: behind.first()?.number()?, total: behind.get(1)?.number()? })
}

/// The first line of a stored message (`+CMGL` and `+CMGR`, 27.005, 3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its place; `None` with `+CMGR`, where one was asked for.
    pub index: Option<u32>,
    /// 0 or `REC UNREAD`: new; 1 or `REC READ`; 2 and 3, `STO UNSENT` and `STO SENT`: its own.
    pub came: bool,
    /// In text mode: who sent it.
    pub from: Option<String>,
    /// In text mode: when the service centre got it, as the modem writes it.
    pub at: Option<String>,
}

/// Reads `+CMGL: 3,0,,24`, `+CMGR: 0,,24` and their text forms `+CMGL: 3,"REC UNREAD","+346...",,"26/11/22,15:00:00+04"`.
pub fn listed(line: &str) -> Option<Listed> {
    let (rest, has_index) = match after(line, "+CMGL") {
        Some(rest) => (rest, true),
        None => (after(line, "+CMGR")?, false),
    };
    let all = fields(rest);
    let index = if has_index { Some(all.first()?.number()?) } else { None };
    let behind = all.get(usize::from(has_index)..)?;
    let status = behind.first()?;
    let text = |at: usize| behind.get(at).and_then(Field::filled).map(str::to_owned);
    if status.quoted {
        return Some(Listed { index, came: status.text.starts_with("REC"), from: text(1), at: text(3) });
    }
    Some(Listed { index, came: status.number::<u8>()? <= 1, from: None, at: None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_signal_is_told_in_dbm_when_it_is_known() {
        assert_eq!(signal("+CSQ: 20,99").unwrap().rssi(), Some(-73));
        assert_eq!(signal("+CSQ: 31,0").unwrap().rssi(), Some(-51));
        assert_eq!(signal("+CSQ: 99,99").unwrap().rssi(), None);
        assert_eq!(signal("+CSQ: x"), None);
        assert_eq!(strength("+CESQ: 99,99,255,255,20,80"), Some(Strength { rsrp: Some(-61), rsrq: Some(-10) }));
        assert_eq!(strength("+CESQ: 20,0,255,255,255,255"), Some(Strength::default()));
        assert_eq!(strength("+QCSQ: \"LTE\",-52,-83,157,-10"), Some(Strength { rsrp: Some(-83), rsrq: Some(-10) }));
        assert_eq!(strength("+QCSQ: \"GSM\",-52"), Some(Strength::default()));
    }

    #[test]
    fn the_registration_is_read_with_area_cell_and_technology() {
        let found = registration("+CREG: 2,1,\"00c3\",\"0001A2B3\",7").unwrap();
        assert_eq!((found.registration, found.technology), (Registration::Home, Some(Technology::G4)));
        assert_eq!((found.area.as_deref(), found.cell.as_deref()), (Some("00C3"), Some("0001A2B3")));
        assert_eq!(registration("+CEREG: 0,5").unwrap().registration, Registration::Roaming);
        assert_eq!(registration("+CREG: 1"), None);
        assert_eq!(network_notice("+CREG: 1,\"00C3\",\"1A\"").unwrap().cell.as_deref(), Some("1A"));
        assert_eq!(operator("+COPS: 0,0,\"Movistar\",7").unwrap().name, "Movistar");
        assert_eq!(operator("+COPS: 0"), None);
    }

    #[test]
    fn numbers_of_modem_and_sim_are_read_from_every_form() {
        for line in ["356938035643809", "+CGSN: \"356938035643809\"", "+CGSN: 356938035643809"] {
            assert_eq!(imei(line).as_deref(), Some("356938035643809"), "{line}");
        }
        for line in ["8934071100123456789F", "+ICCID: 8934071100123456789", "+CCID: \"8934071100123456789f\""] {
            assert_eq!(iccid(line).as_deref(), Some("8934071100123456789"), "{line}");
        }
        assert_eq!(imei("OK"), None);
        assert_eq!(iccid("356938035643809"), None);
    }

    #[test]
    fn the_state_of_sim_and_storage_is_read() {
        assert_eq!(pin("+CPIN: SIM PUK"), Some(Pin::Puk));
        assert_eq!(pin("+CPIN: PH-NET PIN"), Some(Pin::Other("PH-NET PIN".into())));
        assert_eq!(room("+CPMS: \"SM\",3,10,\"SM\",3,10,\"SM\",3,10"), Some(Room { used: 3, total: 10 }));
        assert_eq!(room("+CPMS: 4,20,4,20,4,20"), Some(Room { used: 4, total: 20 }));
    }

    #[test]
    fn stored_messages_are_read_in_both_modes() {
        let pdu = listed("+CMGL: 3,0,,24").unwrap();
        assert_eq!((pdu.index, pdu.came, pdu.from), (Some(3), true, None));
        let text = listed("+CMGL: 4,\"REC READ\",\"+34666\",,\"26/11/22,15:00:00+04\"").unwrap();
        assert_eq!((text.index, text.came, text.from.as_deref()), (Some(4), true, Some("+34666")));
        assert_eq!(text.at.as_deref(), Some("26/11/22,15:00:00+04"));
        assert!(!listed("+CMGR: 2,,24").unwrap().came);
        assert!(!listed("+CMGR: \"STO SENT\",\"1\"").unwrap().came);
        assert_eq!(listed("+CMGL: x"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_not(name in "(\\+C(SQ|ESQ|REG|OPS|PIN|PMS|MGL|MGR|GSN|CID): )?", rest in "[ -~€]{0,80}") {
            let line = format!("{name}{rest}");
            let _ = (signal(&line), strength(&line), registration(&line), operator(&line), pin(&line));
            let _ = (imei(&line), iccid(&line), room(&line), listed(&line), network_notice(&line));
        }
    }
}
