//! Hostile bytes against every decoder of DLMS: recorded and made messages are mutated; no decoder may panic, hold or ask
//! for more memory than the bytes warrant, or find more things than there are bytes.
//!
//! Time is counted in work (bytes asked from the allocator, things found), not by a clock. The same seed gives the same
//! mutations. For long: `WEIR_ROUNDS=1000000 cargo test --release --test dlms_hostile`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail loudly"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;

use weir::wire::dlms::blocks::{Incoming, Step};
use weir::wire::dlms::entry::Finder;
use weir::wire::dlms::hdlc::{self, Address, Control};
use weir::wire::dlms::open::{self, seal};
use weir::wire::dlms::protect::{self, Suite};
use weir::wire::dlms::push::{self, LONGEST};
use weir::wire::dlms::secret::Secret;
use weir::wire::dlms::wrap::KeyEncryptionKey;
use weir::wire::dlms::wrapper::{self, Unit};
use weir::wire::dlms::{Aare, Aarq, Apdu, Data, GeneralBlockTransfer, decode, notification};
use weir::wire::explain::dlms as explain;
use weir::wire::mbus;

/// Counts, for each thread by itself, what is asked from the allocator.
struct Counting;

thread_local! {
    /// Bytes asked for since the last look, bytes held now, and the most of them.
    static ASKED: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + more));
    let _ = HELD.try_with(|held| {
        held.set(held.get() + more as isize - less as isize);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

#[expect(unsafe_code, reason = "an allocator can be written in no other way; this one only counts")]
// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What some work asked from the allocator, and the most that it held at once.
fn cost<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = HELD.get();
    ASKED.set(0);
    MOST.set(before);
    let result = work();
    (result, ASKED.get(), usize::try_from(MOST.get() - before).unwrap_or(0))
}

/// Draws numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    data_encoding::HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).unwrap()
}

const TITLE: [u8; 8] = *b"WEI\0\0\0\0\x01";

/// Requests, answers and pushes as they were seen between other implementations (tests/dlms, serial-protocols.md).
const APDUS: [&str; 16] = [
    "60 33 A1 09 06 07 60857405080101 8A 02 0780 8B 07 60857405080201 AC 07 80 05 4775727578 BE 10 04 0E 01000000 065F1F0400 401E5D FFFF",
    "61 29 A1 09 06 07 60857405080101 A2 03 020100 A3 05 A103020100 BE 10 04 0E 0800 065F1F0400 00101D 04 00 0007",
    "C0 01 C1 0003 0100010800FF 02 00",
    "C0 01 C1 0007 0100630100FF 02 01 01 02 04 02 04 12 0008 09 06 0000010000FF 0F 02 12 0000 09 0C 07E60B16020A0F00FF800000 09 0C 07E60B16020A0F00FF800000 01 00",
    "C4 01 C1 00 06 00000007",
    "C4 02 C1 00 00000001 00 03 010203",
    "C4 01 C1 00 13 02 02 11 12 06 01 00 02 03 00 04",
    "C1 01 C1 0008 0000010000FF 02 00 09 02 3132",
    "C3 01 C1 0046 000060030AFF 01 01 0F 00",
    "D8 01 06 000007D8",
    "E0 C1 0001 0000 05 0102030405",
    "05 01 02 FA00",
    "0C 01 00 06 00000007",
    "0F 00000001 0C 07E60B16020A0F00FF800000 02 02 02 03 0906 0100010800FF 06 00000007 0202 0F00 161E 02 02 0906 0000600100FF 0A04 34373131",
    "0F 00000001 00 02 02 01 02 02 04 12 0003 09 06 0100010800FF 0F 02 12 0000 02 04 12 0003 09 06 0100010800FF 0F 03 12 0000 06 00000007",
    "DD 01 07 08 5745490000000001 00 00 00 01 00 00 15 30 00000005 01020304050607080910111213141516",
];

