//! Debian's smstools (smsd) runs on the simulated modem: it sends what is put into its folder and stores what comes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weir::sim::modem::{Make, Modem as Simulated};

use super::rig::{LIMIT, at, name, plug};

struct Smsd(Child);

impl Drop for Smsd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path) -> Smsd {
    let place = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    };
    let text = format!(
        "devices = GSM1\noutgoing = {}\nchecked = {}\nfailed = {}\nincoming = {}\nsent = {}\nlogfile = {log}\nloglevel = 7\n\
         infofile = {info}\npidfile = {pid}\ndelaytime = 1\nautosplit = 3\nstats_interval = 0\n\
         [GSM1]\ndevice = {device}\nincoming = yes\nbaudrate = 115200\nrtscts = no\nmemory_start = 1\n",
        place("outgoing"),
        place("checked"),
        place("failed"),
        place("incoming"),
        place("sent"),
        log = folder.join("smsd.log").display(),
        info = folder.join("smsd.working").display(),
        pid = folder.join("smsd.pid").display(),
        device = name(folder).display(),
    );
    fs::write(folder.join("smsd.conf"), text).unwrap();
    let mut command = Command::new("/usr/sbin/smsd");
    command.arg(format!("-c{}", folder.join("smsd.conf").display())).arg("-t");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Smsd(child.expect("smsd is needed: run tests/run, which installs smstools"))
}

/// Waits until a folder has a file whose name begins so and gives its content; smsd tries its folders with files of its own.
async fn file_in(folder: &Path, start: &str, log: &Path) -> String {
    let named = |file: &fs::DirEntry| file.file_name().to_string_lossy().starts_with(start);
    let found = async {
        loop {
            let file = fs::read_dir(folder)
                .unwrap()
                .flatten()
                .find(|file| named(file) && file.metadata().is_ok_and(|m| m.len() > 0));
            if let Some(content) = file.and_then(|file| fs::read(file.path()).ok()) {
                return String::from_utf8_lossy(&content).into_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(LIMIT, found).await {
        Ok(content) => content,
        Err(_) => {
            panic!("nothing in {}; smsd says:\n{}", folder.display(), fs::read_to_string(log).unwrap_or_default())
        }
    }
}

#[tokio::test]
async fn smsd_sends_and_receives() {
    let folder = tempfile::tempdir().unwrap();
    let plugged = plug(folder.path(), Simulated::new(Make::default()));
    plugged.stick().deliver("+34666123456", "to smsd", at());
    let _smsd = start(folder.path());
    let log = folder.path().join("smsd.log");
    let came = file_in(&folder.path().join("incoming"), "GSM1.", &log).await;
    assert!(came.contains("From: 34666123456") && came.ends_with("to smsd"), "{came}");
    tokio::time::timeout(LIMIT, plugged.until(|modem| modem.stored() == 0)).await.expect("smsd deletes it");
    // Written beside and moved, as smsd wants it.
    let text = "long text ".repeat(20);
    fs::write(folder.path().join("new"), format!("To: 34600111222\n\n{text}")).unwrap();
    fs::rename(folder.path().join("new"), folder.path().join("outgoing/new")).unwrap();
    file_in(&folder.path().join("sent"), "new", &log).await;
    let sent = plugged.stick().sent.clone();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent.iter().map(|submit| submit.data.body.text()).collect::<String>().trim_end(), text.trim_end());
    assert_eq!(sent[0].to.to_string(), "+34600111222");
}
