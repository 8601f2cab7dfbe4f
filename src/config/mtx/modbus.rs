//! `MODBUS_`: blocks of registers become weir's meters, one for each address.
//!
//! The lists are counted by `;`: block n has the n-th address, start, number of words, function and label; a list that is
//! shorter repeats its last value.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::draft::Block;
use super::form::quoted;

/// The most blocks and registers that are taken up.
const MOST_BLOCKS: usize = 256;
const MOST_REGISTERS: usize = 2000;

/// The parameters as they stand there; `None` where one is missing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Polling<'a> {
    pub(super) addresses: Option<&'a str>,
    pub(super) starts: Option<&'a str>,
    pub(super) words: Option<&'a str>,
    pub(super) functions: Option<&'a str>,
    pub(super) labels: Option<&'a str>,
    pub(super) period: Option<&'a str>,
}

/// A block of registers of one meter.
#[derive(Debug, PartialEq, Eq)]
struct Registers {
    address: u16,
    start: u16,
    count: u16,
    function: u16,
    label: String,
}

/// What is told about a parameter: its name, and one sentence.
type Told = (&'static str, String);

/// Makes the meters of one port; what is wrong costs its own block only, and is told.
pub(super) fn meters(polling: Polling<'_>, port: &str, from: &[usize]) -> (Vec<Block>, Vec<Told>) {
    let mut told = Vec::new();
    let every = match polling.period.map(|period| period.trim().parse::<u32>()) {
        Some(Ok(seconds)) if seconds > 0 => format!("every = \"{seconds}s\"@\n"),
        Some(_) => {
            told.push(("MODBUS_period", "MODBUS_period must be a number of seconds above 0".to_owned()));
            return (Vec::new(), told);
        }
        None => String::new(),
    };
    let blocks = blocks(polling, &mut told);
    let mut addresses: Vec<u16> = Vec::new();
    for block in &blocks {
        if !addresses.contains(&block.address) {
            addresses.push(block.address);
        }
    }
    let meter = |address: &u16| {
        let mut text = format!(
            "[[meter]]\nname = \"modbus-{address}\"\nport = {}\nprotocol = \"modbus-rtu\"\naddress = {address}@\n{every}register = [@\n",
            quoted(port)
        );
        registers(blocks.iter().filter(|block| block.address == *address), &mut text);
        text.push_str("]\n");
        Block { text, from: from.to_vec() }
    };
    (addresses.iter().map(meter).collect(), told)
}

/// Writes the registers of one meter; one that stands there already is not written again.
fn registers<'a>(blocks: impl Iterator<Item = &'a Registers>, text: &mut String) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (block, number) in blocks.flat_map(|block| (0..block.count).map(move |number| (block, number))) {
        let register = block.start.saturating_add(number);
        let (table, kind) = match block.function {
            1 => ("coil", "bool"),
            2 => ("discrete", "bool"),
            4 => ("input", "u16"),
            _ => ("holding", "u16"),
        };
        let label = if block.label.is_empty() { table } else { &block.label };
        let place = format!("{table}:{register}");
        // Another register may be called so already.
        let names = [format!("{label}-{register}"), format!("{label}-{table}-{register}")];
        let more = (2..=MOST_REGISTERS).map(|number| format!("{label}-{table}-{register}-{number}"));
        let is_free = |name: &String| seen.get(name).is_none_or(|there| *there == place);
        let Some(name) = names.into_iter().chain(more).find(is_free) else { continue };
        let line = format!("  {{ name = {}, register = \"{place}\", type = \"{kind}\" }},\n", quoted(&name));
        if seen.insert(name, place).is_none() {
            text.push_str(&line);
        }
    }
}

fn blocks(polling: Polling<'_>, told: &mut Vec<Told>) -> Vec<Registers> {
    let list = |text: Option<&str>| -> Vec<String> {
        let text = text.unwrap_or_default().trim_end_matches(';');
        if text.is_empty() { Vec::new() } else { text.split(';').map(|part| part.trim().to_owned()).collect() }
    };
    let lists = [polling.addresses, polling.starts, polling.words, polling.functions, polling.labels].map(list);
    let count = lists.iter().map(Vec::len).max().unwrap_or(0).max(1);
    if count > MOST_BLOCKS {
        told.push(("MODBUS_address", format!("MODBUS_ lists have more than {MOST_BLOCKS} blocks")));
        return Vec::new();
    }
    let mut blocks = Vec::new();
    for at in 0..count {
        match block(&lists, at) {
            Ok(block) => blocks.push(block),
            Err(why) if told.contains(&why) => {}
            Err(why) => told.push(why),
        }
    }
    if blocks.iter().map(|block| usize::from(block.count)).sum::<usize>() > MOST_REGISTERS {
        told.push(("MODBUS_numWords", format!("MODBUS_ asks for more than {MOST_REGISTERS} registers")));
        return Vec::new();
    }
    blocks
}

