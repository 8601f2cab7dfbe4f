//! The desk as a whole, without receivers.

use super::*;
use crate::model::{Rssi, TelegramKind};
use crate::radio::telegrams::{SampleSettings, Urgency};
use crate::setting::At;
use crate::wire::aes::Aes128;
use crate::wire::wmbus::Keys;

const KEYS: &str = "00000001 = 01010101010101010101010101010101\n00000009 = 09090909090909090909090909090909";

struct Bench {
    desk: Desk,
    roof: Arc<Ear>,
    stairs: Arc<Ear>,
    start: Instant,
}

impl Bench {
    fn new(settings: TelegramsSettings) -> Self {
        Self::with(settings, Forward::Raw)
    }

    fn with(settings: TelegramsSettings, forward: Forward) -> Self {
        let ear = |name: &str| {
            let decoding = Decoding::with_keys(forward, Keys::parse(KEYS).0);
            Arc::new(Ear { name: Arc::from(name), health: Health::new(), decoding })
        };
        let desk = Desk::new(settings, Survey::new());
        Self { desk, roof: ear("roof"), stairs: ear("stairs"), start: Instant::now() }
    }

    fn hear(&mut self, ear: &str, (bytes, rssi): (&[u8], i16), millis: u64) {
        let kind = TelegramKind::WirelessMbus;
        let reception =
            Reception { kind, bytes: bytes.to_vec(), rssi: Some(Rssi::Dbm(rssi)), corrected_bits: 0, time: None };
        let ear = if ear == "roof" { &self.roof } else { &self.stairs }.clone();
        let wall = Timestamp::from_millis(1_800_000_000_000 + i64::try_from(millis).unwrap());
        let stamp = Stamp { uptime: millis, ..Stamp::synced(wall) };
        let arrival = self.start + Duration::from_millis(millis);
        self.desk.take(reception, arrival, stamp, ear);
    }

    /// What has left up to a moment: lane, first payload byte behind the CI field, strength, copies.
    fn left(&mut self, millis: u64) -> Vec<(Lane, u8, i16, u16)> {
        self.desk.release(self.start + Duration::from_millis(millis), false);
        let frames = self.desk.out.drain(..).map(|Leaving { frame, ear, count }| {
            ear.health.change(count);
            let (telegram, copies) = match frame.body {
                Body::Telegram(telegram) => (telegram, 1),
                Body::Copies(telegram, copies) => (telegram, copies),
                other => panic!("{other:?}"),
            };
            let Some(Rssi::Dbm(rssi)) = telegram.rssi else { panic!("{telegram:?}") };
            (frame.lane, telegram.bytes[11], rssi, copies)
        });
        frames.collect()
    }

    fn tally(&self) -> [u64; 5] {
        let (a, b) = (self.roof.health.status(), self.stairs.health.status());
        [
            a.forwarded + b.forwarded,
            a.duplicates + b.duplicates,
            a.unwanted + b.unwanted,
            a.sampled_out + b.sampled_out,
            a.damaged + b.damaged,
        ]
    }
}

/// A telegram of a meter with a number and an access number, whose status is ok or alarm.
fn telegram(id: u8, access: u8, alarm: bool) -> Vec<u8> {
    vec![14, 0x44, 0x2D, 0x2C, id, 0, 0, 0, 0x1B, 0x16, 0x7A, access, if alarm { 3 } else { 0 }, 0, 0]
}

#[tokio::test]
async fn a_telegram_heard_by_two_receivers_and_a_repeater_is_one_frame_by_the_best_of_them() {
    let mut bench = Bench::new(TelegramsSettings::default());
    let mut relayed = telegram(1, 7, false);
    relayed[1] |= 0x80;
    bench.hear("roof", (&telegram(1, 7, false), -90), 0);
    bench.hear("stairs", (&telegram(1, 7, false), -55), 20);
    bench.hear("roof", (&relayed, -40), 300);
    assert_eq!(bench.left(499), []);
    assert_eq!(bench.left(500), [(Lane::Ordinary, 7, -40, 3)]);
    bench.hear("stairs", (&relayed, -30), 5000);
    assert_eq!(bench.left(9000), []);
    assert_eq!(bench.tally(), [1, 3, 0, 0, 0]);
    let (roof, stairs) = (bench.roof.health.status(), bench.stairs.health.status());
    assert_eq!((roof.forwarded, roof.duplicates), (1, 1), "it heard two");
    assert_eq!((stairs.forwarded, stairs.duplicates), (0, 2), "and it two");
    assert_eq!(bench.desk.survey.page(None, 1).0[0].signal.best(), Some(Rssi::Dbm(-30)));
}

