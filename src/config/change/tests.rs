//! Power cuts at every step, and what becomes of trials.

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::book::{Book, Origin, Outcome, Proposal};
use super::history::{Step, file_of, hash, steps, take};
use super::{History, Refusal, effective, masked, prepare, spoken};
use crate::model::{BootId, ClockState, Stamp, Timestamp};

const FIRST: &str = "[broker]\nurl = \"ssl://a:1\"\n";

fn at(boot: u8, seconds: u64) -> Stamp {
    let wall = Timestamp::from_millis(1_790_000_000_000 + i64::try_from(seconds).unwrap() * 1000);
    Stamp { wall, boot: BootId::new([boot; 8]), uptime: seconds * 1000, clock: ClockState::Synced }
}

fn proposal(text: &str) -> Proposal {
    let (who, why, limit) = (Origin::mqtt("gw/AT"), "because".to_owned(), Some(Duration::from_secs(60)));
    Proposal { who, why, hash: hash(text), limit, ports: Vec::new(), base: None }
}

fn open(store: &Path) -> History {
    History::open(store, FIRST, &at(1, 0)).unwrap().0
}

fn text(n: usize) -> String {
    format!("[broker]\nurl = \"ssl://a:{}\"\n", n + 1)
}

#[test]
fn a_full_disk_neither_holds_a_trial_up_nor_loses_what_became_of_it() {
    let store = tempfile::tempdir().unwrap();
    let mut history = open(store.path());
    let number = history.propose(&text(1), proposal(&text(1)), None, &at(1, 0)).unwrap();
    // Nothing can be written beside the book, as when the disk is full.
    let obstacle = store.path().join("config/book.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(history.begin(&at(1, 1)).unwrap().is_none(), "the start is no fault");
    assert_eq!(history.go_back("no broker").unwrap().map(|(number, _)| number), Some(number));
    assert!(history.is_unwritten() && !history.write_again());
    assert_eq!(history.text(history.book().current()).unwrap(), FIRST);
    assert!(matches!(history.propose(&text(2), proposal(&text(2)), None, &at(1, 2)), Err(Refusal::Disk { .. })));
    fs::remove_dir(&obstacle).unwrap();
    assert!(history.write_again());
    drop(history);
    let history = open(store.path());
    assert!(matches!(&history.book().entry(number).unwrap().outcome, Outcome::WentBack(why) if why == "no broker"));
}

#[test]
fn a_power_cut_at_each_step_leaves_the_old_or_the_new_configuration() {
    let new = "[broker]\nurl = \"ssl://b:1\"\n";
    let store = tempfile::tempdir().unwrap();
    let folder = store.path().join("config");
    drop(open(store.path()));
    let before = open(store.path()).book().clone();
    let mut after = before.clone();
    after.propose(proposal(new), &at(1, 5));
    let all = steps(&after, Some((2, new)), &["1.toml".into(), "77.toml".into()]).unwrap();
    let names: Vec<_> = all
        .iter()
        .map(|step| match step {
            Step::Write(name, _) => format!("write {name}"),
            Step::Remove(name) => format!("remove {name}"),
        })
        .collect();
    assert_eq!(names, ["write 2.toml", "write book", "remove 77.toml"]);
    for done in 0..=all.len() {
        for torn in [false, true] {
            let store = tempfile::tempdir().unwrap();
            let place = store.path().join("config");
            fs::create_dir(&place).unwrap();
            for file in ["book", "1.toml"] {
                fs::copy(folder.join(file), place.join(file)).unwrap();
            }
            fs::write(place.join("77.toml"), "left over").unwrap();
            all[..done].iter().for_each(|step| take(&place, step).unwrap());
            // What write_atomic leaves when it is cut: half of the file beside it.
            if let (true, Some(Step::Write(name, content))) = (torn, all.get(done)) {
                fs::write(place.join(format!("{name}.new")), &content[..content.len() / 2]).unwrap();
            }
            let history = open(store.path());
            let (number, says) = (history.book().current(), history.text(history.book().current()).unwrap());
            match done {
                0 | 1 => assert_eq!((number, says.as_str()), (1, FIRST), "{done}"),
                _ => assert_eq!((number, says.as_str()), (2, new), "{done}"),
            }
            // And it goes on from there.
            let mut history = history;
            history.go_back("enough").unwrap();
            assert_eq!(history.propose("x", proposal("x"), None, &at(1, 9)).unwrap(), number + 1);
        }
    }
}

#[test]
fn a_trial_has_its_time_over_crashes_and_its_starts_over_boots() {
    let mut book = Book::first(hash(FIRST), &at(1, 0));
    book.reach(1);
    book.propose(proposal("x"), &at(1, 0));
    assert!(book.trial().unwrap().broker, "the broker was reached before");
    // Its time begins with its first start.
    assert_eq!(book.begin(&at(1, 100)), None);
    assert_eq!(book.trial().unwrap().left(&at(1, 130)), Duration::from_secs(30));
    // A crash costs no time and gives none.
    assert_eq!(book.begin(&at(1, 140)), None);
    assert_eq!(book.trial().unwrap().left(&at(1, 150)), Duration::from_secs(10));
    // Nobody knows how long a gateway was without power: it begins anew, but only so often.
    assert_eq!(book.begin(&at(2, 3)), None);
    assert_eq!(book.trial().unwrap().left(&at(2, 13)), Duration::from_secs(50));
    assert_eq!(book.current(), 2);
    let (number, why) = book.begin(&at(3, 3)).unwrap();
    assert!(number == 2 && why.contains("3 times"), "{why}");
    assert_eq!((book.current(), book.active()), (1, 1));
    book.propose(proposal("y"), &at(3, 10));
    assert_eq!(book.begin(&at(3, 20)), None);
    assert!(book.begin(&at(3, 81)).unwrap().1.contains("ran out"));
}

#[test]
fn ten_are_remembered_and_the_accepted_one_in_any_case() {
    let store = tempfile::tempdir().unwrap();
    let mut history = open(store.path());
    for n in 0..14 {
        history.propose(&text(n), proposal(&text(n)), None, &at(1, 1)).unwrap();
        history.go_back("no").unwrap();
    }
    let numbers: Vec<_> = history.book().entries().iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(history.text(1).unwrap(), FIRST);
    assert_eq!(history.text(15).unwrap(), text(13));
    assert!(matches!(history.text(3), Err(Refusal::Unknown { number: 3, .. })));
    let mut files: Vec<_> = fs::read_dir(store.path().join("config"))
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files.len(), 12, "{files:?}");
    assert!(files.contains(&file_of(1)) && !files.contains(&file_of(6)));
}

