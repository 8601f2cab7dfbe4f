//! A profile is read back over an outage, each interval once.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir::meter::gaps::{Failure, Gaps, Now, State};
use weir::meter::{MeterSettings, protocol};
use weir::model::Timestamp;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};

use crate::peers::{self, Peer};

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_meter_is_made_up_for_and_each_interval_comes_once() {
    crate::pace::hold();
    let port = peers::free_port().to_string();
    let start = || Peer::python("dlms_meter.py", &["--wrapper", &port], "ready");
    let settings = MeterSettings::parse(
        "name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\ntimeout = \"5s\"\ndlms.link = \"wrapper\"\n\
         load_profile = { id = \"1-0:99.1.0*255\", history = \"3d\", budget = \"50m\" }",
    );
    let settings = settings.unwrap();
    let mut session = protocol("dlms").unwrap().session(&settings).unwrap();
    let mut gaps = Gaps::new(settings.load_profile.as_ref().unwrap(), State::default());
    let endpoint = Endpoint::parse(&format!("tcp://127.0.0.1:{port}"));
    let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
    // The meter's last interval ended on 2026-01-03T01:45.
    let wall = Timestamp::parse("2026-01-03T06:00:00Z").unwrap();
    let (mut at, mut peer, mut line) = (Instant::now(), Some(start()), None);
    let (mut found, mut pieces, mut failures) = (BTreeMap::<Timestamp, Vec<String>>::new(), 0, 0);
    while found.len() < 200 {
        let now = Now { wall, trusted: true, at };
        let Some(piece) = gaps.next(&now, Duration::MAX) else {
            at += gaps.idle(&now).max(Duration::from_secs(1));
            continue;
        };
        pieces += 1;
        assert!(pieces < 300, "{} intervals of 200", found.len());
        if found.len() > 20 && failures == 0 {
            drop(peer.take());
        }
        if line.is_none() {
            line = Line::open(&endpoint, speed, Direction::Automatic).await.ok();
        }
        let read = match &mut line {
            Some(line) => session.profile().unwrap().read(line, piece.after, piece.until).await.ok(),
            None => None,
        };
        let took = Duration::from_secs(1);
        match read {
            Some(intervals) => {
                for interval in gaps.delivered(intervals, took, &now) {
                    found.entry(interval.end).or_default().push(interval.values[0].value.clone().unwrap());
                }
            }
            None => {
                (line, failures) = (None, failures + 1);
                gaps.failed(Failure::Silent, took, &now);
                if failures == 3 {
                    peer = Some(start());
                }
            }
        }
    }
    assert!(failures >= 3 && peer.is_some(), "{failures}");
    let first = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
    for n in 0..200u32 {
        let end = first.plus(Duration::from_secs(900) * n);
        let raw = 1_000_000 + 25 * n;
        assert_eq!(found.get(&end), Some(&vec![format!("{}.{}", raw / 10, raw % 10)]), "{end}");
    }
}
