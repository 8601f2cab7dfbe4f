//! Values of a push with their names: what is name, value, scaler and unit in a body that anybody may arrange
//! as they like.
//!
//! Understood are groups `{name, value}`, `{name, value, {scaler, unit}}`, `{name, value, scaler, unit}`, `{class,
//! name, attribute, value}` and descriptors; the same without groups, one after the other; a push object
//! list followed by its values; and lists of [`vendor`](super::vendor). A value that nothing names is known by its place.

use super::notification::{Node, Notification};
use super::vendor::{CLOCK, LIST_ID, List};
use super::{Data, DateTime, LogicalName};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    /// What it is.
    pub name: Name,
    /// The value, before scaling.
    pub value: &'a Node<'a>,
    /// Its power of ten.
    pub scaler: i8,
    /// Its unit's code (IEC 62056-6-2, table 4); 255 without one.
    pub unit: u8,
    /// When it was recorded, if it says so itself.
    pub time: Option<DateTime>,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// An object's attribute; its value or state, when it is not told which.
    Object {
        /// The object.
        object: LogicalName,
        /// Which of its attributes, when that is not its value or state.
        attribute: Option<i8>,
    },
    /// The number of the value among those that nothing names, counting from 1.
    Place(usize),
}

impl Name {
    const fn value(object: LogicalName) -> Self {
        Self::Object { object, attribute: None }
    }

    fn of(class: u16, object: LogicalName, attribute: i8) -> Self {
        let usual = match class {
            // Disconnect control: its state. Limiter: its threshold.
            70 | 71 => 3,
            _ => 2,
        };
        Self::Object { object, attribute: (attribute != usual).then_some(attribute) }
    }
}

/// Finds the values of pushes; remembers which maker's list came last, because some makers' short lists don't say it.
#[derive(Debug, Default)]
pub struct Finder {
    list: Option<&'static List>,
}

impl Finder {
    /// Knows no list yet.
    pub const fn new() -> Self {
        Self { list: None }
    }

    /// The values of one push, in its order.
    pub fn entries<'a>(&mut self, notification: &'a Notification<'a>) -> Vec<Entry<'a>> {
        let mut walk = Walk { entries: Vec::new(), places: 0 };
        let body = std::slice::from_ref(&notification.body);
        walk.siblings(notification.body.parts().filter(|_| group(&notification.body).is_none()).unwrap_or(body));
        let mut entries = walk.entries;
        let texts = entries.iter().filter_map(|entry| text_of(entry.value));
        if let Some(list) = texts.take(2).find_map(List::find) {
            self.list = Some(list);
        }
        if let Some(list) = self.list {
            complete(&mut entries, list);
        }
        entries
    }
}

/// Gives names, scalers and units as the maker's list has them.
fn complete(entries: &mut [Entry<'_>], list: &List) {
    let unnamed = entries.iter().filter(|e| matches!(e.name, Name::Place(_)) || e.name == Name::value(CLOCK)).count();
    if let Some(order) = list.order(entries.len()).filter(|_| unnamed == entries.len()) {
        for (entry, name) in entries.iter_mut().zip(order) {
            entry.name = Name::value(*name);
        }
    }
    if let Some(entry) = entries.first_mut().filter(|e| matches!(e.name, Name::Place(_)))
        && text_of(entry.value).and_then(List::find).is_some()
    {
        entry.name = Name::value(LIST_ID);
    }
    let types =
        |entry: &&Entry<'_>| matches!(entry.name, Name::Object { object, .. } if object.c() == 96 && object.d() == 1);
    let meter =
        entries.iter().filter(types).filter(|e| matches!(e.name, Name::Object { object, .. } if object.e() == 1));
    let meter = meter.filter_map(|entry| text_of(entry.value)).next().unwrap_or_default().to_vec();
    for entry in entries.iter_mut().filter(|entry| entry.unit == NO_UNIT && entry.scaler == 0) {
        if let Name::Object { object, attribute: None } = entry.name
            && let Some((scaler, unit)) = list.scale(object, &meter)
        {
            (entry.scaler, entry.unit) = (scaler, unit);
        }
    }
}

const NO_UNIT: u8 = 255;

struct Walk<'a> {
    entries: Vec<Entry<'a>>,
    /// How many values nothing named.
    places: usize,
}

