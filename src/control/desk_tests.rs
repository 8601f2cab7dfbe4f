use std::time::Duration;

use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::time::advance;

use super::*;
use crate::model::{ClockState, Timestamp};
use crate::setting::{At, SecretFile, Setting, Topic};

fn gateway() -> Identity {
    Identity { id: "gw1".into(), imei: Some("3569".into()) }
}

fn settings() -> ControlSettings {
    let mut settings = ControlSettings::stand_in().unwrap();
    let topics = ["{imei}/AT", "fleet/AT"].map(|topic| Topic::parse(topic).unwrap());
    settings.at_topics = At::nowhere(topics.to_vec());
    settings.sms.allow = At::nowhere(vec!["+34666123456".into()]);
    settings
}

fn grant(who: &str, rights: &[Right], signed: bool) -> super::super::Grant {
    let (who, rights) = (At::nowhere(who.to_owned()), At::nowhere(rights.to_vec()));
    super::super::Grant { who, rights, signed, unlock: false }
}

fn now() -> Stamp {
    Stamp::synced(Timestamp::parse("2026-11-22T15:00:00Z").unwrap())
}

fn fleet() -> Origin {
    Origin::Topic("fleet/AT".into())
}

fn ask(desk: &mut Desk, text: &str, origin: &Origin) -> Verdict {
    desk.judge(text.as_bytes(), origin, &now(), false)
}

fn reply(verdict: Verdict) -> String {
    match verdict {
        Verdict::Refused { reply: Some(reply), .. } | Verdict::Answered { reply } => reply,
        other => panic!("{other:?}"),
    }
}

