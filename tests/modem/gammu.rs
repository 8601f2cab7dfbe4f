//! Debian's gammu talks to the simulated modem: whether it behaves like one.

use std::path::PathBuf;
use std::process::Command;

use weir::sim::modem::{Make, Modem as Simulated};
use weir::sim::stick::Plugged;

use super::peers::run;
use super::rig::{at, name, plug};

struct Phone {
    folder: tempfile::TempDir,
    plugged: Plugged<Simulated>,
}

impl Phone {
    fn new(make: Make) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugged = plug(folder.path(), Simulated::new(make));
        let phone = Self { folder, plugged };
        let text = format!("[gammu]\ndevice = {}\nconnection = at115200\n", name(phone.folder.path()).display());
        std::fs::write(phone.settings(), text).unwrap();
        phone
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("gammurc")
    }

    async fn gammu(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("gammu");
        command.arg("-c").arg(self.settings()).args(arguments).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        let output = run(&mut command).await;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let all = format!("{told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "gammu {arguments:?}: {all}\nit asked {:?}", self.plugged.stick().asked);
        told
    }
}

#[tokio::test]
async fn gammu_identifies_the_modem_and_its_network() {
    let phone = Phone::new(Make::default());
    let told = phone.gammu(&["identify"]).await;
    for wanted in ["weir", "SIM-1", "356938035643809", "214070123456789"] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    let told = phone.gammu(&["networkinfo"]).await;
    for wanted in ["home network", "214 07", "LAC 00C3", "CID 0001A2B3", "Movistar"] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
}

#[tokio::test]
async fn gammu_sends_reads_and_deletes_as_pdus_and_as_text() {
    for pdu_mode in [true, false] {
        let phone = Phone::new(Make { pdu_mode, ..Make::default() });
        let texts = ["hello [euro] from the network", "one more"];
        for text in texts {
            phone.plugged.stick().deliver("+34666123456", text, at());
        }
        let told = phone.gammu(&["getallsms"]).await;
        assert!(texts.iter().all(|text| told.contains(text)), "{pdu_mode}: {told}");
        assert!(told.contains("\"+34666123456\"") && told.contains("2026"), "{pdu_mode}: {told}");
        phone.gammu(&["sendsms", "TEXT", "+34600111222", "-text", "from gammu"]).await;
        let sent = phone.plugged.stick().sent.clone();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].to.to_string(), sent[0].data.body.text()), ("+34600111222".into(), "from gammu".into()));
        phone.gammu(&["deletesms", "1", "1"]).await;
        assert_eq!(phone.plugged.stick().stored(), 1, "{pdu_mode}");
        let told = phone.gammu(&["getallsms"]).await;
        assert!(!told.contains(texts[0]) && told.contains(texts[1]), "{pdu_mode}: {told}");
        let asked_for_text = phone.plugged.stick().was_asked("AT+CMGF=1");
        assert_eq!(asked_for_text, !pdu_mode);
    }
}

#[tokio::test]
async fn gammu_sends_long_and_foreign_texts_and_reads_ours() {
    let phone = Phone::new(Make::default());
    let long = "long words ".repeat(20);
    let foreign = "жизнь €";
    phone.plugged.stick().deliver("+34666123456", &long, at());
    phone.plugged.stick().deliver("Movistar", foreign, at());
    let told = phone.gammu(&["getallsms"]).await;
    assert!(told.contains("part 1 of 2") && told.contains("part 2 of 2") && told.contains(foreign), "{told}");
    assert!(told.contains("Movistar"), "{told}");
    phone.gammu(&["sendsms", "TEXT", "+34600111222", "-unicode", "-len", "200", "-text", &foreign.repeat(15)]).await;
    let sent = phone.plugged.stick().sent.clone();
    assert!(sent.len() > 1 && sent.iter().all(|submit| submit.data.part().is_some()), "{sent:?}");
    assert_eq!(sent.iter().map(|submit| submit.data.body.text()).collect::<String>(), foreign.repeat(15));
}

#[tokio::test]
async fn gammu_is_refused_as_by_a_network_and_asks_for_the_pin() {
    let phone = Phone::new(Make { refuse_sending: [500; 9].into(), ..Make::default() });
    let mut command = Command::new("gammu");
    command.arg("-c").arg(phone.settings()).args(["sendsms", "TEXT", "+34600111222", "-text", "x"]);
    assert!(!run(&mut command).await.status.success());
    assert!(phone.plugged.stick().sent.is_empty());
    let phone = Phone::new(Make { pin: Some("4711".into()), ..Make::default() });
    let told = phone.gammu(&["getsecuritystatus"]).await;
    assert!(told.to_lowercase().contains("pin"), "{told}");
    phone.gammu(&["entersecuritycode", "PIN", "4711"]).await;
    assert_eq!(phone.plugged.stick().pins_shown, 1);
    assert!(phone.gammu(&["getsecuritystatus"]).await.contains("Nothing to enter"));
}
