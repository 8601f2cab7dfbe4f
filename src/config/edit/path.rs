//! Dotted names: `port[rs485-1].baud`.

use std::fmt;

use super::EditError;

/// Longer names are none.
const LONGEST: usize = 256;

/// Which table of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    /// The one with this name.
    Named(String),
    /// By its number from 1, unless one has it as its name.
    Number(usize),
    /// One with this name, made when there is none.
    New(String),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) | Self::New(name) => write!(f, "\"{name}\""),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// One part of a dotted name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) which: Option<Which>,
}

/// Reads a dotted name.
pub(super) fn read(key: &str) -> Result<Vec<Segment>, EditError> {
    let wrong =
        || EditError::new(format!("\"{}\" is no key; write it like broker.url or port[rs485-1].baud", shortened(key)));
    if key.is_empty() || key.len() > LONGEST {
        return Err(wrong());
    }
    let mut segments = Vec::new();
    let mut rest = key.trim();
    loop {
        let (name, after) = word(rest, &['.', '[']).ok_or_else(wrong)?;
        rest = after;
        let mut which = None;
        if let Some(inside) = rest.strip_prefix('[') {
            let (new, inside) = inside.strip_prefix('+').map_or((false, inside), |inside| (true, inside));
            let quoted = inside.starts_with('"');
            let (chosen, after) = word(inside, &[']']).ok_or_else(wrong)?;
            rest = after.strip_prefix(']').ok_or_else(wrong)?;
            which = Some(match chosen.parse() {
                _ if new => Which::New(chosen),
                Ok(number) if !quoted => Which::Number(number),
                _ => Which::Named(chosen),
            });
        }
        segments.push(Segment { name, which });
        if rest.is_empty() {
            return Ok(segments);
        }
        rest = rest.strip_prefix('.').ok_or_else(wrong)?;
    }
}

/// A name up to one of `ends`, or in quotes; and what follows.
fn word<'t>(text: &'t str, ends: &[char]) -> Option<(String, &'t str)> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => text.split_at(text.find(ends).unwrap_or(text.len())),
    };
    let fits = !name.is_empty() && !name.chars().any(char::is_control);
    fits.then(|| (name.to_owned(), rest))
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}