/// Each message in everything that carries it, and what was recorded of real meters.
fn seeds() -> Vec<Vec<u8>> {
    let keys = open::Keys::of(&[1; 16], Some(&[2; 16])).unwrap();
    let mut seeds = Vec::new();
    for apdu in APDUS.map(hex) {
        let information = [&hdlc::LLC_RESPONSE[..], &apdu].concat();
        let (destination, source) = (Address::Single(32), Address::Double { upper: 1, lower: 17 });
        for control in [Control::Ui, Control::I { ns: 0, nr: 0, pf: true }] {
            let information = information.clone();
            seeds.push(hdlc::Frame { segmented: false, destination, source, control, information }.encode().unwrap());
        }
        let mut telegram = Vec::new();
        let data = [&[0x01, 0x67], &apdu[..]].concat();
        mbus::encode(&mbus::Frame::Long { control: 0x53, address: 0xFF, ci: 0x10, data }, &mut telegram);
        seeds.push(telegram);
        seeds.push(Unit { source: 1, destination: 16, apdu: apdu.clone() }.encode().unwrap());
        seeds.push(seal(&keys, TITLE, 0x30, 7, &apdu).unwrap());
        seeds.push(apdu);
    }
    let places = [
        std::env::var("WEIR_DATA").unwrap_or_default(),
        concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").to_owned(),
        "/work/shared/data".to_owned(),
    ];
    let folder = places.iter().map(|place| PathBuf::from(place).join("dlms-push")).find(|place| place.is_dir());
    let Some(folder) = folder else {
        eprintln!("NOTE: no recordings of DLMS pushes beside the checkout (WEIR_DATA); only made ones are mutated");
        return seeds;
    };
    let mut logs: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    logs.sort();
    seeds.extend(logs.iter().map(|path| hex(&std::fs::read_to_string(path).unwrap())));
    seeds
}

