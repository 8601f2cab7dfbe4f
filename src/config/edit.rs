//! Sets, reads and removes one key of a configuration's text by its dotted name; comments and order stay.
//!
//! ```text
//! key      = segment *( "." segment )
//! segment  = name [ "[" which "]" ]
//! which    = the name of a table of a list (of a tunnel: its port), its number from 1, or "+" and the name of a new one
//! ```
//! Names with other characters than letters, digits, `-` and `_` stand in quotes; `meter.incomer.every` is the same as
//! `meter[incomer].every`. A value is given as text and typed by what the setting takes.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::Settings;
use crate::setting::{Field, Setting, Shape};

mod path;
#[cfg(test)]
mod tests;
mod typed;

use path::{Segment, Which};

/// Why a key can't be set or read; one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EditError(String);

impl EditError {
    fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// What is done to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// It gets this value.
    Set(String, String),
    /// It is removed, so that its default counts; or a whole table of a list is removed.
    Unset(String),
}

/// Where a key leads to.
enum Place<'d, 's> {
    /// A key in this table, which takes this.
    Key(&'d mut dyn TableLike, &'s Field),
    /// A table of a list: the list, which of its tables, and its name for sentences.
    Member(&'d mut Item, usize),
}

/// Makes the edits and returns the new text; it was not checked as a whole.
///
/// # Errors
/// The first edit that can't be made.
pub fn edited(text: &str, edits: &[Edit]) -> Result<String, EditError> {
    let mut document = parsed(text)?;
    for edit in edits {
        match edit {
            Edit::Set(key, value) => set(&mut document, key, value)?,
            Edit::Unset(key) => unset(&mut document, key)?,
        }
    }
    Ok(document.to_string())
}

/// The value of a key as text: as it stands there, else its default; `None` when it is unset.
///
/// # Errors
/// When there is no such key.
pub fn value(text: &str, key: &str) -> Result<Option<String>, EditError> {
    let mut document = parsed(text)?;
    let path = path::read(key)?;
    let shape = Settings::shape();
    match walk(document.as_table_mut(), &shape, &path, Way { key, make: false, root: true }) {
        Ok(Some(Place::Key(table, field))) => {
            let written = table.get(field.key).filter(|item| !item.is_none());
            Ok(written.map(shown).or_else(|| field.default.map(|text| typed::plain(text.trim()))))
        }
        Ok(Some(Place::Member(list, at))) => Ok(member(list, at).map(|table| {
            let lines = table.iter().map(|(name, item)| format!("{name} = {}", shown(item)));
            lines.collect::<Vec<_>>().join(", ")
        })),
        Ok(None) => Ok(default_of(&shape, &path)),
        Err(error) => Err(error),
    }
}

/// The default of a key whose table is not there.
fn default_of(shape: &Shape, path: &[Segment]) -> Option<String> {
    let mut shape = shape;
    let mut default = None;
    for segment in path {
        let Shape::Table { fields, .. } = shape else { return None };
        let field = fields.iter().find(|field| field.key == segment.name)?;
        (shape, default) = (&field.shape, field.default);
    }
    default.map(|text| typed::plain(text.trim()))
}

fn parsed(text: &str) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|e: toml_edit::TomlError| EditError::new(format!("not valid TOML: {}", e.message())))
}

/// A value as one gives it.
fn shown(item: &Item) -> String {
    match item.as_value() {
        Some(Value::String(text)) => text.value().clone(),
        Some(value) => value.clone().decorated("", "").to_string(),
        None => item.to_string().trim().to_owned(),
    }
}

fn set(document: &mut DocumentMut, key: &str, text: &str) -> Result<(), EditError> {
    let path = path::read(key)?;
    let shape = Settings::shape();
    match walk(document.as_table_mut(), &shape, &path, Way { key, make: true, root: true })? {
        Some(Place::Key(table, field)) => {
            let mut value = typed::value(&field.shape, text).map_err(|why| EditError::new(format!("{key} {why}")))?;
            match table.get_mut(field.key) {
                Some(Item::Value(old)) => {
                    *value.decor_mut() = old.decor().clone();
                    *old = value;
                }
                Some(other) => *other = Item::Value(value),
                None => {
                    tidy_end(table);
                    table.insert(field.key, Item::Value(value));
                }
            }
            Ok(())
        }
        Some(Place::Member(..)) => {
            Err(EditError::new(format!("{key} is a whole table; name a key of it, such as {key}.KEY")))
        }
        None => Err(EditError::new(format!("{key} is nowhere"))),
    }
}

