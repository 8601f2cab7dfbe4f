//! Manifests are changed, left out, repeated and mixed up; each time the chain says what broke.

use proptest::prelude::*;

use super::chain::{Break, Chain, Link};
use super::proof::{Account, Numbers};
use super::*;

fn key() -> (tempfile::TempDir, Key) {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::open_or_create(&dir.path().join("key")).unwrap();
    (dir, key)
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// 1,000 numbers a day; each day evicts ten, skips five, and leaves twenty pending.
fn day(number: u64, previous: Digest) -> Manifest {
    let (first, last) = ((number - 1) * 1000 + 1, number * 1000);
    let (evicted, skipped, pending) = (10 * number, 5 * number, 20);
    let received = last - skipped;
    Manifest {
        manifest: VERSION,
        gateway: "KAM1".into(),
        number,
        previous,
        from: time("2026-11-20T00:00:00Z").plus(std::time::Duration::from_hours(24 * (number - 1))),
        to: time("2026-11-21T00:00:00Z").plus(std::time::Duration::from_hours(24 * (number - 1))),
        clock: Clock::Synced,
        first,
        last,
        counts: Counts {
            received,
            acknowledged: received - evicted - pending,
            evicted,
            damaged: number,
            skipped,
            pending,
        },
        evicted: vec![Span::whole(first, first + 8), Span::whole(first + 10, first + 10)],
        skipped: vec![Span { first: first + 20, last: first + 40, count: 5 }],
        pending: vec![Span::whole(last - 19, last)],
        evicted_by_meter: [("incomer".to_owned(), evicted)].into(),
    }
}

fn days(count: u64, key: &Key) -> Vec<Signed> {
    let mut previous = Digest::default();
    let sign = |number| {
        let signed = Signed::sign(&day(number, previous), key);
        previous = signed.digest();
        signed
    };
    (1..=count).map(sign).collect()
}

/// Changes a manifest's content and signs it again.
fn changed(signed: &Signed, key: &Key, change: impl FnOnce(&mut Manifest)) -> Signed {
    let mut manifest = signed.verify().unwrap();
    change(&mut manifest);
    Signed::sign(&manifest, key)
}

fn breaks(chain: &mut Chain, signed: &[Signed]) -> Option<Break> {
    signed.iter().find_map(|s| chain.push(s).err())
}

#[test]
fn a_manifest_travels_as_one_line_and_comes_back_byte_for_byte() {
    let (_dir, key) = key();
    let signed = Signed::sign(&day(1, Digest::default()), &key);
    let line = signed.line();
    assert!(!line.contains('\n'));
    let again = Signed::parse(&line).unwrap();
    assert_eq!((&again, again.line()), (&signed, line));
    assert_eq!(again.verify().unwrap(), day(1, Digest::default()));
    let expected = "{\"manifest\":1,\"gateway\":\"KAM1\",\"number\":1,\"previous\":\"0000000000000000000000000000000000000000000000000000000000000000\",\
        \"from\":\"2026-11-20T00:00:00Z\",\"to\":\"2026-11-21T00:00:00Z\",\"clock\":\"synced\",\"first\":1,\"last\":1000,\
        \"counts\":{\"received\":995,\"acknowledged\":965,\"evicted\":10,\"damaged\":1,\"skipped\":5,\"pending\":20},\
        \"evicted\":[[1,9,9],[11,11,1]],\"skipped\":[[21,41,5]],\"pending\":[[981,1000,20]],\"evicted_by_meter\":{\"incomer\":10}}";
    assert_eq!(signed.text, expected);
}

#[test]
fn a_member_that_is_added_later_does_not_hurt() {
    let (_dir, key) = key();
    let text = Signed::sign(&day(1, Digest::default()), &key)
        .text
        .replace("{\"manifest\":1,", "{\"manifest\":1,\"new\":[{}],");
    let signature = key.sign(&[DOMAIN, text.as_bytes()].concat());
    assert!(Signed { text, key: key.public(), signature }.verify().is_ok());
}

#[test]
fn every_single_changed_byte_of_a_line_is_noticed() {
    let (_dir, key) = key();
    let line = Signed::sign(&day(1, Digest::default()), &key).line();
    for at in 0..line.len() {
        let mut bytes = line.clone().into_bytes();
        bytes[at] ^= 1;
        let bent = String::from_utf8(bytes).unwrap();
        let Ok(signed) = Signed::parse(&bent) else { continue };
        assert!(signed.verify().is_err(), "byte {at} of {bent}");
    }
}

#[test]
fn a_signature_of_the_bare_text_is_none_of_a_manifest() {
    let (_dir, key) = key();
    let mut signed = Signed::sign(&day(1, Digest::default()), &key);
    signed.signature = key.sign(signed.text.as_bytes());
    assert_eq!(signed.verify(), Err(ManifestError::Forged));
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused_though_it_is_signed() {
    let (_dir, key) = key();
    let good = Signed::sign(&day(2, [7; 32]), &key);
    type Case = (&'static str, fn(&mut Manifest));
    let wrong: [Case; 14] = [
        ("received = ", |m| m.counts.acknowledged -= 1),
        ("received = ", |m| m.counts.pending = u64::MAX),
        ("last = ", |m| m.counts.skipped += 1),
        ("last = ", |m| m.last -= 1),
        ("last >= ", |m| (m.first, m.last) = (2002, 2000)),
        ("last >= ", |m| m.last = u64::MAX),
        ("damaged <= ", |m| m.counts.damaged = m.counts.evicted + 1),
        ("evicted_by_meter <= ", |m| m.evicted_by_meter.extend([("other".into(), 1)])),
        ("number >= 1", |m| m.number = 0),
        ("first = 1", |m| m.number = 1),
        ("version 2", |m| m.manifest = 2),
        ("evicted spans are impossible at 3-9", |m| m.evicted = vec![Span::whole(5, 6), Span::whole(3, 9)]),
        ("skipped spans are impossible at 9 of 2-3", |m| m.skipped = vec![(2, 3, 9).into()]),
        ("pending spans hold", |m| m.pending = vec![Span::whole(1, 19)]),
    ];
    for (words, change) in wrong {
        let error = changed(&good, &key, change).verify().unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_chain_holds_and_repeats_are_allowed() {
    let (_dir, key) = key();
    let signed = days(5, &key);
    let mut chain = Chain::new(Some(key.public()), None);
    for (number, s) in (1..).zip(&signed) {
        assert_eq!(chain.push(s).unwrap(), Link::New(Box::new(s.verify().unwrap())));
        assert_eq!(chain.push(s).unwrap(), Link::Repeated(number));
        assert_eq!(chain.push(&signed[0]).unwrap(), Link::Repeated(1));
    }
    assert_eq!(chain.newest(), Some((5, signed[4].digest())));
    let mut later = Chain::new(None, Some(signed[1].digest()));
    assert_eq!(breaks(&mut later, &signed[2..]), None);
}

#[test]
fn a_manifest_that_is_left_out_or_replaced_breaks_the_chain_there() {
    let (_dir, key) = key();
    let (_other_dir, other) = self::key();
    let s = days(4, &key);
    let chain = || Chain::new(None, None);
    let broken =
        |list: &[&Signed]| breaks(&mut chain(), &list.iter().map(|s| (*s).clone()).collect::<Vec<_>>()).unwrap();
    assert_eq!(broken(&[&s[0], &s[2]]), Break::Missing { expected: 2, found: 3 });
    assert_eq!(broken(&[&s[1]]), Break::Missing { expected: 1, found: 2 });
    assert!(matches!(broken(&[&s[0], &days(2, &other)[1]]), Break::Key { number: 2, .. }));
    let mut pinned = Chain::new(Some(other.public()), None);
    assert!(matches!(pinned.push(&s[0]), Err(Break::Key { number: 1, .. })));
    let twin = changed(&s[1], &key, |m| m.evicted_by_meter.clear());
    assert_eq!(broken(&[&s[0], &s[1], &twin]), Break::Twice { number: 2 });
    assert!(matches!(broken(&[&s[0], &twin, &s[2]]), Break::Previous { number: 3, .. }));
    let stranger = changed(&s[1], &key, |m| m.gateway = "KAM2".into());
    assert!(matches!(broken(&[&s[0], &stranger]), Break::Gateway { number: 2, .. }));
    let mut forged = s[1].clone();
    forged.text = forged.text.replace("\"evicted\":20", "\"evicted\":10");
    assert_eq!(broken(&[&s[0], &forged]), Break::Bad { after: 1, error: ManifestError::Forged });
    let false_start = changed(&s[0], &key, |m| m.previous = [1; 32]);
    assert!(matches!(broken(&[&false_start]), Break::Previous { number: 1, .. }));
    assert!(matches!(Chain::new(None, Some([9; 32])).push(&s[2]), Err(Break::Previous { number: 3, .. })));
}

#[test]
fn figures_that_do_not_continue_break_the_chain() {
    let (_dir, key) = key();
    let s = days(2, &key);
    let broken = |change: fn(&mut Manifest)| {
        let mut chain = Chain::new(None, None);
        chain.push(&s[0]).unwrap();
        chain.push(&changed(&s[1], &key, change)).unwrap_err()
    };
    assert_eq!(broken(|m| m.first = 1002), Break::Gap { number: 2, found: 1002, last: 1000 });
    let fewer = broken(|m| (m.counts.acknowledged, m.counts.evicted) = (m.counts.acknowledged + 11, 9));
    assert!(matches!(fewer, Break::Bad { .. }), "fewer evicted than the meters count: {fewer}");
    let back = broken(|m| {
        (m.counts.acknowledged, m.counts.evicted, m.counts.damaged) = (m.counts.acknowledged + 11, 9, 0);
        m.evicted_by_meter.clear();
        m.evicted.clear();
    });
    assert_eq!(back, Break::Backwards { number: 2, what: "evicted", before: 10, now: 9 });
    let hidden = broken(|m| m.evicted.truncate(1));
    assert_eq!(hidden, Break::Unexplained { number: 2, what: "evicted", grown: 10, explained: 9 });
    let hidden = broken(|m| m.skipped[0].count = 4);
    assert_eq!(hidden, Break::Unexplained { number: 2, what: "skipped", grown: 5, explained: 4 });
}

#[test]
fn the_account_of_a_chain_explains_what_did_not_arrive_and_nothing_else() {
    let (_dir, key) = key();
    let mut account = Account::default();
    let mut arrived: Vec<u64> = Vec::new();
    for signed in days(3, &key) {
        let manifest = signed.verify().unwrap();
        account.push(&manifest);
        let gone =
            |n: &u64| manifest.evicted.iter().any(|s| (s.first..=s.last).contains(n)) || (21..26).contains(&(n % 1000));
        arrived.extend((manifest.first..=manifest.last).filter(|n| !gone(n)));
    }
    // What waited at the last close has not arrived; what waited before has.
    arrived.retain(|n| *n <= 2980);
    let whole = account.compare(&Numbers::of(arrived.clone()));
    assert_eq!((whole.numbers, whole.received, whole.explained, whole.missing), (3000, 3000 - 65, 65, vec![]));
    arrived.retain(|n| ![500, 501, 990, 2000].contains(n));
    let lost = account.compare(&Numbers::of(arrived)).missing;
    assert_eq!(lost, [Span::whole(500, 501), Span::whole(990, 990), Span::whole(2000, 2000)]);
}

proptest! {
    #[test]
    fn any_line_is_refused_without_a_panic(line in ".{0,300}", text in ".{0,200}") {
        prop_assert!(Signed::parse(&line).is_err());
        let (key, signature) = ([3; 32], [4; 64]);
        let signed = Signed { text, key, signature };
        prop_assert_eq!(Signed::parse(&signed.line()).unwrap(), signed.clone());
        prop_assert!(signed.verify().is_err());
    }
}
