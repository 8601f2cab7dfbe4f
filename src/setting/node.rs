//! A place in the parsed file, and reading a table key by key.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{Problems, Setting};

/// What a person may write for a setting.
#[derive(Debug, Clone)]
pub enum Shape {
    /// A value described by one phrase, such as `duration, e.g. "30s"`.
    Value(&'static str),
    /// One of a few words, each with its meaning.
    Choice(Vec<(&'static str, &'static str)>),
    /// A list of something.
    List(Box<Shape>),
    /// A table with named fields.
    Table {
        /// What the table is for.
        about: &'static str,
        /// Its keys in order.
        fields: Vec<Field>,
    },
}

/// One key of a table.
#[derive(Debug, Clone)]
pub struct Field {
    /// The key as written in weir.toml.
    pub key: &'static str,
    /// Its doc comment.
    pub doc: &'static str,
    /// Its default as TOML.
    pub default: Option<&'static str>,
    /// Whether it must be there when it has no default.
    pub required: bool,
    /// What may be written.
    pub shape: Shape,
}

/// A value of the file with its place and its name.
#[derive(Debug)]
pub struct Node<'a> {
    value: &'a DeValue<'a>,
    span: Range<usize>,
    path: String,
}

impl<'a> Node<'a> {
    /// Wraps a parsed value found at `span` under the dotted name `path`.
    pub fn new(value: &'a DeValue<'a>, span: Range<usize>, path: impl Into<String>) -> Self {
        Self { value, span, path: path.into() }
    }

    /// The parsed value.
    pub fn value(&self) -> &'a DeValue<'a> {
        self.value
    }

    /// Its place as byte offsets.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Its dotted name, such as `broker.url`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The number text of an integer or float exactly as written (underscores removed).
    pub fn number(&self) -> Option<String> {
        match self.value {
            DeValue::Integer(i) if i.radix() == 10 => Some(i.as_str().to_owned()),
            DeValue::Float(f) => Some(f.as_str().to_owned()),
            _ => None,
        }
    }

    /// Says that something else was expected here; returns `None` for the caller to pass on.
    pub fn expected<T>(&self, what: &str, problems: &mut Problems) -> Option<T> {
        let found = self.value.type_str();
        problems.error(self.span(), format!("{} must be {what}, but this is a {found}", self.path));
        None
    }

    /// Says that the value does not make sense; `why` ends the sentence that starts with the key.
    pub fn refused<T>(&self, why: &str, problems: &mut Problems) -> Option<T> {
        problems.error(self.span(), format!("{} {why}", self.path));
        None
    }

    /// Reads a text.
    pub fn text(&self, what: &str, problems: &mut Problems) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text.as_ref()),
            _ => self.expected(what, problems),
        }
    }

    /// Reads one of `words`.
    pub fn choice(&self, words: &[&'static str], problems: &mut Problems) -> Option<&'static str> {
        let list = words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", ");
        let text = self.text(&format!("one of {list}"), problems)?;
        if let Some(word) = words.iter().find(|w| **w == text) {
            return Some(word);
        }
        let hint = nearest(text, words.iter().copied()).map(|w| format!(" (did you mean \"{w}\"?)"));
        self.refused(&format!("is \"{text}\", but must be one of {list}{}", hint.unwrap_or_default()), problems)
    }

    /// Starts to read a table.
    pub fn table(&self, problems: &mut Problems) -> Option<Table<'a>> {
        match self.value {
            DeValue::Table(entries) => {
                Some(Table { entries, span: self.span(), path: self.path.clone(), known: Vec::new() })
            }
            _ => self.expected("a table", problems),
        }
    }

    /// The elements of a list; a lone table counts as a list of one (`[port]` for `[[port]]`).
    pub fn elements(&self, problems: &mut Problems) -> Option<Vec<Node<'a>>> {
        match self.value {
            DeValue::Array(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| Node::new(item.get_ref(), item.span(), format!("{}[{i}]", self.path)))
                    .collect(),
            ),
            _ => self.expected("a list", problems),
        }
    }
}

/// The keys that a person has written into one table.
#[derive(Debug, Clone, Default)]
pub struct Written(Vec<(String, Range<usize>)>);

impl Written {
    /// The place of a key, when it stands in the file.
    pub fn place(&self, key: &str) -> Option<Range<usize>> {
        self.0.iter().find(|(written, _)| written == key).map(|(_, span)| span.clone())
    }
}

/// A table being read: remembers which keys are known so that the rest can be named.
#[derive(Debug)]
pub struct Table<'a> {
    entries: &'a DeTable<'a>,
    span: Range<usize>,
    path: String,
    known: Vec<&'static str>,
}

impl Table<'_> {
    /// Reads `key`, or its default, or says that it is missing.
    pub fn take<T: Setting>(
        &mut self,
        key: &'static str,
        default: Option<&'static str>,
        problems: &mut Problems,
    ) -> Option<T> {
        self.known.push(key);
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        if let Some(value) = self.entries.get(key) {
            let read = T::read(&Node::new(value.get_ref(), value.span(), path), problems);
            return read.or_else(|| stand_in(default));
        }
        if let Some(default) = default {
            return read_default(default, &path, self.span.clone(), problems).or_else(T::stand_in);
        }
        T::absent().or_else(|| {
            problems.missing(self.span.clone(), format!("{path} is missing; it is required"));
            T::stand_in()
        })
    }

    /// The keys that stand in the file.
    pub fn written(&self) -> Written {
        Written(self.entries.iter().map(|(key, _)| (key.get_ref().to_string(), key.span())).collect())
    }

    /// Names every key nobody asked for.
    pub fn finish(self, problems: &mut Problems) {
        for (key, _) in self.entries {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let place = if self.path.is_empty() { String::new() } else { format!(" in [{}]", self.path) };
            let hint = match nearest(name, self.known.iter().copied()) {
                Some(word) => format!("did you mean \"{word}\"?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            problems.error(key.span(), format!("unknown key \"{name}\"{place}; {hint}"));
        }
    }
}

/// Reads a default; problems of a table that must be filled in (a required key inside it) are
/// told at the place where the table is missing.
fn read_default<T: Setting>(default: &str, path: &str, span: Range<usize>, problems: &mut Problems) -> Option<T> {
    let source = format!("v = {default}");
    let mut inner = Problems::new();
    let value = DeTable::parse(&source).ok().and_then(|document| {
        let value = document.get_ref().get("v")?;
        T::read(&Node::new(value.get_ref(), 0..0, path), &mut inner)
    });
    for problem in inner.located("") {
        problems.missing(span.clone(), problem.message);
    }
    value
}

/// What stands in for a value that could not be read: its default, or what its type offers.
pub fn stand_in<T: Setting>(default: Option<&'static str>) -> Option<T> {
    let from_default = |default| read_default(default, "", 0..0, &mut Problems::new());
    default.and_then(from_default).or_else(T::stand_in)
}

/// The word most like `text`, if any is near enough to be meant.
fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let near = words.map(|w| (strsim::damerau_levenshtein(text, w), w)).min()?;
    (near.0 <= (text.chars().count() / 3).max(1)).then_some(near.1)
}
