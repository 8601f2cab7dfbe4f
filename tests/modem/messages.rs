//! Messages and calls, both ways.

use weir::modem::{Incoming, ModemError, Sent};
use weir::sim::modem::Make;

use super::rig::{QUIET, Rig, at};

#[tokio::test]
async fn an_announced_message_is_handed_over_with_its_time_and_deleted() {
    let mut rig = Rig::ready(Make::default(), QUIET).await;
    rig.deliver("+34666123456", "MTXTUNNEL AT+CSQ €").await;
    let expected = Incoming::Sms { from: "+34666123456".into(), text: "MTXTUNNEL AT+CSQ €".into(), at: at() };
    assert_eq!(rig.room.next().await, expected);
    rig.until(|modem| modem.stored() == 0).await;
    for text in ["жизнь \u{1F600}".to_owned(), "long ".repeat(100), "длинный ".repeat(60)] {
        rig.deliver("Movistar", &text).await;
        assert_eq!(rig.room.message().await, ("Movistar".to_owned(), text));
    }
    rig.until(|modem| modem.stored() == 0).await;
    rig.room.until(|status| status.counters.received == 4).await;
}

#[tokio::test]
async fn a_message_that_nobody_announced_is_found() {
    let mut rig = Rig::ready(Make::default(), "manager = 'none'\nmessages_every = '1s'").await;
    rig.plugged.stick().deliver("+34666123456", "quiet", at());
    assert_eq!(rig.room.message().await.1, "quiet");
    rig.until(|modem| modem.stored() == 0).await;
}

#[tokio::test]
async fn a_full_storage_empties_and_what_waited_in_the_network_comes() {
    let mut rig = Rig::new(Make { capacity: 5, ..Make::default() }, QUIET, 64);
    for number in 0..12 {
        rig.plugged.stick().deliver("+34666123456", &format!("message {number}"), at());
        rig.plugged.stick().deliver_pdu(vec![0x00, 0x04, 0xFF, 0xFF]);
    }
    assert!(rig.plugged.stick().waiting() > 0);
    let mut texts = Vec::new();
    while texts.len() < 12 {
        texts.push(rig.room.message().await.1);
    }
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 12, "{texts:?}");
    rig.until(|modem| modem.stored() == 0 && modem.waiting() == 0).await;
    rig.room.until(|status| status.counters.undecodable == 12 && status.storage == Some((0, 5))).await;
}

#[tokio::test]
async fn parts_whose_rest_never_comes_do_not_fill_the_storage() {
    let mut rig = Rig::ready(Make { capacity: 8, ..Make::default() }, QUIET).await;
    for sender in 0..8 {
        // Of each only the first part finds its way.
        let pdus = {
            let mut other = weir::sim::modem::Modem::new(Make { capacity: 1, ..Make::default() });
            for _ in 0..=sender {
                other.deliver(&format!("+3466600000{sender}"), &"x".repeat(300), at());
            }
            other.first_pdu().unwrap()
        };
        let said = rig.plugged.stick().deliver_pdu(pdus);
        rig.plugged.say(said);
    }
    rig.room.until(|status| status.counters.incomplete > 0).await;
    rig.deliver("+34666123456", "there is room").await;
    assert_eq!(rig.room.message().await.1, "there is room");
}

#[tokio::test]
async fn when_nobody_takes_messages_they_wait_in_the_storage() {
    let mut rig = Rig::new(Make::default(), "manager = 'none'\nmessages_every = '1s'", 1);
    for number in 0..4 {
        rig.plugged.stick().deliver("+34666123456", &number.to_string(), at());
    }
    rig.until(|modem| modem.stored() == 3).await;
    for number in 0..4 {
        assert_eq!(rig.room.message().await.1, number.to_string());
    }
    rig.until(|modem| modem.stored() == 0).await;
}

#[tokio::test]
async fn a_message_that_cannot_be_deleted_is_handed_over_once() {
    let mut rig =
        Rig::ready(Make { keeps_deleted: true, ..Make::default() }, "manager = 'none'\nmessages_every = '1s'").await;
    rig.plugged.stick().deliver("+34666123456", "once", at());
    assert_eq!(rig.room.message().await.1, "once");
    rig.until(|modem| modem.asked.iter().filter(|asked| asked.starts_with("AT+CMGD")).count() >= 3).await;
    rig.plugged.stick().make.keeps_deleted = false;
    rig.until(|modem| modem.stored() == 0).await;
    assert!(rig.room.incoming.try_recv().is_err());
}