/// One block of the lists.
fn block([addresses, starts, words, functions, labels]: &[Vec<String>; 5], at: usize) -> Result<Registers, Told> {
    let number = |list: &[String], usual: u16, name: &'static str, range: RangeInclusive<u16>| {
        let Some(text) = list.get(at).or(list.last()) else { return Ok(usual) };
        text.parse::<u16>().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            let message = format!(
                "{name} must be numbers from {least} to {most}, separated by ;: the block with \"{text}\" is left out"
            );
            (name, message)
        })
    };
    let block = Registers {
        address: number(addresses, 1, "MODBUS_address", 1..=247)?,
        start: number(starts, 1, "MODBUS_start", 0..=u16::MAX)?,
        count: number(words, 1, "MODBUS_numWords", 1..=125)?,
        function: number(functions, 3, "MODBUS_readCommand", 1..=4)?,
        label: labels.get(at).or(labels.last()).cloned().unwrap_or_default(),
    };
    if u32::from(block.start) + u32::from(block.count) > 65_536 {
        let Registers { start, count, .. } = block;
        let message = format!("MODBUS_start: {count} registers from {start} on go beyond 65535; the block is left out");
        return Err(("MODBUS_start", message));
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_by_semicolons_and_short_lists_repeat_their_last_value() {
        let polling = Polling {
            addresses: Some("1;2;1"),
            starts: Some("10;20;30"),
            words: Some("2"),
            functions: Some("1;3;4"),
            labels: Some("BIN;WORD"),
            period: Some("60"),
        };
        let (meters, told) = meters(polling, "rs485-2", &[]);
        let text: String = meters.iter().map(|block| block.text.clone()).collect();
        assert_eq!((meters.len(), told), (2, Vec::new()), "one for each address");
        for part in
            ["BIN-10", "\"coil:11\", type = \"bool\"", "WORD-21", "\"holding:21\"", "WORD-31", "every = \"60s\""]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_is_wrong_costs_its_own_block_and_is_told() {
        let told = |polling| {
            let (meters, told) = meters(polling, "p", &[]);
            (meters.len(), told.iter().map(|(name, why)| format!("{name}|{why}\n")).collect::<String>())
        };
        for (polling, left, why) in [
            (Polling { addresses: Some("1;x"), ..Polling::default() }, 1, "MODBUS_address|"),
            (Polling { addresses: Some("0;1"), ..Polling::default() }, 1, "the block with \"0\" is left out"),
            (Polling { addresses: Some("300"), ..Polling::default() }, 0, "from 1 to 247"),
            (Polling { addresses: Some("1;2"), words: Some("0;3"), ..Polling::default() }, 1, "MODBUS_numWords|"),
            (
                Polling { addresses: Some("1;2"), functions: Some("3;0"), ..Polling::default() },
                1,
                "MODBUS_readCommand|",
            ),
            (Polling { starts: Some("65535"), words: Some("2"), ..Polling::default() }, 0, "go beyond 65535"),
            (Polling { starts: Some("65535"), ..Polling::default() }, 1, ""),
            (Polling { period: Some("0"), ..Polling::default() }, 0, "MODBUS_period|"),
            (Polling { addresses: Some(&"1;".repeat(500)), ..Polling::default() }, 0, "blocks"),
        ] {
            let (meters, told) = told(polling);
            assert!(meters == left && told.contains(why) && told.is_empty() == why.is_empty(), "{polling:?} {told}");
        }
    }

    #[test]
    fn registers_of_two_tables_with_one_label_are_both_there_and_no_register_twice() {
        let polling = Polling { functions: Some("3;4;3"), labels: Some("V"), starts: Some("7"), ..Polling::default() };
        let (meters, told) = meters(polling, "p", &[]);
        assert!(told.is_empty(), "{told:?}");
        let text = &meters[0].text;
        assert!(
            text.contains("\"V-7\", register = \"holding:7\"")
                && text.contains("\"V-input-7\", register = \"input:7\"")
        );
        assert_eq!(text.matches("register = \"").count(), 2, "{text}");
    }
}