/// Some bytes changed, lost, doubled, put in or taken from another seed; lengths are favoured.
fn mutated(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(8) {
        let at = dice.below(bytes.len());
        let until = (at + 1 + dice.below(24)).min(bytes.len());
        match dice.below(8) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
            2 => bytes[at] = [0xFF, 0x82, 0x84, 0x7F, 0x00, 0x01, 0x02, 0x13][dice.below(8)],
            3 => drop(bytes.drain(at..until)),
            4 => {
                let part = bytes[at..until].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len());
                bytes.splice(at..at, other[from..(from + 1 + dice.below(60)).min(other.len())].iter().copied());
            }
            6 => bytes.truncate(at),
            _ => bytes.insert(at, [0x7E, 0x68, 0xA0, 0xDB][dice.below(4)]),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Keys that each decoder has, so that it goes as far as it can.
struct Keys {
    open: open::Keys,
    protect: protect::Keys,
    master: KeyEncryptionKey,
}

impl Keys {
    fn new() -> Self {
        let secret = |byte: u8| Secret::new(vec![byte; 16]);
        let mut protect = protect::Keys::new(Suite::new(0).unwrap(), &secret(1), Some(secret(2))).unwrap();
        protect.set_broadcast(&secret(1)).unwrap();
        protect.set_dedicated(Some(&secret(1))).unwrap();
        protect.set_master(KeyEncryptionKey::new(&secret(3)).unwrap());
        let open = open::Keys::of(&[1; 16], Some(&[2; 16])).unwrap();
        Self { open, protect, master: KeyEncryptionKey::new(&secret(3)).unwrap() }
    }
}

/// Every decoder of one APDU; tells how many things were found.
fn apdu(bytes: &[u8], keys: &Keys) -> usize {
    let mut found = 0;
    let (rest, tag) = (bytes.get(1..).unwrap_or_default(), bytes.first().copied().unwrap_or_default());
    found += usize::from(decode::<Apdu<'_>>(bytes).is_ok());
    found += usize::from(decode::<Aarq<'_>>(bytes).is_ok()) + usize::from(decode::<Aare<'_>>(bytes).is_ok());
    found += usize::from(decode::<Data<'_>>(rest).is_ok());
    let mut plain = bytes.to_vec();
    let _ = open::length(bytes);
    if let Ok(Some(sealed)) = open::sealed(bytes) {
        for (title, untagged) in [(None, false), (Some(TITLE), true)] {
            if let Ok(opened) = sealed.open(&keys.open, title, untagged) {
                plain = opened.apdu;
            }
        }
    }
    found += usize::from(keys.protect.unprotect(bytes, Some(TITLE)).is_ok() || protect::is_ciphered(bytes));
    found += usize::from(keys.master.unwrap(bytes).is_some());
    if let Ok(notification) = notification::decode(&plain) {
        let mut finder = Finder::new();
        for entry in finder.entries(&notification) {
            found += usize::from(entry.text().is_some() || entry.name.to_string().is_empty());
        }
    }
    if tag == 0xE0 {
        let mut blocks = Incoming::new();
        let block = decode::<GeneralBlockTransfer<'_>>(rest).ok().map(|(block, _)| blocks.push(&block));
        found += usize::from(matches!(block, Some(Ok(Step::Whole(_)))));
        found += usize::from(blocks.acknowledgement().is_empty());
    }
    found
}

/// Feeds a stream decoder in pieces.
fn stream(bytes: &[u8], cut: usize, mut feed: impl FnMut(&[u8]) -> usize) -> usize {
    bytes.chunks(cut.max(1)).map(&mut feed).sum()
}

/// Every decoder over these bytes; tells how many things were found.
fn all(bytes: &[u8], cut: usize, keys: &Keys) -> usize {
    let mut pushes = push::Decoder::new();
    let mut found = stream(bytes, cut, |piece| {
        pushes.push(piece);
        std::iter::from_fn(|| pushes.next()).inspect(|event| drop(explain::word(event))).count()
    });
    pushes.silence();
    found += std::iter::from_fn(|| pushes.next()).count();
    let mut frames = hdlc::Decoder::new();
    found += stream(bytes, cut, |piece| {
        frames.push(piece);
        std::iter::from_fn(|| frames.next()).count()
    });
    let mut units = wrapper::Decoder::new();
    found += stream(bytes, cut, |piece| {
        units.push(piece);
        std::iter::from_fn(|| units.next()).count()
    });
    found += apdu(bytes, keys);
    if let Ok(explanation) = explain::explain(bytes, Some(&keys.open)) {
        found += usize::from(!explanation.to_string().is_empty() && explanation.to_json().is_object());
    }
    found
}

/// So many bytes may be held for each byte that came: a tree of small values is larger than its bytes.
const HELD_PER_BYTE: usize = 1000;
/// So many may be asked for: what is held, again and again, as buffers grow.
const ASKED_PER_BYTE: usize = 10_000;
/// Tables, buffers of a fixed size.
const FIXED: usize = 64 * 1024;

#[test]
fn mutated_messages_cost_no_more_than_their_bytes_warrant() {
    let rounds = std::env::var("WEIR_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6000);
    let (seeds, keys) = (seeds(), Keys::new());
    let mut dice = Dice(0x5EED_2026_1122);
    let (mut most_held, mut most_asked, mut most_found) = (0, 0, 0);
    for round in 0..rounds {
        let bytes = mutated(&seeds, &mut dice);
        let cut = 1 + dice.below(300);
        let (found, asked, held) = cost(|| all(&bytes, cut, &keys));
        let told = || format!("round {round}, cut into {cut}: {}", data_encoding::HEXUPPER.encode(&bytes));
        assert!(held <= FIXED + HELD_PER_BYTE * bytes.len(), "{held} bytes held; {}", told());
        assert!(asked <= FIXED + ASKED_PER_BYTE * bytes.len(), "{asked} bytes asked for; {}", told());
        assert!(found <= 16 + 4 * bytes.len(), "{found} things found; {}", told());
        most_held = most_held.max(held / bytes.len());
        most_asked = most_asked.max(asked / bytes.len());
        most_found = most_found.max(found);
    }
    println!("{rounds} rounds: at most {most_held} bytes held and {most_asked} asked for a byte, {most_found} found");
}

#[test]
fn a_stream_that_never_ends_a_message_holds_no_more_than_one_and_its_work_grows_as_its_length() {
    let keys = Keys::new();
    let beginnings: [&[u8]; 8] = [
        &[0x7E, 0xA7, 0xFF, 0x41, 0x23, 0x13],
        &[0x7E],
        &[0x68, 0xFF, 0xFF, 0x68],
        &[0, 1, 0, 1, 0, 1, 0xFF, 0xFF, 0x0F],
        &[0x0F, 0, 0, 0, 1, 0, 2],
        &[0xE0, 0x40, 0, 1, 0, 0, 0x82, 0xFF, 0xFF],
        &[0xDB, 8, b'W', b'E', b'I', 0, 0, 0, 0, 1, 0x82, 0xFF, 0xFF],
        &[0xDD, 0, 8, b'W', b'E', b'I', 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x82, 0xFF, 0xFF],
    ];
    for beginning in beginnings {
        let bytes = |length: usize| beginning.iter().copied().cycle().take(length).collect::<Vec<u8>>();
        let run = |length: usize| {
            let bytes = bytes(length);
            cost(|| {
                let (mut pushes, mut frames, mut units) =
                    (push::Decoder::new(), hdlc::Decoder::new(), wrapper::Decoder::new());
                for byte in bytes.chunks(1) {
                    pushes.push(byte);
                    while pushes.next().is_some() {}
                    frames.push(byte);
                    while frames.next().is_some() {}
                    units.push(byte);
                    while units.next().is_some() {}
                }
            })
        };
        let (_, asked, held) = run(3 * LONGEST);
        assert!(held <= 16 * LONGEST, "{beginning:02X?}: {held} bytes held");
        let (_, twice, _) = run(6 * LONGEST);
        assert!(
            twice <= 3 * asked + 16 * LONGEST,
            "{beginning:02X?}: {asked} bytes asked for, {twice} for twice as many"
        );
        let _ = apdu(&bytes(2000), &keys);
    }
}

#[test]
fn trees_and_compact_arrays_that_claim_more_than_they_have_are_refused() {
    let keys = Keys::new();
    let head = [0x0F, 0, 0, 0, 1, 0];
    let mut claims = vec![
        // Arrays in arrays, each of the most parts; a deep one; one of nothing but nulls.
        [0x01, 0x84, 0xFF, 0xFF, 0xFF, 0xFF].repeat(40),
        [0x02, 0x01].repeat(5000),
        [&[0x01, 0x82, 0xFF, 0xFF][..], &[0; 4000]].concat(),
        // Compact arrays: arrays of arrays of nulls, and rows without a byte.
        [&[0x13][..], &[0x01, 0xFF, 0xFF].repeat(8), &[0x00, 0x04, 1, 2, 3, 4]].concat(),
        vec![0x13, 0x02, 0x02, 0x00, 0x00, 0x00],
        vec![0x13, 0x01, 0xFF, 0xFF, 0x11, 0x02, 1, 2],
    ];
    claims.push([&[0x13, 0x11, 0x82, 0xEA, 0x60][..], &[7; 60_000]].concat());
    for claim in claims {
        let bytes = [&head[..], &claim].concat();
        let (_, asked, held) = cost(|| all(&bytes, usize::MAX, &keys));
        assert!(held <= FIXED + HELD_PER_BYTE * bytes.len(), "{held} bytes for {} ({:02X?})", bytes.len(), &claim[..6]);
        assert!(asked <= FIXED + ASKED_PER_BYTE * bytes.len(), "{asked} bytes for {}", bytes.len());
    }
}
