//! One value: where it stands, and how its registers become a text.

use std::ops::Range;

use crate::meter::{Names, RegisterSettings};
use crate::model::{Decimal, Quality, Value};
use crate::setting::{At, Problems};
use crate::wire::modbus::{Bits, Coding, Content, Register};

/// What registers hold when there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nothing {
    /// This number, whatever the coding makes of it.
    Number(u64),
    /// Any float that is not a number.
    NotANumber,
}

/// One value to read.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) register: Register,
    pub(super) coding: Coding,
    pub(super) scale: Decimal,
    pub(super) offset: Decimal,
    pub(super) bits: Option<Bits>,
    pub(super) names: Names,
    pub(super) unavailable: Vec<Nothing>,
    /// Where the power of ten stands.
    pub(super) exponent: Option<Register>,
}

/// Powers of ten beyond this are no scale factors (SunSpec: -10 to 10).
const LARGEST_EXPONENT: i16 = 18;

impl Point {
    /// Makes a point of `register` alone, as it stands on the wire.
    pub(super) fn bare(name: &str, register: Register, coding: Coding) -> Self {
        Self {
            name: name.to_owned(),
            unit: String::new(),
            register,
            coding,
            scale: Decimal::from(1u64),
            offset: Decimal::from(0u64),
            bits: None,
            names: Names::default(),
            unavailable: Vec::new(),
            exponent: None,
        }
    }

    /// The value without a content.
    pub(super) fn empty(&self, quality: Quality) -> Value {
        Value { name: self.name.clone(), value: None, unit: self.unit.clone(), quality }
    }

    /// What its `words` say, with the power of ten that stands elsewhere.
    pub(super) fn value(&self, words: &[u16], exponent: Option<i16>) -> Value {
        match self.text(words, exponent) {
            Ok(text) => Value { value: Some(text), ..self.empty(Quality::Good) },
            Err(quality) => self.empty(quality),
        }
    }

    fn text(&self, words: &[u16], exponent: Option<i16>) -> Result<String, Quality> {
        let raw = self.coding.raw(words);
        if self.unavailable.iter().any(|n| matches!(n, Nothing::Number(number) if Some(*number) == raw)) {
            return Err(Quality::Unavailable);
        }
        let Some(content) = self.coding.decode(words) else {
            let float = self.unavailable.contains(&Nothing::NotANumber);
            return Err(if float && raw.is_some() { Quality::Unavailable } else { Quality::Invalid });
        };
        let content = match (self.bits, raw) {
            (Some(bits), Some(raw)) => Content::Number(Decimal::from(bits.of(raw))),
            _ => content,
        };
        if let Content::Number(number) = &content
            && let Some(name) = number.to_string().parse().ok().and_then(|n| self.names.of(n))
        {
            return Ok(name.to_owned());
        }
        let scale = self.factor(exponent).ok_or(Quality::Invalid)?;
        content.scaled(scale, self.offset).map_err(|_| Quality::Invalid)
    }

    /// Its factor with the power of ten.
    pub(super) fn factor(&self, exponent: Option<i16>) -> Option<Decimal> {
        let exponent = exponent.unwrap_or(0);
        let sound = (-LARGEST_EXPONENT..=LARGEST_EXPONENT).contains(&exponent);
        let power = Decimal::new(1, exponent.into()).ok()?;
        let scale = if exponent == 0 { Some(self.scale) } else { self.scale.times(power).ok() };
        scale.filter(|_| sound)
    }
}

/// Makes the points of `registers`; says every mistake.
pub(super) fn points_of(registers: &[RegisterSettings], problems: &mut Problems) -> Vec<Point> {
    registers.iter().filter_map(|r| point(r, problems)).collect()
}

/// Says the mistakes of one register.
struct Judge<'a> {
    name: &'a str,
    problems: &'a mut Problems,
    sound: bool,
}

impl Judge<'_> {
    fn wrong(&mut self, span: Range<usize>, why: &str) {
        self.problems.error(span, format!("register \"{}\": {why}", self.name));
        self.sound = false;
    }

    /// Reads a text, or says why it is none.
    fn read<T>(&mut self, key: &str, text: &At<String>, read: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        match read(text) {
            Ok(value) => Some(value),
            Err(hint) => {
                self.wrong(text.span(), &format!("{key} is \"{}\"; {hint}", **text));
                None
            }
        }
    }
}

fn point(settings: &RegisterSettings, problems: &mut Problems) -> Option<Point> {
    let mut judge = Judge { name: &settings.name, problems, sound: true };
    let register = judge.read("register", &settings.register, str::parse::<Register>);
    let coding = judge.read("type", &settings.r#type, str::parse::<Coding>);
    let bits = settings.bits.as_ref().and_then(|text| judge.read("bits", text, str::parse::<Bits>));
    let exponent = settings.exponent.as_ref().and_then(|text| judge.read("exponent", text, str::parse::<Register>));
    let unavailable: Vec<Nothing> =
        settings.unavailable.iter().filter_map(|text| judge.read("unavailable", text, nothing)).collect();
    let (register, coding) = (register?, coding?);
    let place = settings.register.span();
    if register.table.is_bits() && !coding.is_bool() {
        judge.wrong(place, &format!("a {} is a single bit; write type = \"bool\"", register.table.word()));
    } else if u32::from(register.address) + u32::from(coding.registers()) > 0x1_0000 {
        judge.wrong(place, &format!("{coding} from {register} reaches beyond register 65535"));
    }
    let scaled = settings.scale != Decimal::from(1u64) || settings.offset != Decimal::from(0u64);
    if coding.is_text() && (scaled || exponent.is_some()) {
        judge.wrong(settings.r#type.span(), "a text takes no scale and no offset");
    }
    if let (Some(text), Some(bits)) = (&settings.bits, bits)
        && (!coding.is_unsigned() || u16::from(bits.last()) >= 16 * coding.registers())
    {
        judge.wrong(text.span(), &format!("{coding} has no bits \"{}\"; write an unsigned type that has them", **text));
    }
    if !settings.names.is_empty() && (coding.is_text() || scaled || exponent.is_some()) {
        judge.wrong(settings.name.span(), "names are for numbers without scale and offset");
    }
    if let (Some(text), Some(exponent)) = (&settings.exponent, exponent)
        && (exponent.table != register.table || register.table.is_bits())
    {
        judge.wrong(text.span(), "the exponent must stand in the same table of registers as its value");
    }
    judge.sound.then(|| Point {
        name: settings.name.to_string(),
        unit: settings.unit.clone(),
        register,
        coding,
        scale: settings.scale,
        offset: settings.offset,
        bits,
        names: settings.names.clone(),
        unavailable,
        exponent,
    })
}

fn nothing(text: &str) -> Result<Nothing, &'static str> {
    if text == "nan" {
        return Ok(Nothing::NotANumber);
    }
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map(Nothing::Number).map_err(|_| "write a number such as \"0x8000\" or \"65535\", or \"nan\"")
}
