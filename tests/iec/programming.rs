//! Programming mode with our simulated meter and its faults.

use std::time::Duration;

use weir::meter::MeterSettings;
use weir::meter::iec62056::programming::{Answer, Programming};
use weir::model::{Quality, Timestamp};
use weir::os::line::{Tap, What};
use weir::sim::iec_meter::{Faults, Options, State};
use weir::wire::iec62056::Parity;

use crate::plumbing::{Reader, configured, ended, password_file, text};
use crate::scripted::{Exchange, Fault, Scripted, block, command};
use crate::{meter, with};

fn single(more: &str) -> MeterSettings {
    configured(&format!("access = \"programming\"\nvalues = [\"0.0.0\", \"9.9.9\", \"2.8.0\", \"1.6.1\"]\n{more}"))
}

#[tokio::test(start_paused = true)]
async fn values_are_read_one_by_one_and_the_session_ends_with_a_break() {
    crate::pace::hold();
    for parity in [Parity::Even, Parity::Absent] {
        let (path, control) = meter(Options { parity, guarded: true, real_time: true, ..Options::default() });
        let (_directory, file) = password_file("00000000");
        let mut reader = Reader::open(&path, &single(&format!("password_file = \"{file}\""))).await;
        let values = reader.read().await.unwrap();
        let names: Vec<_> = values.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["0.0.0", "9.9.9", "2.8.0", "1.6.1", "1.6.1#2"]);
        assert_eq!((text(&values, "0.0.0"), text(&values, "2.8.0")), ("12345678", "000000.000"));
        assert_eq!((values[1].quality, values[2].unit.as_str()), (Quality::Refused, "kWh"));
        let state = ended(&control).await;
        assert_eq!((state.sessions, state.breaks, state.commands, state.wrong_rates), (1, 1, 4, 0));
        assert!(state.written.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_password_a_guarded_meter_refuses_every_value() {
    crate::pace::hold();
    let (path, control) = meter(Options { guarded: true, ..Options::default() });
    let mut reader = Reader::open(&path, &single("")).await;
    let values = reader.read().await.unwrap();
    assert!(values.len() == 4 && values.iter().all(|v| v.quality == Quality::Refused && v.value.is_none()));
    let now = ended(&control).await;
    assert_eq!((now.passwords, now.breaks), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_password_is_sent_once_until_its_file_changes() {
    crate::pace::hold();
    let (path, control) = meter(Options::default());
    let (directory, file) = password_file("11111111");
    let mut reader = Reader::open(&path, &single(&format!("password_file = \"{file}\""))).await;
    for _ in 0..3 {
        let error = reader.read().await.unwrap_err();
        assert_eq!(error.quality(), Quality::Refused);
        assert!(!error.to_string().contains("11111111"), "{error}");
    }
    let now = ended(&control).await;
    assert_eq!((now.passwords, now.breaks), (1, 1), "three would lock a meter");
    // Who traces the line sees that a password goes out, and not which.
    let tap = Tap::new();
    reader.line.put_tap(&tap);
    let mut listener = tap.listen();
    std::fs::write(directory.path().join("password"), "22222222").unwrap();
    reader.read().await.unwrap_err();
    // A line that is closed takes what the meter has not read yet with it.
    ended(&control).await;
    drop((reader.line, tap));
    let mut seen = Vec::new();
    while let Some(event) = listener.next().await {
        if let What::Sent(bytes) | What::Received(bytes) = event.what {
            seen.extend(bytes.iter().map(|b| b & 0x7F));
        }
    }
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains("********") && !seen.contains("2222"), "{seen}");
    let mut reader = Reader::open(&path, &single(&format!("password_file = \"{file}\""))).await;
    std::fs::write(directory.path().join("password"), "00000000").unwrap();
    assert_eq!(reader.read().await.unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn damaged_answers_are_repeated_doubled_ones_left_aside_lost_ones_asked_for_anew() {
    crate::pace::hold();
    for faults in [
        Faults { bad_checksums: 2, ..Faults::default() },
        Faults { doubled_answers: 3, ..Faults::default() },
        Faults { lost_answers: 1, ..Faults::default() },
        Faults { echo: true, junk: true, bad_checksums: 1, ..Faults::default() },
    ] {
        let (path, control) = with(faults.clone());
        let mut reader = Reader::open(&path, &single("")).await;
        let values = reader.read().await.unwrap();
        assert_eq!((text(&values, "0.0.0"), text(&values, "1.6.1#2")), ("12345678", "2601121545"), "{faults:?}");
        let state = ended(&control).await;
        assert_eq!(state.sessions, state.breaks, "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_dropped_is_ended_before_the_next_sign_on() {
    crate::pace::hold();
    // It has only just begun, or goes on already.
    for reached in [|state: &State| state.sessions > 0, |state: &State| state.commands > 0] {
        let (path, control) = meter(Options::default());
        let mut reader = Reader::open(&path, &single("")).await;
        tokio::select! {
            read = reader.read() => panic!("it is amid a session: {read:?}"),
            () = async { while !reached(&control.state()) { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
        }
        assert_eq!(reader.read().await.unwrap().len(), 5);
        let state = ended(&control).await;
        assert_eq!((state.sessions, state.breaks, state.timeouts), (2, 2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_arrives_whole_and_only_with_the_password() {
    crate::pace::hold();
    let (path, control) = meter(Options::default());
    let (_directory, file) = password_file("00000000");
    let settings = configured(&format!("password_file = \"{file}\""));
    let mut line = Reader::open(&path, &settings).await.line;
    let mut session = Programming::open(&mut line, &settings).await.unwrap();
    assert_eq!(session.identification().manufacturer, "WEI");
    assert_eq!(session.write('1', "0.9.1", "120000").await.unwrap(), Answer::Done);
    assert_eq!(session.write_parts('3', "C.2", "0123456789", 4).await.unwrap(), Answer::Done);
    assert_eq!(session.execute("5", "").await.unwrap(), Answer::Done);
    assert_eq!(session.read('1', "0.0.0", "").await.unwrap(), Answer::Data(b"0.0.0(12345678)".to_vec()));
    assert_eq!(session.read('1', "7.7.7", "").await.unwrap(), Answer::Refused("ER01".to_owned()));
    session.end().await;
    let state = ended(&control).await;
    assert_eq!(state.written, ["0.9.1(120000)", "C.2(0123456789)", "5()"]);
    assert_eq!((state.breaks, state.timeouts), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_command_after_the_meter_s_own_timeout_is_not_sent() {
    crate::pace::hold();
    let (path, control) = meter(Options { session_timeout: Duration::from_millis(800), ..Options::default() });
    let settings = configured("session_timeout = \"600ms\"");
    let mut line = Reader::open(&path, &settings).await.line;
    let mut session = Programming::open(&mut line, &settings).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(session.read('1', "0.0.0", "").await.is_err());
    let now = ended(&control).await;
    assert_eq!((now.commands, now.timeouts), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_load_profile_is_the_same_in_one_block_and_in_parts_whatever_happens_on_the_way() {
    crate::pace::hold();
    let now = weir::os::clock::now();
    let quarter = 900_000;
    let until = Timestamp::from_millis(now.as_millis() / quarter * quarter - quarter * 8);
    let after = Timestamp::from_millis(until.as_millis() - quarter * 110);
    let read = |faults: Faults, more: &'static str| async move {
        let (path, control) = with(faults);
        let settings = configured(&format!("load_profile = {{ id = \"P.01\"{more} }}"));
        let mut reader = Reader::open(&path, &settings).await;
        let intervals = reader.profile(after, until).await.unwrap();
        let now = ended(&control).await;
        assert_eq!(now.sessions, now.breaks);
        intervals
    };
    let whole = read(Faults::default(), "").await;
    assert_eq!(whole.len(), 110);
    for (number, interval) in (1..).zip(&whole) {
        let end = after.as_millis() + quarter * number;
        assert_eq!(interval.end.as_millis(), end);
        let count = end / quarter;
        let expected = [format!("{:02}.{:03}", count % 60, count % 1000), format!("0.{:02}", count % 100)];
        let values: Vec<_> = interval.values.iter().map(|v| v.value.clone().unwrap()).collect();
        assert_eq!(values, expected);
        let status = if (12..16).contains(&(end / quarter % 96)) { "08" } else { "00" };
        assert_eq!((interval.status.as_str(), interval.profile.as_str()), (status, "P.01"));
    }
    let six = ", command = \"R6\", records = 30";
    let (a, b, c, d) = tokio::join!(
        read(Faults::default(), six),
        read(Faults { bad_checksums: 2, ..Faults::default() }, six),
        read(Faults { doubled_answers: 9, ..Faults::default() }, six),
        read(Faults { lost_answers: 1, echo: true, ..Faults::default() }, six),
    );
    for parts in [a, b, c, d] {
        assert_eq!(parts, whole);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_log_gives_an_event_for_each_entry() {
    crate::pace::hold();
    let (path, _control) = meter(Options::default());
    let settings = configured("load_profile = { id = \"P.98\", period = \"0s\" }");
    let day = 86_400_000;
    let until = Timestamp::from_millis(weir::os::clock::now().as_millis() / day * day);
    let after = Timestamp::from_millis(until.as_millis() - 3 * day);
    let mut reader = Reader::open(&path, &settings).await;
    let events = reader.profile(after, until).await.unwrap();
    let ends: Vec<_> = events.iter().map(|e| (e.end.as_millis() - after.as_millis()) / day).collect();
    assert_eq!(ends, [1, 2, 3]);
    assert!(events.iter().all(|e| e.period == 0 && e.status == "00002000" && e.values.is_empty()));
}

/// A meter that opens programming mode and answers a password and one command like this.
fn answering(password: Vec<u8>, id: &str, answers: Vec<Vec<u8>>) -> Vec<Exchange> {
    vec![
        (b"/?!\r\n".to_vec(), vec![b"/TST5SIM\r\n".to_vec()]),
        (b"\x06001\r\n".to_vec(), vec![command("P0\x02()")]),
        (command("P1\x02(00000000)"), vec![password]),
        (command(&format!("R1\x02{id}()")), answers),
    ]
}

fn passwords(meter: &Scripted) -> usize {
    let said: Vec<u8> = meter.heard.bytes().into_iter().flat_map(|(_, bytes)| bytes).collect();
    said.windows(3).filter(|three| three == b"\x01P1").count()
}

#[tokio::test(start_paused = true)]
async fn a_password_that_gets_no_clear_answer_is_not_sent_again_in_the_same_reading() {
    let (_directory, file) = password_file("00000000");
    let settings =
        configured(&format!("access = \"programming\"\nvalues = [\"1.8.0\"]\nretries = 3\npassword_file = \"{file}\""));
    let table = |answer: &[u8]| answering(answer.to_vec(), "1.8.0", vec![block("1.8.0(1)", 3)]);
    // Its answer, the third of the dialogue, is lost.
    let mut meter = Scripted::start(&settings, table(&[6]), Parity::Even, 2, Fault::Short(0)).await;
    assert_eq!(meter.read().await.unwrap_err().quality(), Quality::NoAnswer);
    assert_eq!(passwords(&meter), 1, "three wrong ones would lock a meter, and one may have been wrong");
    assert_eq!(text(&meter.read().await.unwrap(), "1.8.0"), "1", "the next reading may try");
    // A break is a refusal: it is not sent again until its file changes.
    let mut meter = Scripted::start(&settings, table(&command("B0")), Parity::Even, 0, Fault::None).await;
    for _ in 0..2 {
        assert_eq!(meter.read().await.unwrap_err().quality(), Quality::Refused);
        assert_eq!(passwords(&meter), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_empty_parts_or_without_end_is_given_up() {
    let settings = configured("access = \"programming\"\nvalues = [\"1.8.0\"]\nread_command = \"R1\"\nretries = 2");
    let first = block("1.8.0(1)", 4);
    for (parts, reason, limit) in [
        (vec![block("", 4)], "a partial block is empty", 60),
        (vec![first.clone(), block("", 4), block("(2)", 3)], "a partial block is empty", 60),
        (std::iter::once(first).chain(vec![block(&"(1)".repeat(700), 4); 200]).collect(), "longer than 256 KiB", 600),
    ] {
        let mut meter =
            Scripted::start(&settings, answering(vec![6], "1.8.0", parts), Parity::Even, 0, Fault::None).await;
        let begun = tokio::time::Instant::now();
        let error = meter.read().await.unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(limit), "{reason}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_serial_number_guards_single_values_and_profiles_too() {
    crate::pace::hold();
    let profile = "load_profile = { id = \"P.01\" }";
    let now = weir::os::clock::now();
    let after = Timestamp::from_millis(now.as_millis() - 7_200_000);
    let own = single("serial = \"0012345678\"");
    let (path, control) = meter(Options::default());
    let mut reader = Reader::open(&path, &own).await;
    assert_eq!(reader.read().await.unwrap().len(), 5);
    // Four values, C.1.0 (refused) and 0.0.0; the second time it is known where the number stands.
    assert_eq!(ended(&control).await.commands, 6);
    assert_eq!(reader.read().await.unwrap().len(), 5);
    assert_eq!(ended(&control).await.commands, 6 + 5);
    drop(reader);
    let mut reader = Reader::open(&path, &configured(&format!("serial = \"12345678\"\n{profile}"))).await;
    assert!(reader.profile(after, now).await.unwrap().len() >= 7);
    drop(reader);
    // Another meter answers: nothing of it is believed, and nothing else is asked of it.
    let before = ended(&control).await.commands;
    let other = single("serial = \"87654321\"");
    let mut reader = Reader::open(&path, &other).await;
    let error = reader.read().await.unwrap_err();
    assert!(error.to_string().contains("another meter answered"), "{error}");
    ended(&control).await;
    drop(reader);
    let mut reader = Reader::open(&path, &configured(&format!("serial = \"87654321\"\n{profile}"))).await;
    let error = reader.profile(after, now).await.unwrap_err();
    assert!(error.to_string().contains("another meter answered"), "{error}");
    assert_eq!(ended(&control).await.commands, before + 2 * 4);
}

#[tokio::test(start_paused = true)]
async fn an_identification_that_has_the_serial_number_needs_no_further_question() {
    crate::pace::hold();
    let mut identification = crate::identification('5');
    identification.model = "SIM-0087654321.2".to_owned();
    let (path, control) = meter(Options { identification, ..Options::default() });
    let mut reader = Reader::open(&path, &single("serial = \"87654321\"")).await;
    assert_eq!(reader.read().await.unwrap().len(), 5);
    assert_eq!(ended(&control).await.commands, 4);
}
