//! Data sets: `id(value*unit)`, what stands inside a block (clause 6.6).
//!
//! Values keep their exact text: leading zeros, decimals, point or comma.

/// A line of a block: one or more data sets.
pub type Line = Vec<DataSet>;

/// An id with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSet {
    /// The id as the meter wrote it, history included (`1.8.0*01`); empty in rows of profiles.
    pub id: String,
    /// What stood in parentheses; empty for a text without any.
    pub values: Vec<DataValue>,
}

/// One value in its parentheses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataValue {
    /// The exact text before `*`.
    pub text: String,
    /// The text after `*`; empty when there is none.
    pub unit: String,
}

impl DataSet {
    /// Makes a data set with one value.
    pub fn new(id: &str, text: impl Into<String>, unit: &str) -> Self {
        Self { id: id.to_owned(), values: vec![DataValue { text: text.into(), unit: unit.to_owned() }] }
    }
}

/// Reads a block's body line by line up to the line `!`. Every text is read somehow: a value
/// without its `)` goes to the end of its line, a text without parentheses is an id without values.
pub fn decode(body: &[u8]) -> Vec<Line> {
    let text: String = body.iter().map(|b| char::from(b & 0x7F)).collect();
    let lines = text.split(['\r', '\n']).map(str::trim).take_while(|line| !line.starts_with('!'));
    lines.filter(|line| !line.is_empty()).map(decode_line).collect()
}

fn decode_line(line: &str) -> Line {
    let mut sets: Line = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (id, after) = rest.split_at(rest.find('(').unwrap_or(rest.len()));
        let (value, next) = match after.strip_prefix('(') {
            None => (None, ""),
            Some(inside) => {
                let (value, next) = inside.split_once(')').unwrap_or((inside, ""));
                (Some(value), next)
            }
        };
        // Parentheses right after parentheses are a further value of the same set.
        if !id.trim().is_empty() || sets.is_empty() {
            sets.push(DataSet { id: id.trim().to_owned(), values: Vec::new() });
        }
        if let (Some(value), Some(set)) = (value, sets.last_mut()) {
            let (text, unit) = value.split_once('*').unwrap_or((value, ""));
            set.values.push(DataValue { text: text.to_owned(), unit: unit.to_owned() });
        }
        rest = next;
    }
    sets
}

/// The lines up to `!` that are no data sets as the standard has them: characters that can't be
/// printed, parentheses that don't match, text behind the last one. In a damaged block whose
/// check is right by chance such lines are often there.
pub fn malformed(body: &[u8]) -> Vec<String> {
    let text: String = body.iter().map(|b| char::from(b & 0x7F)).collect();
    let lines = text.split(['\r', '\n']).map(str::trim).take_while(|line| !line.starts_with('!'));
    lines.filter(|line| !is_well_formed(line)).map(str::to_owned).collect()
}

fn is_well_formed(line: &str) -> bool {
    let mut open = false;
    let mut seen = false;
    let mut behind = false;
    let mut id = 0;
    for c in line.chars() {
        match c {
            '(' if !open => (open, seen, behind, id) = (true, true, false, 0),
            ')' if open => open = false,
            '(' | ')' => return false,
            c if c.is_control() => return false,
            ' ' => {}
            _ => {
                behind = seen && !open;
                id += usize::from(!open);
            }
        }
        if id > ID_LIMIT {
            return false;
        }
    }
    !open && !behind
}

/// No id and no line of text has more characters; the standard knows ids of 16 and lines of 78.
const ID_LIMIT: usize = 128;

/// As [`decode`], without the [`malformed`] lines.
pub fn decode_sound(body: &[u8]) -> Vec<Line> {
    let text: String = body.iter().map(|b| char::from(b & 0x7F)).collect();
    let lines = text.split(['\r', '\n']).map(str::trim).take_while(|line| !line.starts_with('!'));
    lines.filter(|line| !line.is_empty() && is_well_formed(line)).map(decode_line).collect()
}