#[tokio::test]
async fn texts_are_sent_in_parts_with_what_their_letters_need() {
    let rig = Rig::ready(Make::default(), QUIET).await;
    for (text, parts) in
        [("short [€]".to_owned(), 1), ("a".repeat(161), 2), ("ж".repeat(71), 2), ("a".repeat(1530), 10)]
    {
        rig.plugged.stick().sent.clear();
        let sent = rig.room.handle.send("+34 666 123 456", &text).await.unwrap();
        assert_eq!(sent, Sent::Accepted { parts });
        let sent = rig.plugged.stick().sent.clone();
        assert_eq!(sent.iter().map(|submit| submit.data.body.text()).collect::<String>(), text);
        assert!(sent.iter().all(|submit| submit.to.to_string() == "+34666123456"));
    }
    assert_eq!(rig.room.handle.send("+34666123456", &"a".repeat(1531)).await, Err(ModemError::TooLong(10)));
    assert_eq!(rig.room.handle.send("seven", "x").await, Err(ModemError::Number));
}

#[tokio::test]
async fn a_busy_network_is_tried_again_and_a_refusal_is_a_value() {
    let rig = Rig::ready(Make::default(), QUIET).await;
    rig.plugged.stick().make.refuse_sending = [42, 500].into();
    assert_eq!(rig.room.handle.send("+34666123456", "x").await, Ok(Sent::Accepted { parts: 1 }));
    rig.plugged.stick().make.refuse_sending = [500; 3].into();
    let refused = Sent::Refused { parts: 0, reason: "CMS ERROR 500 (unknown)".into() };
    assert_eq!(rig.room.handle.send("+34666123456", "x").await, Ok(refused));
    // It makes no sense to try this one again.
    rig.plugged.stick().make.refuse_sending = [1].into();
    let refused = Sent::Refused { parts: 0, reason: "CMS ERROR 1 (nobody has this number)".into() };
    assert_eq!(rig.room.handle.send("+34666123456", "x").await, Ok(refused));
    assert_eq!(rig.plugged.stick().sent.len(), 1);
    assert_eq!(rig.room.until(|status| status.counters.not_sent == 2).await.counters.sent, 1);
}

#[tokio::test]
async fn a_modem_that_knows_text_mode_only_sends_and_receives_all_letters() {
    let mut rig = Rig::ready(Make { pdu_mode: false, ..Make::default() }, QUIET).await;
    for text in ["plain", "жизнь €"] {
        rig.deliver("+34666123456", text).await;
        assert_eq!(rig.room.message().await, ("+34666123456".to_owned(), text.to_owned()));
        assert_eq!(rig.room.handle.send("+34666123456", text).await, Ok(Sent::Accepted { parts: 1 }));
        assert_eq!(rig.plugged.stick().sent.last().unwrap().data.body.text(), text);
    }
    rig.until(|modem| modem.stored() == 0).await;
}

#[tokio::test]
async fn a_missed_call_is_told_once_and_hung_up() {
    let mut rig = Rig::ready(Make::default(), QUIET).await;
    for number in [Some("+34666123456"), None] {
        let ring = rig.plugged.stick().ring(number);
        rig.plugged.say(ring);
        match rig.room.next().await {
            Incoming::Call { from, .. } => assert_eq!(from.as_deref(), number),
            other => panic!("{other:?}"),
        }
        let calls = if number.is_some() { 1 } else { 2 };
        rig.until(|modem| modem.hung_up == calls).await;
        // The caller has gone.
        rig.plugged.say(b"\r\nNO CARRIER\r\n".to_vec());
    }
    assert_eq!(rig.room.until(|status| status.counters.calls == 2).await.counters.calls_lost, 0);
}

#[tokio::test]
async fn commands_are_passed_on_unless_they_break_the_dialogue() {
    let rig = Rig::ready(Make::default(), &format!("{QUIET}allow = ['AT+CMEE']")).await;
    assert_eq!(rig.room.handle.command("AT+CSQ").await.unwrap(), ["+CSQ: 20,99", "OK"]);
    assert_eq!(rig.room.handle.command("at+cmee=1").await.unwrap(), ["OK"]);
    assert_eq!(rig.room.handle.command("AT+NONSENSE").await.unwrap(), ["ERROR"]);
    for wrong in ["ATE1", "ATD+34666123456;", "AT+CFUN=0", "AT+CSQ;E1"] {
        assert!(matches!(rig.room.handle.command(wrong).await, Err(ModemError::Forbidden(_))), "{wrong}");
    }
    assert!(!rig.plugged.stick().was_asked("ATD"));
}

#[tokio::test]
async fn the_watchdog_may_have_it_register_and_start_anew() {
    let rig = Rig::ready(Make::default(), QUIET).await;
    rig.room.handle.reregister().await.unwrap();
    assert!(rig.plugged.stick().was_asked("AT+COPS=2") && rig.plugged.stick().was_asked("AT+COPS=0"));
    rig.plugged.stick().make.refuses = vec!["AT+COPS=".into()];
    rig.room.handle.reregister().await.unwrap();
    assert!(rig.plugged.stick().was_asked("AT+CFUN=4") && rig.plugged.stick().was_asked("AT+CFUN=1"));
    let starts = rig.room.handle.status().borrow().counters.starts;
    rig.room.handle.reset().await.unwrap();
    rig.room.until(|status| status.counters.starts > starts && status.state == weir::modem::State::Ready).await;
    assert_eq!(rig.plugged.stick().restarts, 1);
}
