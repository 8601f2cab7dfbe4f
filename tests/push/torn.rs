//! Pushes that arrive torn or late: their rest comes after a pause, in front of the next message or in the middle of it. What
//! is published was sent, and the first whole message afterwards is heard.

use proptest::prelude::*;
use weir::sim::push_meter::one;

use super::*;

/// How a message comes.
#[derive(Debug, Clone)]
enum Comes {
    /// As it was sent, with a pause behind it.
    Whole,
    /// Torn here: the rest comes after a pause.
    Late(prop::sample::Index),
    /// Torn here: the rest never comes.
    Lost(prop::sample::Index),
    /// Torn here, the rest follows the next message without a pause.
    Swapped(prop::sample::Index),
    /// Its beginning is missing, as when the port was opened in the middle of it.
    Headless(prop::sample::Index),
}

fn comes() -> impl Strategy<Value = Comes> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        Just(Comes::Whole),
        at().prop_map(Comes::Late),
        at().prop_map(Comes::Lost),
        at().prop_map(Comes::Swapped),
        at().prop_map(Comes::Headless),
    ]
}

/// Hears bytes, then perhaps a pause; adds the energies that were believed.
fn hear(listener: &mut dyn Listener, name: &str, bytes: &[u8], pause: bool, into: &mut Vec<String>) {
    let mut found = listener.push(bytes);
    if pause {
        found.extend(listener.silence());
    }
    into.extend(found.into_iter().flatten().filter_map(|values| energy(&values, name)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_torn_or_late_message_gives_no_value_that_was_not_sent_and_the_next_whole_one_is_heard(
        ways in prop::collection::vec(comes(), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        for (kind, protocol_name, name) in KINDS {
            // A ciphered meter's counter would have to rise.
            if matches!(kind, Kind::P1Ciphered { .. } | Kind::Dlms { keys: Some(_), .. }) {
                continue;
            }
            let mut listener = protocol(protocol_name).listener(&settings(kind, protocol_name, folder.path())).unwrap();
            let listener = listener.as_mut();
            let message = one(kind);
            let mut believed = Vec::new();
            // The shape of what has no checksum must be known.
            hear(listener, name, &message, true, &mut believed);
            hear(listener, name, &message, true, &mut believed);
            let right = believed.pop().expect("a whole message is heard");
            believed.clear();
            let mut held: Vec<u8> = Vec::new();
            for way in &ways {
                let cut = |at: &prop::sample::Index| message.split_at(1 + at.index(message.len() - 1));
                match way {
                    Comes::Whole => hear(listener, name, &message, true, &mut believed),
                    Comes::Late(at) => {
                        let (begin, rest) = cut(at);
                        hear(listener, name, begin, true, &mut believed);
                        hear(listener, name, rest, true, &mut believed);
                    }
                    Comes::Lost(at) => hear(listener, name, cut(at).0, true, &mut believed),
                    Comes::Swapped(at) => {
                        let (begin, rest) = cut(at);
                        hear(listener, name, begin, false, &mut believed);
                        held = rest.to_vec();
                    }
                    Comes::Headless(at) => hear(listener, name, cut(at).1, true, &mut believed),
                }
                if !held.is_empty() && !matches!(way, Comes::Swapped(_)) {
                    hear(listener, name, &std::mem::take(&mut held), true, &mut believed);
                }
            }
            listener.silence();
            prop_assert!(believed.iter().all(|energy| *energy == right), "{kind:?} {ways:?}: {believed:?}, not {right}");
            let mut last = Vec::new();
            hear(listener, name, &message, true, &mut last);
            prop_assert_eq!(last, [right], "{:?} {:?}", kind, ways);
        }
    }
}