impl<'a> Walk<'a> {
    fn siblings(&mut self, nodes: &'a [Node<'a>]) {
        if self.by_object_list(nodes) {
            return;
        }
        let mut rest = nodes;
        while let Some((node, after)) = rest.split_first() {
            rest = after;
            if let Some(entry) = group(node) {
                self.entries.push(entry);
            } else if let Some(parts) = node.parts() {
                self.siblings(parts);
            } else if let Some((name, value)) = pair(node, after) {
                rest = after.get(1..).unwrap_or_default();
                let scale = rest.first().and_then(scaler_unit);
                if scale.is_some() {
                    rest = rest.get(1..).unwrap_or_default();
                }
                self.entries.push(entry(Name::value(name), value, scale));
            } else {
                self.unnamed(node);
            }
        }
    }

    fn unnamed(&mut self, node: &'a Node<'a>) {
        // A time by itself is the meter's.
        let name = if clock(node).is_some() && !self.entries.iter().any(|e| e.name == Name::value(CLOCK)) {
            Name::value(CLOCK)
        } else {
            self.places += 1;
            Name::Place(self.places)
        };
        self.entries.push(entry(name, node, None));
    }

    /// A push object list (IEC 62056-6-2, push setup, attribute 2) among the values that it lists.
    fn by_object_list(&mut self, nodes: &'a [Node<'a>]) -> bool {
        let lists = nodes.iter().take(3).filter_map(Node::parts);
        let Some(list) = lists.filter(|list| list.len() == nodes.len()).find_map(definitions) else { return false };
        for (definition, node) in list.iter().zip(nodes) {
            // The list itself is no reading.
            if node.parts().and_then(definitions).is_some() {
                continue;
            }
            let &(class, object, attribute) = definition;
            let scale = list.iter().zip(nodes).find(|((c, o, a), _)| (*c, *o, *a) == (class, object, 3));
            let scale =
                scale.filter(|_| matches!((class, attribute), (3..=4, 2))).and_then(|(_, node)| scaler_unit(node));
            match (node.parts(), scaler_unit(node)) {
                // A scaler was used with its value.
                (Some(_), Some(_)) if matches!((class, attribute), (3..=4, 3)) => {}
                _ => self.entries.push(entry(Name::of(class, object, attribute), node, scale)),
            }
        }
        true
    }
}

/// The classes, objects and attributes of a list of capture objects; `None` when it is none.
fn definitions(list: &[Node<'_>]) -> Option<Vec<(u16, LogicalName, i8)>> {
    let one = |node: &Node<'_>| match node.parts()? {
        [
            Node::Leaf(Data::LongUnsigned(class)),
            name,
            Node::Leaf(Data::Integer(attribute)),
            Node::Leaf(Data::LongUnsigned(_)),
            ..,
        ] => Some((*class, object(name)?, *attribute)),
        _ => None,
    };
    list.iter().map(one).collect::<Option<Vec<_>>>().filter(|found| !found.is_empty())
}

fn entry<'a>(name: Name, value: &'a Node<'a>, scale: Option<(i8, u8)>) -> Entry<'a> {
    // A value may bring scaler and unit inside.
    let (value, scale) = match (value.parts(), scale) {
        (Some([inner @ Node::Leaf(_), last]), None) if scaler_unit(last).is_some() => (inner, scaler_unit(last)),
        _ => (value, scale),
    };
    let (scaler, unit) = scale.unwrap_or((0, NO_UNIT));
    Entry { name, value, scaler, unit, time: None }
}