#[tokio::test]
async fn a_sampled_meter_stays_sampled_when_the_better_copy_comes_second_and_once_a_period() {
    let sample =
        SampleSettings { meters: vec![At::nowhere("*".to_owned())], every: At::nowhere(Duration::from_mins(15)) };
    let mut bench = Bench::new(TelegramsSettings { sample: vec![sample], ..TelegramsSettings::default() });
    for (access, millis) in [(1, 0), (2, 60_000), (3, 899_900)] {
        bench.hear("roof", (&telegram(1, access, false), -90), millis);
        bench.hear("stairs", (&telegram(1, access, false), -55), millis + 20);
    }
    assert_eq!(bench.left(900_000), []);
    assert_eq!(bench.left(900_500), [(Lane::Ordinary, 3, -55, 2)]);
    bench.desk.release(bench.start + Duration::from_hours(1), true);
    assert_eq!(bench.left(3_600_000), []);
    assert_eq!(bench.tally(), [1, 3, 0, 2, 0]);
}

#[tokio::test]
async fn an_alarm_leaves_at_once_and_one_that_stays_is_ordinary_until_the_reminder() {
    let mut bench = Bench::new(TelegramsSettings::default());
    bench.hear("roof", (&telegram(1, 1, true), -90), 0);
    assert_eq!(bench.left(0), [(Lane::Priority, 1, -90, 1)]);
    bench.hear("stairs", (&telegram(1, 1, true), -50), 10);
    bench.hear("roof", (&telegram(1, 2, true), -90), 60_000);
    assert_eq!(bench.left(60_500), [(Lane::Ordinary, 2, -90, 1)]);
    bench.hear("roof", (&telegram(2, 3, true), -90), 61_000);
    assert_eq!(bench.left(61_000), [(Lane::Priority, 3, -90, 1)], "another meter's alarm is news");
    bench.hear("roof", (&telegram(1, 4, true), -90), 86_400_000);
    assert_eq!(bench.left(86_400_000), [(Lane::Priority, 4, -90, 1)], "once a day");
    assert_eq!(bench.tally(), [4, 1, 0, 0, 0]);
}

#[tokio::test]
async fn a_switch_that_is_off_makes_nothing_urgent() {
    let settings =
        TelegramsSettings { urgent: vec![At::nowhere(Urgency::Installation)], ..TelegramsSettings::default() };
    let mut bench = Bench::new(settings);
    bench.hear("roof", (&telegram(1, 1, true), -90), 0);
    assert_eq!(bench.left(500), [(Lane::Ordinary, 1, -90, 1)]);
    let mut installing = telegram(1, 2, false);
    installing[1] = 0x46;
    bench.hear("roof", (&installing, -90), 1000);
    assert_eq!(bench.left(1000), [(Lane::Priority, 2, -90, 1)]);
}

#[tokio::test]
async fn unwanted_meters_are_counted_once_and_urgent_ones_among_the_sampled_pass() {
    let pattern = |text: &str| vec![At::nowhere(text.to_owned())];
    let every = At::nowhere(Duration::from_mins(15));
    let settings = TelegramsSettings {
        deny: pattern("KAM.00000002"),
        sample: vec![SampleSettings { meters: pattern("KAM.*"), every }],
        ..TelegramsSettings::default()
    };
    let mut bench = Bench::new(settings);
    bench.hear("roof", (&telegram(2, 1, true), -90), 0);
    bench.hear("stairs", (&telegram(2, 1, true), -90), 1);
    for minute in 0..16 {
        bench.hear("roof", (&telegram(1, u8::try_from(minute).unwrap(), false), -90), minute * 60_000);
    }
    bench.hear("roof", (&telegram(1, 99, true), -90), 920_000);
    // 1,800,000,000 s is a whole quarter of an hour.
    assert_eq!(bench.left(930_000), [(Lane::Ordinary, 14, -90, 1), (Lane::Priority, 99, -90, 1)]);
    bench.desk.release(bench.start, true);
    assert_eq!(bench.left(930_000), [(Lane::Ordinary, 15, -90, 1)], "the end of weir ends every period");
    assert_eq!(bench.tally(), [3, 1, 1, 14, 0]);
}

/// A telegram of meter 1 that its key opens when it is sealed with ones: a volume and error flags.
fn sealed(access: u8, key: u8, flags: u8) -> Vec<u8> {
    let mut body = [0x2F, 0x2F, 0x0C, 0x13, 0x27, 0x04, 0x85, 0x02, 0x02, 0xFD, 0x17, flags, 0, 0x2F, 0x2F, 0x2F];
    let head = [30, 0x44, 0x2D, 0x2C, 1, 0, 0, 0, 0x1B, 0x16, 0x7A, access, 0, 0x10, 0x05];
    let iv = [&head[2..10], &[access; 8]].concat().try_into().unwrap();
    Aes128::new(&[key; 16]).cbc_encrypt(iv, &mut body);
    [&head[..], &body].concat()
}

