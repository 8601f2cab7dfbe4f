//! Names and units of records from their value information (EN 13757-3, tables 10 to 15).
//!
//! A name is the quantity in words, then what tells records of one quantity apart, in this order:
//! `quantity:detail[storage]:function:tN:uN`; what is zero or usual is left out. The words are
//! those of the library's tables; a test pins them.

use m_bus_application_layer::value_information::{Unit, UnitName, ValueInformation, ValueLabel};

/// What the value information of a record says.
pub(super) struct Meaning {
    /// Quantity and details.
    pub(super) name: String,
    /// The unit, empty when there is none.
    pub(super) unit: String,
    /// The power of ten of the value.
    pub(super) scale: i32,
    /// Whether the value is a date or time when its coding allows that.
    pub(super) temporal: bool,
    /// Whether integers are bits or counters without a sign.
    pub(super) unsigned: bool,
    /// Whether the meter says that this record is in error.
    pub(super) in_error: bool,
}

/// The words of a library's label, in lower case with underscores.
fn words(label: ValueLabel) -> String {
    let mut text = String::new();
    for c in format!("{label:?}").chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

fn quantity(label: ValueLabel) -> String {
    match label {
        ValueLabel::DimensionlessHCA => "heat_cost".to_owned(),
        ValueLabel::RFPowerLevel => "rf_power_level".to_owned(),
        ValueLabel::UniqueMessageIdentificationOrAccessNumber => "access_number_of_record".to_owned(),
        ValueLabel::ModelOrVersion => "model".to_owned(),
        ValueLabel::PhaseUtoU => "phase_u_u".to_owned(),
        ValueLabel::PhaseUtoI => "phase_u_i".to_owned(),
        ValueLabel::PhaseItoU => "phase_i_u".to_owned(),
        ValueLabel::ManufacturerSpecific => "manufacturer".to_owned(),
        other => words(other),
    }
}

fn detail(label: ValueLabel) -> Option<String> {
    use ValueLabel as V;
    Some(match label {
        V::Binary | V::NextVIFEAndDataOfThisBlockAreManufacturerSpecific | V::RecordErrorCodes => return None,
        V::AtPhaseL1 => "l1".into(),
        V::AtPhaseL2 => "l2".into(),
        V::AtPhaseL3 => "l3".into(),
        V::AtNeutral => "n".into(),
        V::BetweenPhasesL1L2 => "l1_l2".into(),
        V::BetweenPhasesL2L3 => "l2_l3".into(),
        V::BetweenPhasesL3L1 => "l3_l1".into(),
        V::AccumulationOnlyIfValueIsPositive => "positive".into(),
        V::AccumulationOnlyIfValueIsNegative => "negative".into(),
        V::AccumulationOfAbsoluteValueBothPositiveAndNegativeContribution => "absolute".into(),
        V::StartDateOf => "start_date".into(),
        V::VifContainsUncorrectedUnitOrValue => "uncorrected".into(),
        V::ValueAtBaseConditions => "base_conditions".into(),
        V::FutureValue => "future".into(),
        // E110 1f1b: the library takes f (first or last) and b (begin or end) of 6B, 6E and 6F for each other.
        V::DateOfBeginLast => "date_of_end_first".into(),
        V::DateOfEndLast => "date_of_begin_last".into(),
        V::DateOfEndFirst => "date_of_end_last".into(),
        other => words(other),
    })
}

fn is_temporal(label: ValueLabel) -> bool {
    let name = format!("{label:?}");
    name.contains("Date") || label == ValueLabel::TimePointOfChangeOfTariff || label == ValueLabel::Time
}

/// Whether an integer is bits, a counter or an identification, which have no sign (table 12, remark k; table 10 for
/// fabrication number, identification and address).
fn is_unsigned(vib: &[u8], labels: &[ValueLabel]) -> bool {
    let quantity = match vib {
        [0xFD, row, ..] => {
            matches!(row & 0x7F, 0x08..=0x1D | 0x20..=0x23 | 0x2B..=0x2F | 0x3C..=0x3F | 0x74 | 0x75)
        }
        [first, ..] => matches!(first & 0x7F, 0x78..=0x7A),
        [] => false,
    };
    let detail = [ValueLabel::DataPresentedWithTypeC, ValueLabel::DataPresentedWithTypeD];
    quantity || labels.iter().any(|label| detail.contains(label))
}

/// Joins what the library knows with what only the bytes of `vib` (VIF and VIFEs) tell; `plain` is
/// the text of a plain-text VIF.
pub(super) fn meaning(vib: &[u8], plain: Option<&str>, info: Option<&ValueInformation<'_>>) -> Meaning {
    let unknown = || format!("vif_{}", super::data::hex(vib).to_lowercase());
    let Some(info) = info else {
        let name = unknown();
        return Meaning { name, unit: String::new(), scale: 0, temporal: false, unsigned: false, in_error: false };
    };
    let labels: Vec<ValueLabel> = info.labels().collect();
    let mended = mended(vib);
    let mut name = match (mended, labels.first()) {
        (Some((name, _)), _) if !name.is_empty() => name.to_owned(),
        (_, Some(ValueLabel::PlainText)) => plain.map_or_else(unknown, printable),
        (_, Some(ValueLabel::Reserved) | None) => unknown(),
        (_, Some(label)) => quantity(*label),
    };
    if labels.first() == Some(&ValueLabel::ManufacturerSpecific) {
        let own = vib.get(1..).unwrap_or_default();
        if !own.is_empty() {
            name = format!("{name}_{}", super::data::hex(own).to_lowercase());
        }
    }
    for word in labels.iter().skip(1).filter_map(|label| detail(*label)) {
        name = format!("{name}:{word}");
    }
    if let Some(own) = manufacturer_tail(vib).filter(|own| !own.is_empty()) {
        name = format!("{name}:manufacturer_{}", super::data::hex(own).to_lowercase());
    }
    let temporal = labels.iter().any(|label| is_temporal(*label)) || name.starts_with(START_OF_TARIFF);
    // These VIFEs speak of times and counts; unit and power of ten of the quantity are not theirs.
    let about = labels.iter().skip(1).map(|label| words(*label)).find_map(|word| {
        let own = |prefix: &str| word.starts_with(prefix);
        (own("duration") || own("number_of_exceeds") || own("date")).then_some(own("duration"))
    });
    let (unit, scale) = match about {
        Some(true) => (unit(info.units().filter(|unit| is_time(unit.name) && unit.exponent > 0)), 0),
        Some(false) => (String::new(), 0),
        None => {
            let whole = mended.map_or_else(|| unit(info.units()), |(_, unit)| unit.to_owned());
            (whole, i32::try_from(info.decimal_scale_exponent).unwrap_or(0))
        }
    };
    Meaning {
        name,
        unit,
        scale,
        temporal,
        unsigned: is_unsigned(vib, &labels),
        in_error: labels.contains(&ValueLabel::RecordErrorCodes),
    }
}

/// The meter's own text without the characters that names give a meaning to.
fn printable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '[' | ']' | ':' | '#') { '_' } else { c }).collect()
}

