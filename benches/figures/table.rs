//! What was measured, for people and for machines.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use serde_json::json;
use weir::os::clock;

/// One figure.
#[derive(Debug)]
pub struct Figure {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    /// What it is held against: another program's figure, or an aim.
    pub against: Option<(String, f64)>,
    pub note: String,
}

impl Figure {
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, against: None, note: String::new() }
    }

    pub fn against(mut self, baseline: impl Into<String>, value: f64) -> Self {
        self.against = Some((baseline.into(), value));
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Where and when it was measured.
#[derive(Debug)]
pub struct Machine {
    date: String,
    kernel: String,
    cpu: String,
    load: String,
}

impl Machine {
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let models: Vec<_> = cpuinfo.lines().filter(|l| l.starts_with("model name")).collect();
        let model = models.first().and_then(|l| l.split(": ").nth(1)).unwrap_or("unknown CPU");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = Command::new("uname").args(["-srm"]).output().unwrap().stdout;
        Self {
            date: clock::now().to_string(),
            kernel: String::from_utf8_lossy(&kernel).trim().to_owned(),
            cpu: format!("{model}, {cores} cores"),
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The middle one; of an even number the lower.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Three significant digits, or whole thousands.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => {
            let whole = format!("{value:.0}");
            let (head, tail) = whole.split_at(whole.len() % 3);
            let groups = tail.as_bytes().chunks(3).map(|c| String::from_utf8_lossy(c).into_owned());
            std::iter::once(head.to_owned()).filter(|h| !h.is_empty()).chain(groups).collect::<Vec<_>>().join(",")
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub fn text(machine: &Machine, figures: &[Figure]) -> String {
    let Machine { date, kernel, cpu, load } = machine;
    let mut out = format!("{date}, {kernel}, {cpu}, load before: {load}\n\n");
    let head = ["figure", "weir", "unit", "against", "", "ratio", "note"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head)
        .chain(figures.iter().map(|f| {
            let (baseline, theirs) = f.against.clone().map_or_else(Default::default, |(n, v)| (n, short(v)));
            let ratio = f.against.as_ref().map_or_else(String::new, |(_, v)| format!("{:.3}", f.value / v));
            [f.what.clone(), short(f.value), f.unit.to_owned(), baseline, theirs, ratio, f.note.clone()]
        }))
        .collect();
    let widths: Vec<usize> = (0..7).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    for row in &rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let width = widths[c];
            let right = matches!(c, 1 | 4 | 5);
            let _ = if right { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

pub fn json(machine: &Machine, figures: &[Figure]) -> String {
    let figures: Vec<_> = figures
        .iter()
        .map(|f| {
            let baseline = f.against.as_ref().map(|(name, value)| json!({"name": name, "value": value}));
            let ratio = f.against.as_ref().map(|(_, value)| f.value / value);
            json!({"figure": f.what, "value": f.value, "unit": f.unit, "baseline": baseline, "ratio": ratio, "note": f.note})
        })
        .collect();
    let Machine { date, kernel, cpu, load } = machine;
    json!({"date": date, "kernel": kernel, "cpu": cpu, "load": load, "figures": figures}).to_string()
}
