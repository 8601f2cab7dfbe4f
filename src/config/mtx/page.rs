//! The table as docs/mtx.md shows it.

use std::fmt::Write;

use super::table::{Becomes, ROWS};

const BEGIN: &str = "<!-- rows: made by `WEIR_BLESS=1 cargo test --test mtx`; do not edit -->\n";
const END: &str = "<!-- end of the rows -->\n";

/// The rows, between the marks that hold their place in the page.
pub fn rows_of_the_page() -> String {
    let mut page = format!("{BEGIN}| MTX name | becomes | what it does here, or why nothing |\n| --- | --- | --- |\n");
    for row in ROWS {
        let becomes = match row.becomes {
            Becomes::Key(key, _) => format!("`{key}`"),
            Becomes::Secret(key) => format!("the file of `{key}`"),
            Becomes::Part => "used".to_owned(),
            Becomes::Nothing => "ignored".to_owned(),
        };
        let _ = writeln!(page, "| `{}` | {becomes} | {} |", row.name, row.about.replace('|', "\\|"));
    }
    page.push_str(END);
    page
}

/// The page around the rows: what stands before and behind them.
pub fn without_rows(page: &str) -> Option<(&str, &str)> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, behind) = rest.split_once(END)?;
    Some((before, behind))
}