/// The VIFEs behind an FF, whose meaning only the manufacturer knows.
fn manufacturer_tail(vib: &[u8]) -> Option<&[u8]> {
    let orthogonal = match vib {
        [0xFD | 0xFB, _, rest @ ..] => rest,
        [0x7E | 0x7F | 0xFE | 0xFF, ..] | [] => return None,
        [_, rest @ ..] => rest,
    };
    let at = orthogonal.iter().position(|vife| vife & 0x7F == 0x7F)?;
    orthogonal.get(at + 1..)
}

const fn is_time(name: UnitName) -> bool {
    matches!(name, UnitName::Second | UnitName::Minute | UnitName::Hour | UnitName::Day)
}

const START_OF_TARIFF: &str = "start_of_tariff";

/// Rows of table 12 (FD) that the library has wrong or not at all (m-bus-application-layer 0.5.3), as quantity and
/// unit; an empty quantity is the library's.
fn mended(vib: &[u8]) -> Option<(&'static str, &'static str)> {
    const TIME: [&str; 4] = ["s", "min", "h", "d"];
    let [0xFD, row, ..] = vib else { return None };
    let time = TIME.get(usize::from(row & 0x03)).copied().unwrap_or_default();
    Some(match row & 0x7F {
        0x2A => ("operator_specific_data", ""),
        0x2B => ("time_point_second", "s"),
        0x2C..=0x2F => ("duration_since_last_readout", time),
        0x30 => (START_OF_TARIFF, ""),
        0x31..=0x33 => ("duration_of_tariff", time),
        0x34..=0x37 => ("period_of_tariff", time),
        0x38 => ("period_of_tariff", "month"),
        0x39 => ("period_of_tariff", "a"),
        0x3B => ("data_container_for_wmbus_protocol", ""),
        0x3C..=0x3F => ("period_of_nominal_data_transmission", time),
        0x6F => ("", "a"),
        0x70 => ("", ""),
        _ => return None,
    })
}

const fn symbol(name: UnitName) -> &'static str {
    match name {
        UnitName::Watt => "W",
        UnitName::ReactiveWatt => "var",
        UnitName::ApparentWatt => "VA",
        UnitName::Joul => "J",
        UnitName::Kilogram => "kg",
        UnitName::Tonne => "t",
        UnitName::Meter => "m",
        UnitName::Feet => "ft",
        UnitName::Celsius => "°C",
        UnitName::Kelvin => "K",
        UnitName::Bar => "bar",
        UnitName::Second => "s",
        UnitName::Minute => "min",
        UnitName::Hour => "h",
        UnitName::Day => "d",
        UnitName::Week => "week",
        UnitName::Month => "month",
        UnitName::Year => "a",
        UnitName::Revolution => "revolution",
        UnitName::InputPulseOnChannel0 => "input_pulse_0",
        UnitName::OutputPulseOnChannel0 => "output_pulse_0",
        UnitName::InputPulseOnChannel1 => "input_pulse_1",
        UnitName::OutputPulseOnChannel1 => "output_pulse_1",
        UnitName::Liter => "l",
        UnitName::Volt => "V",
        UnitName::Ampere => "A",
        UnitName::LocalMoneyCurrency => "currency",
        UnitName::Symbol => "symbol",
        UnitName::BitTime => "bit_time",
        UnitName::DecibelMilliWatt => "dBm",
        UnitName::Percent => "%",
        UnitName::Degree => "°",
        UnitName::Hertz => "Hz",
        UnitName::Fahrenheit => "°F",
        UnitName::AmericanGallon => "gal",
        UnitName::Calorie => "cal",
        UnitName::BritishThermalUnit => "BTU",
        _ => "",
    }
}

/// Factors first, then what divides them: `Wh`, `m³/h`, `m³/input_pulse_0`.
fn unit(units: impl Iterator<Item = Unit>) -> String {
    let (mut above, mut below) = (String::new(), String::new());
    for unit in units {
        let power = match unit.exponent.unsigned_abs() {
            2 => "²",
            3 => "³",
            _ => "",
        };
        let symbol = symbol(unit.name);
        // There are litres in VIFE "per litre" only, where the library forgets to divide.
        if unit.exponent < 0 || unit.name == UnitName::Liter {
            below = format!("{below}/{symbol}{power}");
        } else {
            above = format!("{above}{symbol}{power}");
        }
    }
    format!("{above}{below}")
}