/// In `{ a = 1 }` the blank before the brace belongs to the last value: it is not wanted before a comma.
fn tidy_end(table: &mut dyn TableLike) {
    if let Some((_, Item::Value(last))) = table.iter_mut().last()
        && last.decor().suffix().and_then(|suffix| suffix.as_str()) == Some(" ")
    {
        last.decor_mut().set_suffix("");
    }
}

fn unset(document: &mut DocumentMut, key: &str) -> Result<(), EditError> {
    let path = path::read(key)?;
    let shape = Settings::shape();
    match walk(document.as_table_mut(), &shape, &path, Way { key, make: false, root: true })? {
        Some(Place::Key(table, field)) => drop(table.remove(field.key)),
        Some(Place::Member(list, at)) => match list {
            Item::ArrayOfTables(tables) => drop(tables.remove(at)),
            Item::Value(Value::Array(tables)) => drop(tables.remove(at)),
            other => *other = Item::None,
        },
        None => {}
    }
    Ok(())
}

/// What is wanted of the way.
#[derive(Debug, Clone, Copy)]
struct Way<'k> {
    /// The whole key, for sentences.
    key: &'k str,
    /// Whether what is missing is made.
    make: bool,
    /// Whether it starts at the top of the file.
    root: bool,
}

/// Follows the path; `None` when a table on the way is not there and nothing is to be made.
fn walk<'d, 's>(
    table: &'d mut dyn TableLike,
    shape: &'s Shape,
    path: &[Segment],
    way: Way<'_>,
) -> Result<Option<Place<'d, 's>>, EditError> {
    let key = way.key;
    let Shape::Table { fields, .. } = shape else { return Err(EditError::new(format!("{key} is nowhere"))) };
    let Some((segment, rest)) = path.split_first() else {
        return Err(EditError::new(format!("{key} is a whole table; name a key of it")));
    };
    let found = fields.iter().find(|field| field.key == segment.name);
    let field = found.ok_or_else(|| unknown(&segment.name, fields, key))?;
    match &field.shape {
        Shape::Table { .. } if segment.which.is_some() => {
            Err(EditError::new(format!("{} is no list; write {}.KEY", segment.name, segment.name)))
        }
        inner @ Shape::Table { .. } if !rest.is_empty() => {
            let Some(next) = descend(table, field.key, way) else { return Ok(None) };
            walk(next, inner, rest, Way { root: false, ..way })
        }
        Shape::List(inner) if matches!(**inner, Shape::Table { .. }) => {
            listed(table, (field, inner), (segment, rest), way)
        }
        Shape::Value(_) | Shape::Choice(_) | Shape::List(_) if !rest.is_empty() || segment.which.is_some() => {
            Err(EditError::new(format!("{} is a value and has nothing in it", segment.name)))
        }
        _ => Ok(Some(Place::Key(table, field))),
    }
}

/// Goes on in one table of a list.
fn listed<'d, 's>(
    table: &'d mut dyn TableLike,
    (field, inner): (&'s Field, &'s Shape),
    (segment, rest): (&Segment, &[Segment]),
    way: Way<'_>,
) -> Result<Option<Place<'d, 's>>, EditError> {
    let lone = table.get(field.key).is_some_and(Item::is_table_like);
    let (which, rest) = match (&segment.which, rest.split_first()) {
        (Some(which), _) => (which.clone(), rest),
        // `[broker]` stands for a list of one.
        (None, _) if lone => (Which::Number(1), rest),
        (None, Some((name, rest))) if name.which.is_none() => (Which::Named(name.name.clone()), rest),
        _ => return Err(EditError::new(format!("say which one: {}[NAME].KEY", field.key))),
    };
    if let (Which::New(name), true) = (&which, way.make) {
        add(table, field, inner, name, way.root)?;
    }
    let Some(list) = table.get_mut(field.key) else { return Err(none(field.key, &which, &[])) };
    let names = names_of(list);
    let by_name = |name: &str| names.iter().position(|known| known.as_deref() == Some(name));
    let found = match &which {
        Which::Named(name) | Which::New(name) => by_name(name),
        Which::Number(number) => {
            by_name(&number.to_string()).or_else(|| (1..=names.len()).contains(number).then(|| number - 1))
        }
    };
    let at = found.ok_or_else(|| none(field.key, &which, &names))?;
    if rest.is_empty() {
        return Ok(Some(Place::Member(list, at)));
    }
    match member_mut(list, at) {
        Some(next) => walk(next, inner, rest, Way { root: false, ..way }),
        None => Err(none(field.key, &which, &names)),
    }
}

/// The keys by which tables of lists are told apart.
const NAMING: [&str; 2] = ["name", "port"];

