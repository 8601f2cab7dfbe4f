//! docs/config.md, made from the settings' own descriptions.

use std::fmt::Write;

use super::Settings;
use crate::setting::{Field, Setting, Shape};

const HEAD: &str = "# weir.toml, key by key
<!-- Made by `cargo test --test config` from the types in src/; do not edit: run it with WEIR_BLESS=1 to write it anew. -->

`weir check` reads the file and reports every mistake at once with its line and column;
`weir check --print` shows the effective values. Durations are texts such as \"30s\", sizes such as
\"256MiB\". Secrets stand in files of their own, never here. A key's dotted name, such as
`broker.url` or `port[rs485-1].baud`, is what `weir config set` takes (docs/changes.md).
";

/// Writes the page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    if let Shape::Table { fields, .. } = Settings::shape() {
        let (scalars, tables): (Vec<_>, Vec<_>) = fields.into_iter().partition(|f| table_of(&f.shape).is_none());
        page.push_str("\n## At the top\n");
        rows(&scalars, &mut page);
        for field in &tables {
            section(field.key, &field.shape, &mut page);
        }
    }
    page
}

/// The fields of a table or of a list of tables, and whether it is a list.
fn table_of(shape: &Shape) -> Option<(&'static str, &[Field], bool)> {
    match shape {
        Shape::Table { about, fields } => Some((about, fields, false)),
        Shape::List(inner) => table_of(inner).map(|(about, fields, _)| (about, fields, true)),
        Shape::Value(_) | Shape::Choice(_) => None,
    }
}

fn section(path: &str, shape: &Shape, page: &mut String) {
    let Some((about, fields, list)) = table_of(shape) else { return };
    let title = if list { format!("[[{path}]]") } else { format!("[{path}]") };
    let _ = write!(page, "\n## {title}\n{}\n", one_line(about));
    rows(fields, page);
    for field in fields {
        section(&format!("{path}.{}", field.key), &field.shape, page);
    }
}

fn rows(fields: &[Field], page: &mut String) {
    page.push_str("\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for field in fields {
        let default = match (field.default, field.required) {
            (Some(default), _) => format!("`{default}`"),
            (None, true) => "**required**".to_owned(),
            (None, false) => "unset".to_owned(),
        };
        let _ = writeln!(page, "| `{}` | {} | {default} | {} |", field.key, value(&field.shape), meaning(field));
    }
}

fn value(shape: &Shape) -> String {
    match shape {
        Shape::Value(text) => (*text).to_owned(),
        Shape::Choice(words) => words.iter().map(|(w, _)| format!("`\"{w}\"`")).collect::<Vec<_>>().join(", "),
        Shape::List(inner) => match value(inner) {
            inner if inner == "table" => "list of tables".to_owned(),
            inner => format!("list of: {inner}"),
        },
        Shape::Table { .. } => "table".to_owned(),
    }
}

fn meaning(field: &Field) -> String {
    let mut text = one_line(field.doc);
    if let Shape::Choice(words) = &field.shape {
        for (word, doc) in words {
            let _ = write!(text, " `{word}`: {}", one_line(doc));
        }
    }
    text.replace('|', "\\|")
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}
