//! Effective settings as TOML text, for `weir check --print`.

use std::fmt::Write;

/// A setting's effective value, ready to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Printed {
    /// Not set; left out.
    Absent,
    /// A scalar or inline value as TOML text.
    Value(String),
    /// A table.
    Table(Vec<(&'static str, Printed)>),
    /// A list of tables or values.
    List(Vec<Printed>),
}

impl Printed {
    /// A quoted TOML string.
    pub fn text(text: &str) -> Self {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                c if c.is_control() => {
                    let _ = write!(quoted, "\\u{:04X}", u32::from(c));
                }
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        Self::Value(quoted)
    }

    /// Writes a whole document; `self` should be a [`Printed::Table`].
    pub fn document(&self) -> String {
        let mut out = String::new();
        if let Self::Table(fields) = self {
            Self::body(fields, "", &mut out);
        }
        out
    }

    fn body(fields: &[(&'static str, Self)], path: &str, out: &mut String) {
        for (key, value) in fields {
            if let Some(inline) = value.inline() {
                let _ = writeln!(out, "{key} = {inline}");
            }
        }
        for (key, value) in fields {
            let path = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
            match value {
                Self::Table(fields) => {
                    let _ = writeln!(out, "\n[{path}]");
                    Self::body(fields, &path, out);
                }
                Self::List(items) => {
                    for item in items {
                        if let Self::Table(fields) = item {
                            let _ = writeln!(out, "\n[[{path}]]");
                            Self::body(fields, &path, out);
                        }
                    }
                }
                Self::Absent | Self::Value(_) => {}
            }
        }
    }

    fn inline(&self) -> Option<String> {
        match self {
            Self::Value(text) => Some(text.clone()),
            Self::List(items) if !items.iter().any(|i| matches!(i, Self::Table(_))) => {
                let items: Vec<_> = items.iter().filter_map(Self::inline).collect();
                Some(format!("[{}]", items.join(", ")))
            }
            Self::Absent | Self::Table(_) | Self::List(_) => None,
        }
    }
}