/// The names of a list's tables, in order.
fn names_of(list: &Item) -> Vec<Option<String>> {
    let name = |table: &dyn TableLike| NAMING.into_iter().find_map(|key| table.get(key)?.as_str().map(str::to_owned));
    match list {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| name(table)).collect(),
        Item::Value(Value::Array(tables)) => {
            tables.iter().map(|value| value.as_inline_table().and_then(|table| name(table))).collect()
        }
        other => other.as_table_like().map(name).into_iter().collect(),
    }
}

fn member(list: &Item, at: usize) -> Option<&dyn TableLike> {
    match list {
        Item::ArrayOfTables(tables) => tables.get(at).map(|table| table as &dyn TableLike),
        Item::Value(Value::Array(tables)) => tables.get(at)?.as_inline_table().map(|table| table as &dyn TableLike),
        other => other.as_table_like().filter(|_| at == 0),
    }
}

fn member_mut(list: &mut Item, at: usize) -> Option<&mut dyn TableLike> {
    match list {
        Item::ArrayOfTables(tables) => tables.get_mut(at).map(|table| table as &mut dyn TableLike),
        Item::Value(Value::Array(tables)) => {
            tables.get_mut(at)?.as_inline_table_mut().map(|table| table as &mut dyn TableLike)
        }
        other => other.as_table_like_mut().filter(|_| at == 0),
    }
}

fn none(list: &str, which: &Which, names: &[Option<String>]) -> EditError {
    let known: Vec<_> =
        names.iter().enumerate().map(|(at, name)| name.clone().unwrap_or_else(|| (at + 1).to_string())).collect();
    let known = if known.is_empty() { "there is none".to_owned() } else { format!("known: {}", known.join(", ")) };
    EditError::new(format!("there is no {list} {which}; {known}; {list}[+NAME] makes a new one"))
}

fn unknown(name: &str, fields: &[Field], key: &str) -> EditError {
    let near = fields
        .iter()
        .map(|field| (strsim::damerau_levenshtein(name, field.key), field.key))
        .min()
        .filter(|(distance, _)| *distance <= (name.chars().count() / 3).max(1));
    let hint = match near {
        Some((_, word)) => format!("did you mean \"{word}\"?"),
        None => format!("known here: {}", fields.iter().map(|field| field.key).collect::<Vec<_>>().join(", ")),
    };
    EditError::new(format!("unknown key \"{name}\" in {key}; {hint}"))
}

/// The table behind a key, made when it is not there.
fn descend<'d>(table: &'d mut dyn TableLike, key: &str, way: Way<'_>) -> Option<&'d mut dyn TableLike> {
    if table.get(key).is_none_or(Item::is_none) {
        if !way.make {
            return None;
        }
        let new = if way.root {
            Item::Table(Table::new())
        } else {
            // `a.b = value` can stand in any table.
            let mut inline = InlineTable::new();
            inline.set_dotted(true);
            Item::Value(Value::InlineTable(inline))
        };
        table.insert(key, new);
    }
    table.get_mut(key)?.as_table_like_mut()
}

/// Adds a table to a list, with its name.
fn add(table: &mut dyn TableLike, field: &Field, inner: &Shape, name: &str, root: bool) -> Result<(), EditError> {
    let Shape::Table { fields, .. } = inner else { return Ok(()) };
    let Some(naming) = NAMING.into_iter().find(|key| fields.iter().any(|field| field.key == *key)) else {
        return Err(EditError::new(format!("a new {} can't be made this way; apply a whole file", field.key)));
    };
    if table.get(field.key).is_some_and(|list| names_of(list).iter().any(|known| known.as_deref() == Some(name))) {
        return Ok(());
    }
    match table.get_mut(field.key) {
        Some(Item::ArrayOfTables(tables)) => {
            let mut new = Table::new();
            new.insert(naming, toml_edit::value(name));
            tables.push(new);
        }
        Some(Item::Value(Value::Array(tables))) => {
            let mut new = InlineTable::new();
            new.insert(naming, Value::from(name));
            tables.push(Value::InlineTable(new));
        }
        None | Some(Item::None) if root => {
            let mut new = Table::new();
            new.insert(naming, toml_edit::value(name));
            let mut tables = toml_edit::ArrayOfTables::new();
            tables.push(new);
            table.insert(field.key, Item::ArrayOfTables(tables));
        }
        None | Some(Item::None) => {
            let mut new = InlineTable::new();
            new.insert(naming, Value::from(name));
            let mut tables = Array::new();
            tables.push(Value::InlineTable(new));
            table.insert(field.key, Item::Value(Value::Array(tables)));
        }
        Some(_) => return Err(EditError::new(format!("{} is no list in the file", field.key))),
    }
    Ok(())
}