fn command(verdict: Verdict) -> Command {
    match verdict {
        Verdict::Do(errand) => errand.command,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_from_a_known_topic_is_to_be_done_and_a_stranger_hears_nothing() {
    let mut desk = Desk::new(&settings(), &gateway());
    assert_eq!(command(ask(&mut desk, "at^mtxtunnel=version\r\n", &Origin::Topic("3569/AT".into()))), Command::Version);
    let stranger = ask(&mut desk, "AT", &Origin::Phone("+34600000000".into()));
    assert!(matches!(stranger, Verdict::Refused { reply: None, .. }), "{stranger:?}");
    assert_eq!(
        command(ask(&mut desk, "AT+CSQ", &Origin::Phone("+34666123456".into()))),
        Command::Modem("AT+CSQ".into())
    );
}

#[tokio::test(start_paused = true)]
async fn strangers_neither_fill_the_audit_nor_take_the_room_of_others() {
    let mut desk = Desk::new(&settings(), &gateway());
    let stranger = |number: u32| Origin::Phone(format!("+3460{number:07}"));
    let refused = |desk: &mut Desk, numbers: std::ops::Range<u32>| {
        numbers.filter(|number| matches!(ask(desk, "AT", &stranger(*number)), Verdict::Refused { .. })).count()
    };
    let per_minute = settings().per_minute.value();
    let all = "of the first is told, and that more came, however many numbers they have";
    assert_eq!(refused(&mut desk, 0..1000), per_minute as usize + 1, "{all}");
    assert_eq!(command(ask(&mut desk, "AT", &Origin::Phone("+34666123456".into()))), Command::Ping);
    advance(Duration::from_mins(1)).await;
    assert_eq!(refused(&mut desk, 1000..2000), per_minute as usize + 1);
}

#[test]
fn a_mistake_gets_one_sentence_and_its_id_back() {
    let mut desk = Desk::new(&settings(), &gateway());
    let said = reply(ask(&mut desk, "#a1 AT^MTXTUNNEL=SETBAUDRATE,0,fast", &fleet()));
    assert_eq!(
        said,
        "#a1 AT^MTXTUNNEL=SETBAUDRATE,0,fast ERROR: write it as AT^MTXTUNNEL=SETBAUDRATE,PORT,SPEED[,FRAMING]"
    );
    assert!(reply(ask(&mut desk, "AT^MTXTUNNEL=NONSENSE,1", &fleet())).contains("HELP lists them"));
    assert!(reply(ask(&mut desk, "hello", &fleet())).contains("no AT command"));
    assert!(reply(ask(&mut desk, "{\"at\":1}", &fleet())).contains("\"ok\":false"));
}

#[test]
fn what_is_private_is_neither_echoed_nor_kept() {
    let mut desk = Desk::new(&settings(), &gateway());
    for text in [
        "AT^MTXTUNNEL=SETPARAM,MQTT_password,hunter2",
        "AT^MTXTUNNEL=SETPARAMS,{\"MQTT_password\":\"hunter2\"}",
        "AT^MTXTUNNEL=SMS,+34666123456,hunter2",
        "AT^MTXTUNNEL=RS232,0,hunter2",
        "AT^MTXTUNNEL=CERT,key,-----BEGIN hunter2",
        "AT^MTXTUNNEL=SMS,nobody,hunter2",
    ] {
        let verdict = ask(&mut desk, text, &fleet());
        let shown = match &verdict {
            Verdict::Do(errand) => format!("{:?} {}", errand.entry, errand.letter.done("")),
            other => format!("{other:?}"),
        };
        assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
    }
}

#[test]
fn of_an_address_neither_user_nor_password_nor_query_is_kept() {
    let mut desk = Desk::new(&settings(), &gateway());
    let hash = "ab".repeat(32);
    for (given, shown) in [
        (format!("https://h/fw?token=hunter2,{hash}"), format!("https://h/fw?***,{hash}")),
        (format!("https://h/fw?a=1,2&token=hunter2,{hash},hunter2"), format!("https://h/fw?***,{hash}")),
        (format!("https://me:hunter2@h/fw,{hash}"), format!("https://***,{hash}")),
        (format!("https://me:hunter2?/@h/fw,{hash}"), format!("https://***,{hash}")),
        ("https://h/fw?token=hunter2".to_owned(), "https://h/fw?***".to_owned()),
        ("me:hunter2@h/fw?x".to_owned(), "://***".to_owned()),
        (format!("https://h/fw,{hash}"), format!("https://h/fw,{hash}")),
        (format!("file:///a@b?c,{hash}"), format!("file:///a@b?c,{hash}")),
    ] {
        let verdict =
            desk.judge(format!("AT^WEIR=UPDATEFW,{given}").as_bytes(), &Origin::Local("root".into()), &now(), false);
        let (entry, echo) = match verdict {
            Verdict::Do(errand) => (errand.entry, errand.letter.echo),
            Verdict::Refused { entry, reply } => (entry, reply.unwrap()),
            other => panic!("{other:?}"),
        };
        assert_eq!(entry.command, format!("AT^WEIR=UPDATEFW,{shown}"));
        assert!(!echo.contains("hunter2") && !entry.detail.contains("hunter2"), "{echo}");
    }
}

#[test]
fn everyone_has_only_his_rights() {
    let mut settings = settings();
    settings.grant =
        vec![grant("topic:fleet/AT", &[Right::Observe], false), grant("local:tech", &[Right::Write], false)];
    let mut desk = Desk::new(&settings, &gateway());
    assert_eq!(command(ask(&mut desk, "AT^WEIR=VERSION", &fleet())), Command::Version);
    assert!(reply(ask(&mut desk, "AT^WEIR=READ", &fleet())).contains("may not read"));
    assert!(reply(ask(&mut desk, "AT^WEIR=VERSION", &Origin::Local("tech".into()))).contains("may not observe"));
    command(ask(&mut desk, "AT^WEIR=RESET", &Origin::Local("tech".into())));
    assert!(matches!(ask(&mut desk, "AT", &Origin::Local("root".into())), Verdict::Refused { reply: None, .. }));
    let update = format!("AT^WEIR=UPDATEFW,https://a/b,{}", "0".repeat(64));
    let mut usual = Desk::new(&self::settings(), &gateway());
    assert!(reply(ask(&mut usual, &update, &fleet())).contains("may not firmware"));
}

#[test]
fn a_locked_gateway_is_changed_only_by_those_who_may_unlock() {
    let mut settings = settings();
    settings.sms.allow_all = true;
    let mut desk = Desk::new(&settings, &gateway());
    let mut locked = |text: &str, origin: &Origin| desk.judge(text.as_bytes(), origin, &now(), true);
    let anybody = Origin::Phone("+34600000000".into());
    assert!(reply(locked("AT^WEIR=SETPARAM,a,b", &anybody)).contains("locked"));
    assert!(reply(locked("AT^WEIR=UNLOCK", &Origin::Local("root".into()))).contains("locked"));
    assert_eq!(command(locked("AT^WEIR=VERSION", &anybody)), Command::Version);
    assert_eq!(command(locked("AT^WEIR=UNLOCK", &Origin::Phone("+34666123456".into()))), Command::Unlock);
}

/// A key of the test, and its file.
struct Signer {
    pair: Ed25519KeyPair,
    _folder: tempfile::TempDir,
    file: SecretFile,
}

impl Signer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let path = folder.path().join("keys");
        let public = data_encoding::BASE64.encode(pair.public_key().as_ref());
        std::fs::write(&path, format!("# who may sign\nops {public}\n")).unwrap();
        Self { pair, _folder: folder, file: SecretFile::new(path) }
    }

    fn desk(&self, grants: Vec<super::super::Grant>) -> Desk {
        let mut settings = settings();
        settings.grant = grants;
        settings.signatures.keys_file = Some(At::nowhere(self.file.path().to_owned()));
        settings.signatures.need = Need::Changes;
        Desk::new(&settings, &gateway())
    }

    fn sign(&self, at: &str, time: &str, nonce: &str) -> Envelope {
        let some = |text: &str| Some(text.to_owned());
        let mut envelope = Envelope {
            at: at.into(),
            device: some("gw1"),
            time: some(time),
            nonce: some(nonce),
            key: some("ops"),
            ..Envelope::default()
        };
        envelope.signature = Some(data_encoding::BASE64.encode(self.pair.sign(&envelope.message()).as_ref()));
        envelope
    }
}

