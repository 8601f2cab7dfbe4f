//! The survey of a site, for whoever installs receivers: who is heard how well, and who may be lost.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::{every, receivers, strength, table, text};

/// What a survey says.
#[derive(Debug)]
pub(super) struct Report {
    head: Json,
    meters: Vec<Json>,
}

impl Report {
    /// Of these receivers, with nobody heard yet.
    pub(super) fn new(head: &Json) -> Self {
        Self { head: head.clone(), meters: Vec::new() }
    }

    /// Adds a meter.
    pub(super) fn add(&mut self, meter: Json) {
        self.meters.push(meter);
    }

    /// The number of meters.
    pub(super) fn heard(&self) -> usize {
        self.meters.len()
    }

    /// One line.
    pub(super) fn in_short(&self) -> String {
        let heard = table::count(self.heard(), "meter");
        format!("{heard}, {} of them at the edge: the survey is", self.at_edge().count())
    }

    fn at_edge(&self) -> impl Iterator<Item = &Json> {
        self.meters.iter().filter(|meter| !edge(meter).is_empty())
    }

    /// How many meters have each of a member's values.
    fn by(&self, member: &str) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for meter in &self.meters {
            *found.entry(text(meter, member)).or_default() += 1;
        }
        found
    }

    /// By receiver: how many meters it hears, and how many of them no other does.
    fn hearing(&self) -> BTreeMap<&str, (usize, usize)> {
        let names = self.head.get("receivers").and_then(Json::as_object);
        let mut found: BTreeMap<_, _> =
            names.into_iter().flat_map(Map::keys).map(|name| (name.as_str(), (0, 0))).collect();
        for meter in &self.meters {
            let heard_by = words(meter, "receivers");
            for name in &heard_by {
                let (all, alone) = found.entry(name).or_default();
                *all += 1;
                *alone += usize::from(heard_by.len() == 1);
            }
        }
        found
    }

    /// The survey as one object.
    pub(super) fn to_json(&self) -> Json {
        let hearing: Map<_, _> = self
            .hearing()
            .into_iter()
            .map(|(name, (meters, alone))| {
                let mut told =
                    self.head.pointer("/receivers").and_then(|all| all.get(name)).cloned().unwrap_or(json!({}));
                if let Some(members) = told.as_object_mut() {
                    members.insert("meters".into(), json!(meters));
                    members.insert("meters_alone".into(), json!(alone));
                }
                (name.to_owned(), told)
            })
            .collect();
        json!({
            "timestamp": self.head.get("timestamp"),
            "receivers": hearing,
            "summary": {
                "meters": self.heard(),
                "forwarded": self.by("forwarded").get("true").copied().unwrap_or(0),
                "at_edge": self.at_edge().count(),
                "security": self.by("security"),
                "frametype": self.by("frametype"),
            },
            "at_edge": self.at_edge().map(|meter| meter.get("meter")).collect::<Vec<_>>(),
            "meters": self.meters,
        })
    }

    /// The survey as a person reads it.
    pub(super) fn to_text(&self) -> String {
        let mut out = format!("Radio survey of {}\n\n{}", text(&self.head, "timestamp"), receivers(&self.head));
        let hearing: Vec<_> = self
            .hearing()
            .into_iter()
            .map(|(name, (all, alone))| vec![table::printable(name), all.to_string(), alone.to_string()])
            .collect();
        out += &format!("\n{}\n", table::render(&["receiver", "hears meters", "that no other hears"], &hearing));
        let said = |by: BTreeMap<String, usize>| {
            by.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
        };
        let forwarded = self.by("forwarded").get("true").copied().unwrap_or(0);
        out += &table::pairs(&[
            ("meters", format!("{} ({})", self.heard(), said(self.by("frametype")))),
            ("forwarded", forwarded.to_string()),
            ("encrypted", said(self.by("security"))),
            ("at the edge", self.at_edge().count().to_string()),
        ]);
        let mut edge: Vec<_> = self.at_edge().collect();
        edge.sort_by_key(|meter| meter.get("heard_percent").and_then(Json::as_u64).unwrap_or(u64::MAX));
        for (title, meters) in [("At the edge, most lost first", edge), ("All meters", self.meters.iter().collect())] {
            if !meters.is_empty() {
                let rows: Vec<_> = meters.into_iter().map(row).collect();
                out += &format!("\n{title}\n{}", table::render(HEAD, &rows));
            }
        }
        out += NOTES;
        out
    }
}