/// What has left: lane, and the volume of a reading or nothing of a telegram.
fn values(bench: &mut Bench, millis: u64) -> Vec<(Lane, Option<String>)> {
    bench.desk.release(bench.start + Duration::from_millis(millis), false);
    let out = bench.desk.out.drain(..).map(|Leaving { frame, ear, count }| {
        ear.health.change(count);
        let said = match frame.body {
            Body::Telegram(_) | Body::Copies(..) => None,
            Body::Decoded(decoded) => {
                assert!(decoded.meter.starts_with("KAM.0000000") && decoded.address.is_none());
                assert_eq!(decoded.values[0].obis.as_deref(), Some("8-0:1.0.0*255"));
                decoded.values[0].value.value.clone()
            }
            other => panic!("{other:?}"),
        };
        (frame.lane, said)
    });
    out.collect()
}

#[tokio::test]
async fn decoded_or_both_leave_in_their_lane_and_what_is_not_opened_leaves_as_it_is() {
    let volume = || Some("2850.427".to_owned());
    for (forward, good) in
        [(Forward::Raw, vec![None]), (Forward::Decoded, vec![volume()]), (Forward::Both, vec![None, volume()])]
    {
        let mut bench = Bench::with(TelegramsSettings::default(), forward);
        bench.hear("roof", (&sealed(1, 1, 0), -90), 0);
        bench.hear("stairs", (&sealed(1, 1, 0), -50), 10);
        let lane = |lane| good.iter().map(|said| (lane, said.clone())).collect::<Vec<_>>();
        assert_eq!(values(&mut bench, 500), lane(Lane::Ordinary), "{forward:?}");
        let mut installing = sealed(2, 1, 0);
        installing[1] = 0x48;
        bench.hear("roof", (&installing, -90), 1000);
        assert_eq!(values(&mut bench, 1000), lane(Lane::Priority), "{forward:?}");
        bench.hear("roof", (&sealed(3, 7, 0), -90), 2000);
        bench.hear("roof", (&telegram(2, 1, false), -90), 2000);
        assert_eq!(values(&mut bench, 2500), [(Lane::Ordinary, None), (Lane::Ordinary, None)], "{forward:?}");
        let (roof, stairs) = (bench.roof.health.status(), bench.stairs.health.status());
        let decodes = u64::from(forward != Forward::Raw);
        assert_eq!((roof.forwarded + stairs.forwarded, roof.decoded, stairs.decoded), (4, decodes, decodes));
        assert_eq!(roof.undecoded, 2 * decodes);
    }
}

#[tokio::test]
async fn error_flags_are_urgent_where_they_are_wanted_and_can_be_read() {
    let settings =
        || TelegramsSettings { urgent: vec![At::nowhere(Urgency::ErrorFlags)], ..TelegramsSettings::default() };
    let mut lanes = Vec::new();
    for (settings, forward) in
        [(settings(), Forward::Decoded), (settings(), Forward::Raw), (TelegramsSettings::default(), Forward::Decoded)]
    {
        let mut bench = Bench::with(settings, forward);
        for (access, flags, millis) in [(1, 0, 0), (2, 4, 1000), (3, 4, 2000), (4, 0, 3000), (5, 4, 4000)] {
            bench.hear("roof", (&sealed(access, 1, flags), -90), millis);
        }
        let left = values(&mut bench, 9000);
        lanes.push(left.iter().map(|(lane, _)| u8::from(*lane == Lane::Priority)).collect::<Vec<_>>());
    }
    assert_eq!(lanes, [[0, 1, 0, 0, 1], [0; 5], [0; 5]]);
    // The one that hears it first does not decode, another one does.
    let mut bench = Bench::with(settings(), Forward::Raw);
    let decoding = Decoding::with_keys(Forward::Both, Keys::parse(KEYS).0);
    bench.stairs = Arc::new(Ear { name: Arc::from("stairs"), health: Health::new(), decoding });
    for ear in [&bench.roof, &bench.stairs] {
        bench.desk.hear(Heard::Receiver(ear.clone()));
    }
    bench.hear("roof", (&sealed(1, 1, 4), -90), 0);
    assert_eq!(values(&mut bench, 0), [(Lane::Priority, None)]);
}