#[test]
fn one_change_at_a_time_and_who_holds_it_holds_it_alone() {
    let store = tempfile::tempdir().unwrap();
    let mut history = open(store.path());
    history.propose(&text(1), proposal(&text(1)), None, &at(1, 1)).unwrap();
    let refused = history.propose(&text(2), proposal(&text(2)), None, &at(1, 1)).unwrap_err();
    assert!(refused.to_string().contains("configuration 2 is on trial for another 1 min"), "{refused}");
    assert!(matches!(History::open(store.path(), FIRST, &at(1, 1)), Err(Refusal::Held)));
    let mut looker = History::look(store.path(), FIRST, &at(1, 1)).unwrap();
    assert_eq!(looker.book().current(), 2);
    assert!(matches!(looker.go_back("no"), Err(Refusal::Held)));
    // A person's edit of the base file comes first.
    history.propose(&text(3), proposal(&text(3)), Some("edited"), &at(1, 1)).unwrap();
    assert_eq!(history.book().entry(2).unwrap().outcome, Outcome::WentBack("edited".into()));
}

#[test]
fn a_damaged_book_or_text_costs_the_changes_and_nothing_else() {
    let store = tempfile::tempdir().unwrap();
    let mut history = open(store.path());
    history.propose(&text(1), proposal(&text(1)), None, &at(1, 1)).unwrap();
    history.confirm("yes").unwrap();
    assert_eq!(effective(store.path(), FIRST), Some(text(1)));
    assert_eq!(effective(store.path(), &text(5)), None, "another base file counts by itself");
    fs::write(store.path().join("config/2.toml"), "[broker]").unwrap();
    assert!(matches!(history.text(2), Err(Refusal::Disk { .. })));
    assert_eq!(effective(store.path(), FIRST), None);
    history.begin_anew(FIRST).unwrap();
    assert_eq!(history.text(history.book().current()).unwrap(), FIRST);
    drop(history);
    fs::write(store.path().join("config/book"), "{\"format\":1").unwrap();
    let history = open(store.path());
    assert_eq!((history.book().current(), history.text(1).unwrap().as_str()), (1, FIRST));
    assert!(store.path().join("config/book.damaged").exists());
}

