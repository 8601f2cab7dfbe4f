//! A backlog is carried by hand from one gateway to another.

use std::fs;
use std::path::Path;
use std::process::Command;

use weir::model::{Lane, Origin};

use super::rig::{Gateway, frame, peek, run, stderr, stdout, tag};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn origins(gateway: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
    numbers.into_iter().map(|n| (gateway.to_owned(), n)).collect()
}

#[test]
fn a_backlog_arrives_once_whole_and_with_its_origin_however_often_it_is_imported() {
    let (from, to) = (Gateway::new("KAM1", 1..=700), Gateway::new("KAM2", 5001..=5020));
    let file = from.export("first.weir");
    let output = to.weir(&["import", text(&file), "--key", &from.key()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let words = stdout(&output);
    assert!(words.contains("700 frames of KAM1") && words.contains("700 were taken, 0 were known"), "{words}");
    let arrived = to.by_origin();
    assert_eq!(arrived.len(), 720);
    assert!((1..=700).all(|n| arrived[&("KAM1".to_owned(), n)] == n), "each carries its number as its origin");

    let again = to.json(&["import", text(&file)]);
    assert_eq!((&again["taken"], &again["known"], &again["pinned"]), (&0.into(), &700.into(), &false.into()));
    from.feed(701..=750);
    let second = from.export("second.weir");
    let more = to.json(&["import", text(&second)]);
    assert_eq!((&more["taken"], &more["known"]), (&50.into(), &700.into()), "only what is new");
    assert_eq!(to.by_origin().len(), 770);

    // Delivered here in the meantime: still known.
    run(async {
        let store = to.open();
        for stored in peek(&store).await {
            store.commit(stored.frame.lane, vec![stored.sequence]).await.unwrap();
        }
        store.close().await.unwrap();
    });
    assert_eq!(to.json(&["import", text(&second)])["taken"], 0);
    assert!(to.waiting().is_empty());
    assert_eq!(from.waiting().len(), 750, "an export without --take only reads");
}

#[test]
fn a_frame_that_travels_twice_keeps_its_first_origin_and_is_known_when_it_comes_home() {
    let (a, b, c) = (Gateway::new("A", 1..=30), Gateway::new("B", 101..=110), Gateway::new("C", []));
    b.json(&["import", text(&a.export("a"))]);
    let both = b.export("b");
    c.json(&["import", text(&both)]);
    let arrived: Vec<_> = c.by_origin().into_keys().collect();
    assert_eq!(arrived, [origins("A", 1..=30), origins("B", 1..=10)].concat());
    let home = a.json(&["import", text(&both)]);
    assert_eq!((&home["taken"], &home["known"]), (&10.into(), &30.into()), "what still waits here is not taken again");
}

#[test]
fn taking_out_leaves_the_file_as_the_only_copy_and_it_can_come_back() {
    let gateway = Gateway::new("KAM1", 1..=300);
    let file = gateway.path("all.weir");
    let done = gateway.json(&["export", "--take", "--to", text(&file)]);
    assert_eq!((&done["frames"], &done["taken"], &done["priority"]), (&300.into(), &300.into(), &30.into()));
    let status = gateway.json(&["status"]);
    assert_eq!(
        (&status["cached"], &status["acknowledged"], &status["received"]),
        (&0.into(), &300.into(), &300.into())
    );
    let empty = gateway.weir(&["export", "--to", text(&gateway.path("none"))]);
    assert!(empty.status.success() && stdout(&empty).contains("nothing waits"), "{}", stdout(&empty));
    assert!(!gateway.path("none").exists() && !gateway.path("none.part").exists());

    let output = gateway.weir(&["import", text(&file)]);
    assert!(
        stdout(&output).contains("this gateway's own") && stdout(&output).contains("300 were taken"),
        "{}",
        stdout(&output)
    );
    assert_eq!(gateway.by_origin().into_keys().collect::<Vec<_>>(), origins("KAM1", 1..=300));
    assert!(gateway.waiting().keys().all(|number| *number > 300), "each has a new number here");
}

#[test]
fn an_export_reads_beside_a_running_agent_and_what_changes_the_store_is_refused() {
    let (gateway, other) = (Gateway::new("KAM1", 1..=200), Gateway::new("KAM2", 1..=9));
    let from_other = other.export("other");
    run(async {
        let store = gateway.open();
        let waiting = store.peek(Lane::Ordinary, 0, 50).await.unwrap();
        store.commit(Lane::Ordinary, waiting.iter().map(|s| s.sequence).collect()).await.unwrap();
        store.append(frame(201)).await.unwrap();
        store.sync().await.unwrap();
        let file = gateway.path("live");
        let done = gateway.json(&["export", "--to", text(&file)]);
        assert_eq!(done["frames"], 151, "what is durable and waits");
        let more = gateway.json(&["import", text(&from_other), "--dry-run"]);
        assert_eq!((&more["taken"], &more["new"]), (&0.into(), &9.into()));
        for command in
            [&["export", "--take", "--to", text(&gateway.path("no"))][..], &["import", text(&from_other)], &["repair"]]
        {
            let words = gateway.refused(command);
            assert!(words.contains("another weir is using the store") && words.contains("stop it first"), "{words}");
            assert_eq!(words.lines().count(), 1, "{words}");
        }
        assert_eq!(store.status().borrow().cached, 151);
        store.close().await.unwrap();
    });
    assert!(!gateway.path("no").exists());
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_refused_before_anything_is_taken() {
    let (from, to) = (Gateway::new("KAM1", 1..=120), Gateway::new("KAM2", []));
    let file = from.export("good");
    let good = fs::read(&file).unwrap();
    let bent = to.path("bent");
    let refused = |content: &[u8], words: &str| {
        fs::write(&bent, content).unwrap();
        let told = to.refused(&["import", text(&bent)]);
        assert!(told.contains(words), "{words}: {told}");
    };
    refused(&good[..good.len() - 1], "ends in the middle");
    refused(&good[..good.len() / 2], "ends in the middle");
    refused(&[&good[..], b"more"].concat(), "behind its end");
    for at in (8..good.len()).step_by(good.len() / 40) {
        let mut one = good.clone();
        one[at] ^= 4;
        refused(&one, "it ");
    }
    refused(b"not an export at all", "no export of weir");
    refused(b"", "no export of weir");
    let told = to.refused(&["import", text(&file), "--key", &to.key()]);
    assert!(told.contains("signed by the key") && told.contains(&from.key()), "{told}");
    let told = to.refused(&["import", text(&to.path("nowhere"))]);
    assert!(told.contains("nowhere") && told.contains("No such file"), "{told}");
    assert!(to.waiting().is_empty() && !to.store().join("imports").exists());
    let output = to.weir(&["import", text(&file), "--key", "short"]);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
}

#[test]
fn an_export_that_can_not_be_written_leaves_nothing_behind_and_everything_in_the_store() {
    let gateway = Gateway::new("KAM1", 1..=200);
    let before = gateway.export("before");
    assert!(gateway.refused(&["export", "--to", text(&before)]).contains("exists already"));
    let nowhere = gateway.path("no/such/place");
    let told = gateway.refused(&["export", "--take", "--to", text(&nowhere)]);
    assert!(told.contains("place") && told.contains("No such file"), "{told}");
    // A disk that takes no more: the system refuses to let a file grow.
    let mut full = Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_weir"), "--config"]);
    let output = full
        .arg(gateway.path("weir.toml"))
        .args(["store", "export", "--to"])
        .arg(gateway.path("full"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("full: ") && stderr(&output).contains("too large"), "{}", stderr(&output));
    assert!(!gateway.path("full").exists() && !gateway.path("full.part").exists());
    assert_eq!(gateway.waiting().len(), 200);
}

#[test]
fn an_import_never_makes_the_store_give_up_frames() {
    let mut to = Gateway::new("KAM2", 1..=50);
    let from = Gateway::new("KAM1", 1..=9_000);
    to.max = 4 << 20;
    to.configure();
    let told = to.refused(&["import", text(&from.export("much"))]);
    assert!(told.contains("no room") && told.contains("max_size"), "{told}");
    assert_eq!(to.waiting().len(), 50);
    assert_eq!(to.json(&["status"])["evicted"], 0);
}

#[test]
fn without_a_store_or_a_key_one_sentence_says_what_to_do() {
    let gateway = Gateway::new("KAM1", 1..=5);
    let file = gateway.export("file");
    fs::remove_file(gateway.store().join("key")).unwrap();
    let new = gateway.path("new");
    let commands = [&["key"][..], &["export", "--to", text(&new)]];
    for command in commands {
        assert!(gateway.refused(command).contains("no signing key"), "{command:?}");
    }
    fs::remove_dir_all(gateway.store()).unwrap();
    let others = [&["check"][..], &["repair"], &["repair", "--dry-run"], &["status"], &["import", text(&file)]];
    for command in commands.iter().chain(&others) {
        let told = gateway.refused(command);
        assert!(told.contains("there is no store in") && told.lines().count() == 1, "{command:?}: {told}");
        assert!(!gateway.store().exists(), "{command:?} has made a store");
    }
}

#[test]
fn a_lost_record_of_imports_costs_no_duplicate_of_what_waits() {
    let (from, to) = (Gateway::new("KAM1", 1..=90), Gateway::new("KAM2", []));
    let file = from.export("file");
    to.json(&["import", text(&file)]);
    for lost in [None, Some(&b"rubbish"[..])] {
        match lost {
            None => fs::remove_file(to.store().join("imports")).unwrap(),
            Some(bytes) => fs::write(to.store().join("imports"), bytes).unwrap(),
        }
        assert_eq!(to.json(&["import", text(&file)])["taken"], 0);
        assert_eq!(to.by_origin().len(), 90);
    }
    assert!(to.waiting().values().all(|f| f.origin == Some(Origin { gateway: "KAM1".into(), sequence: tag(f) })));
}

#[test]
fn frames_that_are_durable_but_not_recorded_are_known_all_the_same() {
    let (from, to) = (Gateway::new("KAM1", 1..=3_000), Gateway::new("KAM2", []));
    let file = from.export("file");
    // The record can't be written: as if the power went in between.
    let in_the_way = to.store().join("imports.new");
    fs::create_dir(&in_the_way).unwrap();
    let told = to.refused(&["import", text(&file)]);
    assert!(told.contains("can't be used") && told.lines().count() == 1, "{told}");
    let first = to.by_origin().len();
    assert!(first > 0 && first < 3_000 && !to.store().join("imports").exists(), "{first}");
    fs::remove_dir(&in_the_way).unwrap();
    let done = to.json(&["import", text(&file)]);
    assert_eq!((&done["taken"], &done["known"]), (&(3_000 - first).into(), &first.into()));
    assert_eq!(to.by_origin().len(), 3_000);
}