const HEAD: &[&str] =
    &["meter", "device", "heard", "of", "share", "every", "worst", "median", "best", "encrypted", "edge", "receivers"];

const NOTES: &str = "
heard: telegrams without copies. of: how many were sent, by the interval: the median of the last 15 pauses; where most
telegrams are lost, it is too long and the share too good. median: of the last 15 telegrams.
edge: weak = a median of -95 dBm or less; losses = less than 80 % heard. Strengths without dBm are the receiver's own figures.
";

fn row(meter: &Json) -> Vec<String> {
    let share = meter.get("heard_percent").and_then(Json::as_u64).map_or_else(|| "-".to_owned(), |n| format!("{n} %"));
    vec![
        text(meter, "meter"),
        text(meter, "device"),
        text(meter, "telegrams"),
        text(meter, "expected"),
        share,
        every(meter),
        strength(meter, "worst"),
        strength(meter, "median"),
        strength(meter, "best"),
        text(meter, "security").replace("none", "no"),
        edge(meter).join(", "),
        table::printable(&words(meter, "receivers").join(", ")),
    ]
}

fn edge(meter: &Json) -> Vec<&str> {
    words(meter, "edge")
}

/// The words of a member that is a list.
fn words<'a>(meter: &'a Json, member: &str) -> Vec<&'a str> {
    meter.get(member).and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(id: u32, median: i32, share: u64, receivers: &[&str]) -> Json {
        json!({ "meter": format!("KAM.{id:08}.1b.16"), "device": "cold water", "telegrams": share, "expected": 100,
            "heard_percent": share, "interval_s": 16, "rssi_worst": median - 3, "rssi_median": median, "rssi_best": median + 5,
            "security": "mode 5", "frametype": "wM-Bus", "forwarded": true, "receivers": receivers,
            "edge": if share < 80 { vec!["losses"] } else { vec![] } })
    }

    fn report() -> Report {
        let receiver = json!({ "source": "open", "heard": 250, "damaged": 2, "noise": 0 });
        let mut report = Report::new(
            &json!({ "timestamp": "2026-11-22T10:00:00Z", "receivers": { "roof": receiver, "stairs": receiver } }),
        );
        report.add(meter(1, -60, 100, &["roof", "stairs"]));
        report.add(meter(2, -97, 50, &["stairs"]));
        report.add(meter(3, -80, 70, &["stairs"]));
        report
    }

    #[test]
    fn the_text_tells_who_is_at_the_edge_and_which_receiver_is_needed() {
        let text = report().to_text();
        let line =
            |with: &str| text.lines().find(|line| line.contains(with)).unwrap_or_else(|| panic!("{with}: {text}"));
        assert_eq!(line("stairs    ").split_whitespace().collect::<Vec<_>>(), ["stairs", "3", "2"]);
        assert_eq!(line("roof      ").split_whitespace().collect::<Vec<_>>(), ["roof", "1", "0"]);
        assert!(line("at the edge").ends_with(" 2") && line("encrypted  ").contains("3 mode 5"), "{text}");
        let all = text.find("All meters").unwrap();
        let place = |id: &str| text.find(id).unwrap();
        assert!(place("00000002") < place("00000003") && place("00000003") < all && place("00000001") > all, "{text}");
        for part in ["50 %", "16 s", "-100 dBm", "-97 dBm", "-92 dBm", "losses"] {
            assert!(line("00000002").contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_object_has_the_same_numbers() {
        let told = report().to_json();
        assert_eq!(
            told["summary"],
            json!({ "meters": 3, "forwarded": 3, "at_edge": 2, "security": { "mode 5": 3 }, "frametype": { "wM-Bus": 3 } })
        );
        assert_eq!(
            (&told["receivers"]["stairs"]["meters_alone"], &told["receivers"]["roof"]["heard"]),
            (&json!(2), &json!(250))
        );
        assert_eq!(told["at_edge"], json!(["KAM.00000002.1b.16", "KAM.00000003.1b.16"]));
        assert_eq!(told["meters"].as_array().unwrap().len(), 3);
    }
}