fn text(envelope: &Envelope) -> String {
    serde_json::to_string(envelope).unwrap()
}

const SET: &str = "AT^WEIR=SETPARAM,a,b";

#[tokio::test(start_paused = true)]
async fn a_signed_command_is_obeyed_once_and_only_as_it_was_signed() {
    let signer = Signer::new();
    let mut desk = signer.desk(vec![]);
    advance(Duration::from_secs(3600)).await;
    assert!(reply(ask(&mut desk, SET, &fleet())).contains("only signed"));
    assert_eq!(command(ask(&mut desk, "AT^WEIR=VERSION", &fleet())), Command::Version);
    let good = signer.sign(SET, "2026-11-22T14:59:00Z", "nonce0001");
    for changed in [
        Envelope { at: "AT^WEIR=SETPARAM,a,c".into(), ..good.clone() },
        Envelope { nonce: Some("nonce0002".into()), ..good.clone() },
        Envelope { device: Some("*".into()), ..good.clone() },
        Envelope { id: Some("x".into()), ..good.clone() },
        Envelope { time: Some("2026-11-22T15:00:00Z".into()), ..good.clone() },
    ] {
        assert!(reply(ask(&mut desk, &text(&changed), &fleet())).contains("not that of key"), "{changed:?}");
    }
    assert!(matches!(command(ask(&mut desk, &text(&good), &fleet())), Command::Set { .. }));
    assert!(reply(ask(&mut desk, &text(&good), &fleet())).contains("used before"));
    let other = Envelope { device: Some("gw2".into()), ..good };
    assert_eq!(ask(&mut desk, &text(&other), &fleet()), Verdict::Ignored);
}

#[tokio::test(start_paused = true)]
async fn what_was_signed_outside_the_window_or_before_the_start_is_not_obeyed() {
    let signer = Signer::new();
    let mut desk = signer.desk(vec![]);
    let before = signer.sign(SET, "2026-11-22T14:59:00Z", "nonce0001");
    assert!(reply(ask(&mut desk, &text(&before), &fleet())).contains("before weir started"));
    advance(Duration::from_secs(3600)).await;
    for (time, nonce) in [("2026-11-22T14:54:59Z", "nonce0002"), ("2026-11-22T15:05:01Z", "nonce0003")] {
        let signed = signer.sign(SET, time, nonce);
        assert!(reply(ask(&mut desk, &text(&signed), &fleet())).contains("sign it anew"));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_clock_a_challenge_proves_that_a_command_is_fresh() {
    let signer = Signer::new();
    let mut desk = signer.desk(vec![]);
    let unset = Stamp { clock: ClockState::Unsynced, ..now() };
    let mut ask = |text: &str| desk.judge(text.as_bytes(), &fleet(), &unset, false);
    let timely = signer.sign(SET, "2026-11-22T15:00:00Z", "nonce0001");
    assert!(reply(ask(&text(&timely))).contains("CHALLENGE"));
    let said = reply(ask("AT^WEIR=CHALLENGE"));
    let challenge = said.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    let answer = signer.sign(SET, "1999-01-01T00:00:00Z", &challenge);
    assert!(matches!(command(ask(&text(&answer))), Command::Set { .. }));
    assert!(matches!(ask(&text(&answer)), Verdict::Refused { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_key_has_its_own_rights_and_a_grant_may_ask_for_both() {
    let signer = Signer::new();
    let grants = vec![
        grant("topic:fleet/AT", &[Right::Observe], false),
        grant("topic:fleet/AT", &[Right::Configure, Right::Firmware], true),
        grant("key:ops", &[Right::Configure], false),
    ];
    let mut desk = signer.desk(grants);
    advance(Duration::from_secs(3600)).await;
    let signed = |at: &str, nonce: &str| text(&signer.sign(at, "2026-11-22T15:00:00Z", nonce));
    assert!(matches!(command(ask(&mut desk, &signed(SET, "nonce0001"), &fleet())), Command::Set { .. }));
    assert!(reply(ask(&mut desk, &signed("AT^WEIR=RESET", "nonce0002"), &fleet())).contains("may not write"));
}
