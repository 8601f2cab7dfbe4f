//! The kinds of value that settings are made of.

use std::fmt;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::{Node, Printed, Problems, Setting, Shape};
use crate::model::Decimal;

/// A value together with its place, for checks that look at several keys.
#[derive(Debug, Clone)]
pub struct At<T> {
    value: T,
    span: Range<usize>,
}

impl<T> At<T> {
    /// Its place as byte offsets.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Makes one that belongs to no place, for settings made by programs.
    pub fn nowhere(value: T) -> Self {
        Self { value, span: 0..0 }
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Setting> Setting for At<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        Some(Self { value: T::read(node, problems)?, span: node.span() })
    }

    fn stand_in() -> Option<Self> {
        T::stand_in().map(Self::nowhere)
    }

    fn printed(&self) -> Printed {
        self.value.printed()
    }
}

impl<T: Setting> Setting for Option<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        T::read(node, problems).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn printed(&self) -> Printed {
        self.as_ref().map_or(Printed::Absent, Setting::printed)
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let elements = node.elements(problems)?;
        Some(elements.iter().filter_map(|e| T::read(e, problems)).collect())
    }

    fn stand_in() -> Option<Self> {
        Some(Self::new())
    }

    fn printed(&self) -> Printed {
        Printed::List(self.iter().map(Setting::printed).collect())
    }
}

impl Setting for String {
    fn shape() -> Shape {
        Shape::Value("text")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        node.text("a text in quotes", problems).map(str::to_owned)
    }

    fn stand_in() -> Option<Self> {
        Some(Self::new())
    }

    fn printed(&self) -> Printed {
        Printed::text(self)
    }
}

impl Setting for bool {
    fn shape() -> Shape {
        Shape::Value("true or false")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value() {
            DeValue::Boolean(value) => Some(*value),
            _ => node.expected("true or false", problems),
        }
    }

    fn printed(&self) -> Printed {
        Printed::Value(self.to_string())
    }
}

impl Setting for PathBuf {
    fn shape() -> Shape {
        Shape::Value("path of a file")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        node.text("a path in quotes", problems).map(Self::from)
    }

    fn stand_in() -> Option<Self> {
        Some(Self::new())
    }

    fn printed(&self) -> Printed {
        Printed::text(&self.to_string_lossy())
    }
}

/// The path of a file that holds a secret; the content is never printed or logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

impl SecretFile {
    /// Names a secret's file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where the secret is kept.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Setting for SecretFile {
    fn shape() -> Shape {
        Shape::Value("path of a file that only weir can read")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        PathBuf::read(node, problems).map(Self)
    }

    fn printed(&self) -> Printed {
        let Printed::Value(path) = self.0.printed() else { return Printed::Absent };
        Printed::Value(format!("{path}  # content masked"))
    }
}

impl Setting for Duration {
    fn shape() -> Shape {
        Shape::Value("duration, e.g. \"30s\" (ms, s, m, h, d)")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let what = "a duration in quotes such as \"30s\", \"15m\" or \"500ms\"";
        let text = node.text(what, problems)?;
        duration(text).or_else(|| node.refused(&format!("is \"{text}\", but must be {what}"), problems))
    }

    fn printed(&self) -> Printed {
        let millis = self.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        let whole = units.into_iter().find(|(size, _)| millis > 0 && millis.is_multiple_of(*size));
        let (size, unit) = whole.unwrap_or((1, "ms"));
        Printed::text(&format!("{}{unit}", millis / size))
    }
}

/// Reads `90s`, `1m30s`, `500ms`: whole numbers, each with its unit; `None` for anything else and
/// for more than ten years.
pub fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, next) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let millis_per_unit = match unit.trim() {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let millis = number.parse::<u64>().ok()?.checked_mul(millis_per_unit)?;
        total = total.checked_add(Duration::from_millis(millis))?;
        rest = next;
    }
    (total <= Duration::from_hours(24 * 3660)).then_some(total)
}

/// An amount of bytes, written `"256MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// Makes a size of so many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.trim().split_at(text.trim().find(|c: char| !c.is_ascii_digit())?);
        let factor = match unit.trim() {
            "B" => 1,
            "KiB" | "kiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl fmt::Display for Size {
    /// Writes the largest binary unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let whole = units.into_iter().find(|(size, _)| self.0 > 0 && self.0.is_multiple_of(*size));
        let (size, unit) = whole.unwrap_or((1, "B"));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl Setting for Size {
    fn shape() -> Shape {
        Shape::Value("size, e.g. \"256MiB\" (B, KiB, MiB, GiB)")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let what = "a size in quotes such as \"128KiB\" or \"256MiB\"";
        let text = node.text(what, problems)?;
        Self::parse(text).or_else(|| node.refused(&format!("is \"{text}\", but must be {what}"), problems))
    }

    fn printed(&self) -> Printed {
        Printed::text(&self.to_string())
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// Takes the number, held to the range.
    pub const fn clamped(value: u32) -> Self {
        Self(if value < MIN {
            MIN
        } else if value > MAX {
            MAX
        } else {
            value
        })
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> Setting for Count<MIN, MAX> {
    fn shape() -> Shape {
        Shape::Value("whole number")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let DeValue::Integer(number) = node.value() else {
            return node.expected("a whole number", problems);
        };
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) if (MIN..=MAX).contains(&value) => Some(Self(value)),
            _ if MIN == MAX => {
                node.refused(&format!("is {}, but this version of weir knows only {MIN}", number.as_str()), problems)
            }
            _ => node.refused(&format!("is {}, but must be from {MIN} to {MAX}", number.as_str()), problems),
        }
    }

    fn printed(&self) -> Printed {
        Printed::Value(self.0.to_string())
    }
}

impl Setting for Decimal {
    fn shape() -> Shape {
        Shape::Value("exact decimal number")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let Some(number) = node.number() else {
            return node.expected("a decimal number such as 1 or 0.001", problems);
        };
        number.parse().map_or_else(|e| node.refused(&format!("is {number}: {e}"), problems), Some)
    }

    fn printed(&self) -> Printed {
        Printed::Value(self.to_string())
    }
}
