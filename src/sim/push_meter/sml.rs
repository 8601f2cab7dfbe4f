//! The SML side of the simulated meter: a writer that shares nothing with the reader in `wire`.

use super::Registers;

const SERVER: [u8; 10] = [0x0A, 0x01, b'W', b'E', b'I', 0x00, 0x00, 0x12, 0x34, 0x56];

/// CRC-16/X-25, bit by bit.
pub(super) fn crc(bytes: &[u8]) -> [u8; 2] {
    let step = |sum: u16, _| if sum & 1 == 1 { sum >> 1 ^ 0x8408 } else { sum >> 1 };
    let sum = bytes.iter().fold(0xFFFF_u16, |sum, byte| (0..8).fold(sum ^ u16::from(*byte), step));
    (!sum).to_le_bytes()
}

fn octets(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    let head = match length {
        0..=14 => vec![length + 1],
        _ => vec![0x80 | (length + 2) >> 4, (length + 2) & 0x0F],
    };
    [head, bytes.to_vec()].concat()
}

fn message(transaction: u8, kind: u16, body: &[u8]) -> Vec<u8> {
    let [high, low] = kind.to_be_bytes();
    let mut bytes = vec![0x76];
    bytes.extend(octets(&[transaction, 1]));
    bytes.extend([0x62, 0x00, 0x62, 0x00, 0x72, 0x63, high, low]);
    bytes.extend(body);
    let [first, second] = crc(&bytes);
    bytes.extend([0x63, first, second, 0x00]);
    bytes
}

fn entry(id: [u8; 6], middle: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x77][..], &octets(&id), middle, value, &[0x01]].concat()
}

/// One transmission: open, a list, close.
pub(super) fn encode(registers: &Registers, counter: u32, to: &mut Vec<u8>) {
    const NOTHING: [u8; 4] = [0x01; 4];
    // The status word, no time, watt-hours, a tenth.
    const ENERGY: [u8; 9] = [0x64, 0x01, 0x01, 0x80, 0x01, 0x62, 30, 0x52, 0xFF];
    let tenths = registers.energy.first().copied().unwrap_or_default() / 100;
    let energy = [&[0x69][..], &tenths.to_be_bytes()].concat();
    let power = [&[0x55][..], &registers.power.to_be_bytes()].concat();
    let entries = [
        entry([129, 129, 199, 130, 3, 255], &NOTHING, &octets(b"WEI")),
        entry([1, 0, 0, 0, 9, 255], &NOTHING, &octets(&SERVER)),
        entry([1, 0, 1, 8, 0, 255], &ENERGY, &energy),
        entry([1, 0, 2, 8, 0, 255], &ENERGY, &[0x69, 0, 0, 0, 0, 0, 0, 0, 0]),
        entry([1, 0, 16, 7, 0, 255], &[0x01, 0x01, 0x62, 27, 0x52, 0], &power),
        entry([129, 129, 199, 130, 5, 255], &NOTHING, &octets(&[0x1B; 48])),
    ];
    let mut list = vec![0x77, 0x01];
    list.extend(octets(&SERVER));
    list.extend(octets(&[1, 0, 98, 10, 255, 255]));
    list.extend([0x72, 0x62, 0x01, 0x65]);
    list.extend(counter.to_be_bytes());
    list.push(0x70 | u8::try_from(entries.len()).unwrap_or_default());
    list.extend(entries.concat());
    list.extend([0x01, 0x01]);
    let mut open = vec![0x76, 0x01, 0x01];
    open.extend(octets(&counter.to_be_bytes()));
    open.extend(octets(&SERVER));
    open.extend([0x01, 0x01]);
    let content = [message(1, 0x0101, &open), message(2, 0x0701, &list), message(3, 0x0201, &[0x71, 0x01])].concat();
    let start = to.len();
    to.extend([0x1B, 0x1B, 0x1B, 0x1B, 1, 1, 1, 1]);
    let mut run = 0;
    for byte in &content {
        to.push(*byte);
        run = if *byte == 0x1B { run + 1 } else { 0 };
        if run == 4 {
            to.extend([0x1B; 4]);
            run = 0;
        }
    }
    // The CRC and the alignment count from the first byte of the transmission.
    let padding = (4 - (to.len() - start) % 4) % 4;
    to.extend(std::iter::repeat_n(0, padding));
    to.extend([0x1B, 0x1B, 0x1B, 0x1B, 0x1A, u8::try_from(padding).unwrap_or_default()]);
    let sum = crc(to.get(start..).unwrap_or_default());
    to.extend(sum);
}
