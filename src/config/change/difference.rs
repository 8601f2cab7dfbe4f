//! What differs between two configurations: for the trial by meaning, for a person by lines.

use std::fmt::Write;

use crate::config::Settings;
use crate::meter::{self, PortSettings};
use crate::setting::Setting;

/// The first key that differs and would make the gateway another one.
pub(super) fn fixed(old: &Settings, new: &Settings) -> Option<&'static str> {
    let keys = [
        ("store.path", old.store.path != new.store.path),
        ("gateway.id", old.gateway.id != new.gateway.id),
        ("gateway.board", *old.gateway.board != *new.gateway.board),
        ("gateway.imei", old.gateway.imei != new.gateway.imei),
    ];
    keys.into_iter().find(|(_, differs)| *differs).map(|(key, _)| key)
}

/// All that concerns a port: its own settings, its meters and its tunnel.
fn of_port(settings: &Settings, port: &PortSettings) -> String {
    let mut all = format!("{:?}", port.printed());
    for meter in settings.meter.iter().filter(|meter| *meter.port == *port.name) {
        let _ = write!(all, "\n{:?}", meter::printed(meter));
    }
    for tunnel in settings.tunnel.iter().filter(|tunnel| **tunnel.port == *port.name) {
        let _ = write!(all, "\n{:?}", tunnel.printed());
    }
    all
}

/// The ports that differ and have a meter now.
pub(super) fn ports(old: &Settings, new: &Settings) -> Vec<String> {
    let has_meter = |port: &&PortSettings| new.meter.iter().any(|meter| *meter.port == *port.name);
    let differs = |port: &&PortSettings| {
        let before = old.port.iter().find(|before| *before.name == *port.name);
        before.is_none_or(|before| of_port(old, before) != of_port(new, port))
    };
    new.port.iter().filter(has_meter).filter(differs).map(|port| port.name.to_string()).collect()
}

/// Lines around a difference that are shown with it.
const CONTEXT: usize = 3;
/// Between longer texts no lines are matched: the whole is shown as replaced.
const LONGEST: usize = 4000;

/// A line of two texts beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'t> {
    Both(&'t str),
    Old(&'t str),
    New(&'t str),
}

/// The difference in the unified format of diff(1); nothing when there is none.
pub fn unified((old_name, old): (&str, &str), (new_name, new): (&str, &str)) -> String {
    let lines = matched(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let changed: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Both(_))).map(|(at, _)| at).collect();
    if changed.is_empty() {
        return String::new();
    }
    let mut out = format!("--- {old_name}\n+++ {new_name}\n");
    let mut at = 0;
    let (mut old_line, mut new_line) = (1, 1);
    let mut changed = changed.into_iter().peekable();
    while let Some(first) = changed.next() {
        let mut end = first + 1 + CONTEXT;
        while let Some(next) = changed.next_if(|next| next.saturating_sub(CONTEXT) <= end) {
            end = next + 1 + CONTEXT;
        }
        let start = first.saturating_sub(CONTEXT).max(at);
        let end = end.min(lines.len());
        for line in lines.get(at..start).unwrap_or_default() {
            count(line, &mut old_line, &mut new_line);
        }
        let hunk = lines.get(start..end).unwrap_or_default();
        let (mut olds, mut news) = (0, 0);
        hunk.iter().for_each(|line| count(line, &mut olds, &mut news));
        let from = |line: usize, count: usize| if count == 0 { line - 1 } else { line };
        let _ = writeln!(out, "@@ -{},{olds} +{},{news} @@", from(old_line, olds), from(new_line, news));
        for line in hunk {
            let (sign, text) = match line {
                Line::Both(text) => (' ', text),
                Line::Old(text) => ('-', text),
                Line::New(text) => ('+', text),
            };
            let _ = writeln!(out, "{sign}{text}");
            count(line, &mut old_line, &mut new_line);
        }
        at = end;
    }
    out
}

fn count(line: &Line<'_>, old: &mut usize, new: &mut usize) {
    *old += usize::from(!matches!(line, Line::New(_)));
    *new += usize::from(!matches!(line, Line::Old(_)));
}

/// The longest common subsequence of lines, after what is the same at both ends.
fn matched<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<Line<'t>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let middle = |all: &[&'t str]| all.get(..all.len().saturating_sub(tail)).unwrap_or_default().to_vec();
    let (a, b) = (middle(old_rest), middle(new_rest));
    let mut lines: Vec<_> = old.iter().take(head).map(|line| Line::Both(line)).collect();
    lines.extend(between(&a, &b));
    lines.extend(old_rest.iter().skip(a.len()).map(|line| Line::Both(line)));
    lines
}

fn between<'t>(a: &[&'t str], b: &[&'t str]) -> Vec<Line<'t>> {
    let (rows, columns) = (a.len() + 1, b.len() + 1);
    let mut lines = Vec::new();
    if rows.saturating_mul(columns) > LONGEST * LONGEST / 4 {
        lines.extend(a.iter().map(|line| Line::Old(line)));
        lines.extend(b.iter().map(|line| Line::New(line)));
        return lines;
    }
    // common[i][j]: how many lines a[i..] and b[j..] have in common.
    let mut common = vec![0u32; rows * columns];
    let of = |common: &[u32], i: usize, j: usize| common.get(i * columns + j).copied().unwrap_or(0);
    for (i, left) in a.iter().enumerate().rev() {
        for (j, right) in b.iter().enumerate().rev() {
            let best = if left == right {
                of(&common, i + 1, j + 1) + 1
            } else {
                of(&common, i + 1, j).max(of(&common, i, j + 1))
            };
            if let Some(cell) = common.get_mut(i * columns + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    loop {
        match (a.get(i), b.get(j)) {
            (Some(left), Some(right)) if left == right => {
                lines.push(Line::Both(left));
                (i, j) = (i + 1, j + 1);
            }
            (Some(left), right) if right.is_none() || of(&common, i + 1, j) >= of(&common, i, j + 1) => {
                lines.push(Line::Old(left));
                i += 1;
            }
            (_, Some(right)) => {
                lines.push(Line::New(right));
                j += 1;
            }
            (_, None) => return lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_difference_is_shown_as_diff_shows_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\nten\n";
        let told = unified(("a", old), ("b", new));
        assert_eq!(told, "--- a\n+++ b\n@@ -2,8 +2,9 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n+ten\n");
        assert_eq!(unified(("a", old), ("b", old)), "");
        assert_eq!(unified(("a", ""), ("b", "x\n")), "--- a\n+++ b\n@@ -0,0 +1,1 @@\n+x\n");
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_out_of_their_difference(
            old in prop::collection::vec("[abc]", 0..12), new in prop::collection::vec("[abc]", 0..12),
        ) {
            let old: Vec<&str> = old.iter().map(String::as_str).collect();
            let new: Vec<&str> = new.iter().map(String::as_str).collect();
            let lines = matched(&old, &new);
            let side = |not_old: bool| lines.iter().filter_map(|line| match line {
                Line::Both(text) => Some(*text),
                Line::Old(text) => (!not_old).then_some(*text),
                Line::New(text) => not_old.then_some(*text),
            }).collect::<Vec<_>>();
            prop_assert_eq!(side(false), old);
            prop_assert_eq!(side(true), new);
        }
    }
}
