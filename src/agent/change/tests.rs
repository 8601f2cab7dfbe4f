use super::*;
use crate::os::clock::Clock;

const BASE: &str = "[gateway]\nid = \"gw1\"\n[[broker]]\nurl = \"tcp://127.0.0.1:1\"\n";

#[tokio::test]
async fn an_edit_does_not_bring_back_what_was_just_given_up() {
    let store = tempfile::tempdir().unwrap();
    let changer = Changer::open(BASE, store.path(), Clock::system()).unwrap();
    let set = async |key: &str, value: &str| {
        changer.edit(&[Edit::Set(key.into(), value.into())], Origin::file(), "", Trying::Usual).await
    };
    set("uplink.batch", "7").await.unwrap();
    // The edit is asked for while the way back is being written.
    let (back, edited) = tokio::join!(changer.go_back("no broker"), set("uplink.brokers", "mirror"));
    assert!(back.unwrap());
    match edited {
        Ok(_) => assert_eq!(changer.get("uplink.brokers").unwrap().unwrap(), "mirror"),
        Err(refusal) => assert!(matches!(refusal, Refusal::OnTrial { .. }), "{refusal}"),
    }
    assert_eq!(changer.get("uplink.batch").unwrap().unwrap(), "500");
}