/// A group with one value.
fn group<'a>(node: &'a Node<'a>) -> Option<Entry<'a>> {
    let Node::Structure(parts) = node else { return None };
    let (name, rest) = match parts.as_slice() {
        [Node::Descriptor(d), rest @ ..] => (Name::of(d.class_id, d.instance_id, d.attribute_id), rest),
        [Node::Leaf(Data::LongUnsigned(class)), name, Node::Leaf(Data::Integer(attribute)), rest @ ..] => {
            (Name::of(*class, object(name)?, *attribute), rest)
        }
        [name, rest @ ..] => (Name::value(object(name)?), rest),
        [] => return None,
    };
    match rest {
        [value] if is_value(value) => Some(entry(name, value, None)),
        [value @ Node::Leaf(_), scale] if scaler_unit(scale).is_some() => Some(entry(name, value, scaler_unit(scale))),
        [value @ Node::Leaf(_), Node::Leaf(Data::Integer(scaler)), Node::Leaf(Data::Enum(unit))] => {
            Some(entry(name, value, Some((*scaler, *unit))))
        }
        [value @ Node::Leaf(_), scale, time] if scaler_unit(scale).is_some() => {
            let time = Some(clock(time)?);
            Some(Entry { time, ..entry(name, value, scaler_unit(scale)) })
        }
        _ => None,
    }
}

/// Whether a node can be the value of a name before it: not the beginning of other values.
fn is_value(node: &Node<'_>) -> bool {
    match node {
        Node::Leaf(_) => true,
        Node::Array(parts) | Node::Structure(parts) => {
            matches!(parts.as_slice(), [Node::Leaf(_), last] if scaler_unit(last).is_some())
                || parts.iter().all(|part| part.leaf().is_some_and(|leaf| !matches!(leaf, Data::OctetString(_))))
        }
        Node::Descriptor(_) => false,
    }
}

/// A name with the value behind it, where nothing groups them.
fn pair<'a>(node: &Node<'a>, after: &'a [Node<'a>]) -> Option<(LogicalName, &'a Node<'a>)> {
    let name = object(node)?;
    let (value, further) = after.split_first()?;
    // A name before a name is one of its own kind, such as that of the list.
    let begins_another =
        object(value).is_some() && further.first().is_some_and(|n| n.leaf().is_some() && object(n).is_none());
    (is_value(value) && scaler_unit(value).is_none() && !begins_another).then_some((name, value))
}

fn scaler_unit(node: &Node<'_>) -> Option<(i8, u8)> {
    match node {
        Node::Structure(parts) => match parts.as_slice() {
            [Node::Leaf(Data::Integer(scaler)), Node::Leaf(Data::Enum(unit))] => Some((*scaler, *unit)),
            _ => None,
        },
        _ => None,
    }
}

/// A logical name: six octets, the first a medium of the standard. Six digits of a serial number are none.
fn object(node: &Node<'_>) -> Option<LogicalName> {
    match *node {
        Node::Leaf(Data::OctetString(&[a @ 0..=15, b, c, d, e, f])) if f == 255 || (c != 0 && f <= 126) => {
            Some(LogicalName::new(a, b, c, d, e, f))
        }
        _ => None,
    }
}

/// A time of twelve octets, or by its own tag.
pub(super) fn clock(node: &Node<'_>) -> Option<DateTime> {
    match node.leaf()? {
        Data::DateTime(time) => Some(time),
        Data::OctetString(octets) => octets.try_into().ok().map(DateTime::from_bytes).filter(is_plausible),
        _ => None,
    }
}

fn is_plausible(time: &DateTime) -> bool {
    matches!(time.year, 1970..=2199 | 0xFFFF)
        && matches!(time.month, 1..=12 | 0xFD..=0xFF)
        && matches!(time.day_of_month, 1..=31 | 0xFD..=0xFF)
        && matches!(time.hour, 0..=23 | 0xFF)
        && matches!(time.minute, 0..=59 | 0xFF)
        && matches!(time.second, 0..=59 | 0xFF)
}

fn text_of<'a>(node: &Node<'a>) -> Option<&'a [u8]> {
    match node.leaf()? {
        Data::OctetString(text) | Data::VisibleString(text) | Data::Utf8String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