#[tokio::test]
async fn the_keys_of_every_receiver_open_what_any_of_them_hears() {
    let volume = || Some("2850.427".to_owned());
    let right = "00000001 = 01010101010101010101010101010101";
    let wrong = "00000001 = 07070707070707070707070707070707";
    for (own, other, opened) in [("", right, true), (right, wrong, true), (wrong, right, true), (wrong, "", false)] {
        let mut bench = Bench::with(TelegramsSettings::default(), Forward::Decoded);
        let ear = |name: &str, keys: &str, forward| {
            let decoding = Decoding::with_keys(forward, Keys::parse(keys).0);
            Arc::new(Ear { name: Arc::from(name), health: Health::new(), decoding })
        };
        bench.roof = ear("roof", own, Forward::Decoded);
        bench.stairs = ear("stairs", other, Forward::Raw);
        // One that was started anew counts once, with its new keys.
        for ear in [ear("stairs", wrong, Forward::Raw), bench.roof.clone(), bench.stairs.clone()] {
            bench.desk.hear(Heard::Receiver(ear));
        }
        assert_eq!(bench.desk.ears.len(), 2);
        bench.hear("roof", (&sealed(1, 1, 0), -90), 0);
        let expected = if opened { volume() } else { None };
        assert_eq!(values(&mut bench, 500), [(Lane::Ordinary, expected)], "{own} {other}");
    }
}

#[tokio::test]
async fn the_priority_bit_of_openlinkiq_is_a_switch_like_the_others() {
    for (urgent, lane) in [(TelegramsSettings::default().urgent, Lane::Priority), (vec![], Lane::Ordinary)] {
        let mut bench = Bench::new(TelegramsSettings { urgent, ..TelegramsSettings::default() });
        for number in 0..3u8 {
            let meter = Meter { manufacturer: 0x2C2D, id: 1, version: 0x1B, device: 0x16 };
            let frame = crate::wire::mbal::Mbal { control: 1, meter, command: 0x40, mbus: &[0x78, number] };
            let mut bytes = Vec::new();
            crate::wire::mbal::encode(&frame, &mut bytes).unwrap();
            let kind = TelegramKind::OpenlinkIq;
            let reception = Reception { kind, bytes, rssi: None, corrected_bits: 0, time: None };
            let stamp = Stamp::synced(Timestamp::from_millis(0));
            bench.desk.take(reception, bench.start, stamp, bench.roof.clone());
        }
        bench.desk.release(bench.start + Duration::from_secs(1), false);
        let lanes: Vec<_> = bench.desk.out.drain(..).map(|leaving| leaving.frame.lane).collect();
        assert_eq!(lanes, [lane; 3], "each frame with the bit is an event");
    }
}

#[tokio::test]
async fn fragments_are_joined_although_each_waits_and_a_sampled_meter_loses_none() {
    let every = At::nowhere(Duration::from_mins(15));
    let sample = SampleSettings { meters: vec![At::nowhere("*".to_owned())], every };
    let mut bench =
        Bench::with(TelegramsSettings { sample: vec![sample], ..TelegramsSettings::default() }, Forward::Decoded);
    let piece = |number: u8, more: u8, bytes: &[u8]| {
        let length = u8::try_from(9 + 4 + bytes.len()).unwrap();
        [&[length, 0x44, 0x2D, 0x2C, 3, 0, 0, 0, 0x1B, 0x16, 0x90, 2, number, more], bytes].concat()
    };
    bench.hear("roof", (&piece(1, 0x40, &[0x78, 0x0C, 0x13]), -90), 0);
    bench.hear("roof", (&piece(2, 0, &[0x27, 0x04, 0x85, 0x02]), -90), 10);
    assert_eq!(values(&mut bench, 600), [(Lane::Ordinary, None), (Lane::Ordinary, Some("2850.427".to_owned()))]);
    bench.hear("roof", (&sealed(4, 1, 0), -90), 1000);
    assert_eq!(
        values(&mut bench, 900_500),
        [(Lane::Ordinary, Some("2850.427".to_owned()))],
        "a sampled one is opened too"
    );
}

#[test]
fn the_receivers_own_time_counts_while_it_is_near_the_clock_and_in_no_other_time_zone() {
    let clock = Timestamp::from_millis(1_800_000_000_000);
    let stamp = Stamp { uptime: 1_000_000, ..Stamp::synced(clock) };
    let (near, zone) = (600_000, 900_000 - 1000);
    for (offset, kept) in [(0, true), (near, true), (-near, true), (zone, false), (-zone, false)] {
        let own = Timestamp::from_millis(clock.as_millis() + offset);
        let kind = TelegramKind::WirelessMbus;
        let reception = Reception { kind, bytes: Vec::new(), rssi: None, corrected_bits: 0, time: Some(own) };
        let expected = Stamp { wall: own, uptime: 1_000_000u64.saturating_add_signed(offset), ..stamp };
        assert_eq!(time(&reception, stamp), if kept { expected } else { stamp }, "{offset}");
        let unsynced = Stamp { clock: ClockState::Unsynced, ..stamp };
        assert_eq!(time(&reception, unsynced), unsynced);
        assert_eq!(time(&Reception { time: None, ..reception }, stamp), stamp);
    }
}