#[test]
fn what_would_make_another_gateway_is_refused_unless_the_file_says_so() {
    let with = |rest: &str| format!("{rest}\n{FIRST}");
    let (mqtt, file) = (Origin::mqtt("t"), Origin::file());
    for (key, rest) in [("store.path", "[store]\npath = \"/x\""), ("gateway.id", "[gateway]\nid = \"other\"")] {
        let refused = prepare(FIRST, &with(rest), &mqtt).unwrap_err();
        assert!(refused.to_string().starts_with(key), "{refused}");
    }
    assert!(prepare(FIRST, &with("[gateway]\nid = \"other\""), &file).is_ok());
    assert!(prepare(FIRST, &with("[store]\npath = \"/x\""), &file).is_err());
    assert!(matches!(prepare(FIRST, FIRST, &mqtt), Err(Refusal::Same)));
    let wrong = prepare(FIRST, "[broker]\nurl = \"http://x\"\nfoo = 1\n", &mqtt).unwrap_err().to_string();
    assert!(wrong.contains("ssl://") && wrong.contains("foo"), "all mistakes: {wrong}");
    let port = "[[port]]\nname = \"p\"\ndevice = \"/dev/x\"\n[[meter]]\nname = \"m\"\nport = \"p\"\nprotocol = \"modbus-rtu\"\nprofile = \"eastron-sdm630\"\n";
    let (old, new) = (with("") + port, with("") + &port.replace("device", "baud = 300\ndevice"));
    assert_eq!(prepare(&old, &new, &mqtt).unwrap().ports, ["p"]);
    assert_eq!(prepare(&old, &old.replace("ssl://a:1", "ssl://b:1"), &mqtt).unwrap().ports, [""; 0]);
}

#[test]
fn what_is_masked_and_how_long_things_take_is_told_for_people() {
    let text =
        "username = \"meters\" # x\nurl = \"ssl://u:p@h:1\"\nallow = [\"+34666123456\"]\npassword_file = \"/etc/p\"\n";
    let told =
        "username = \"***\" # x\nurl = \"ssl://***@h:1\"\nallow = [\"+34*******56\"]\npassword_file = \"/etc/p\"\n";
    assert_eq!(masked(text), told);
    assert_eq!(Origin::sms("+34666123456").to_string(), "sms:+34*******56");
    assert_eq!(Origin::sms("123").to_string(), "sms:***");
    let said: Vec<_> = [9, 60, 580, 7200, 7265].map(|s| spoken(Duration::from_secs(s))).into();
    assert_eq!(said, ["9 s", "1 min", "9 min 40 s", "2 h", "2 h 1 min"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_happens_there_is_one_configuration_and_no_trial_lasts_for_ever(
        acts in prop::collection::vec((0u8..6, 0u64..50, any::<bool>()), 1..25),
    ) {
        let store = tempfile::tempdir().unwrap();
        let mut history = open(store.path());
        let (mut boot, mut clock) = (1, 0);
        // The model: what must run, and what it goes back to.
        let (mut accepted, mut trial): (String, Option<(String, u32)>) = (FIRST.to_owned(), None);
        for (n, (act, pause, reboot)) in acts.into_iter().enumerate() {
            clock += pause;
            match act {
                0 | 1 => {
                    let taken = history.propose(&text(n), proposal(&text(n)), None, &at(boot, clock));
                    prop_assert_eq!(taken.is_ok(), trial.is_none());
                    if trial.is_none() {
                        trial = Some((text(n), 0));
                    }
                }
                2 => {
                    history.confirm("yes").unwrap();
                    accepted = trial.take().map_or(accepted, |(text, _)| text);
                }
                3 => {
                    history.go_back("no").unwrap();
                    trial = None;
                }
                _ => {
                    if reboot {
                        (boot, clock) = (boot + 1, 0);
                    }
                    drop(history);
                    history = open(store.path());
                    let ended = history.begin(&at(boot, clock)).unwrap();
                    match &mut trial {
                        Some((_, starts)) if *starts >= 3 => prop_assert!(ended.is_some()),
                        Some((_, starts)) => *starts += 1,
                        None => prop_assert!(ended.is_none()),
                    }
                    if ended.is_some() {
                        trial = None;
                    }
                }
            }
            let running = history.text(history.book().current()).unwrap();
            prop_assert_eq!(&running, trial.as_ref().map_or(&accepted, |(text, _)| text));
        }
    }
}