/// Writes lines of data sets and the closing `!`.
pub fn encode(lines: &[Line], to: &mut Vec<u8>) {
    for line in lines {
        for set in line {
            to.extend_from_slice(set.id.as_bytes());
            for DataValue { text, unit } in &set.values {
                let star = if unit.is_empty() { "" } else { "*" };
                to.extend(format!("({text}{star}{unit})").bytes());
            }
        }
        to.extend_from_slice(b"\r\n");
    }
    to.extend_from_slice(b"!\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str, unit: &str) -> DataValue {
        DataValue { text: text.into(), unit: unit.into() }
    }

    #[test]
    fn values_keep_their_exact_text() {
        let lines = decode(b"1.8.0(001234.567*kWh)\r\n1.6.1(02,345*kW)(2601121545)\r\nF.F(00000000)\r\n!\r\nrest(1)");
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], [DataSet::new("1.8.0", "001234.567", "kWh")]);
        assert_eq!(lines[1][0].values, [value("02,345", "kW"), value("2601121545", "")]);
    }

    #[test]
    fn history_several_sets_in_a_line_and_rows_without_an_id_are_read() {
        let lines = decode(b"1.8.0*01(1*kWh)2.8.0&1(2*kWh)\n(0.25)(0.10)\r\r\n0.0.0()\r\n!");
        let ids: Vec<Vec<_>> = lines.iter().map(|l| l.iter().map(|s| s.id.as_str()).collect()).collect();
        assert_eq!(ids, [vec!["1.8.0*01", "2.8.0&1"], vec![""], vec!["0.0.0"]]);
        assert_eq!(lines[1][0].values, [value("0.25", ""), value("0.10", "")]);
        assert_eq!(lines[2][0].values, [value("", "")]);
    }

    #[test]
    fn texts_out_of_shape_are_still_read() {
        assert_eq!(
            decode(b"HELLO\r\n1.8.0(12\r\n)(")[..2],
            [vec![DataSet { id: "HELLO".into(), values: vec![] }], vec![DataSet::new("1.8.0", "12", "")],]
        );
    }

    #[test]
    fn a_line_out_of_shape_is_named_and_left_out() {
        let body = b"1.8.0(1*kWh)2.8.0(2)\r\n1.8.1h2)\r\n1.8.2((3)\r\n0.0.0(4\x11)\r\n(5)(6) \r\nC.1(7)x\r\nHELLO\r\n!";
        assert_eq!(malformed(body), ["1.8.1h2)", "1.8.2((3)", "0.0.0(4\x11)", "C.1(7)x"]);
        let kept: Vec<_> = decode_sound(body).into_iter().flatten().map(|set| set.id).collect();
        assert_eq!(kept, ["1.8.0", "2.8.0", "", "HELLO"]);
    }

    #[test]
    fn an_id_without_end_is_out_of_shape() {
        let body = format!("{}(1)(2)\r\n1.8.0(3)\r\n!", "1".repeat(ID_LIMIT + 1));
        assert_eq!(decode_sound(body.as_bytes()), [vec![DataSet::new("1.8.0", "3", "")]]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn what_was_encoded_is_decoded(
            sets in prop::collection::vec(("[A-F0-9.:*&-]{1,16}", prop::collection::vec(("[0-9.,A-Z: -]{0,32}", "[A-Za-z%]{0,6}"), 1..4)), 0..8),
            split in any::<bool>(),
        ) {
            let set = |(id, values): (String, Vec<(String, String)>)| DataSet {
                id,
                values: values.iter().map(|(t, u)| value(t, u)).collect(),
            };
            let sets: Vec<DataSet> = sets.into_iter().map(set).collect();
            let lines: Vec<Line> = match split {
                true => sets.into_iter().map(|s| vec![s]).collect(),
                false if sets.is_empty() => vec![],
                false => vec![sets],
            };
            let mut body = Vec::new();
            encode(&lines, &mut body);
            prop_assert_eq!(decode(&body), lines);
        }
    }
}
