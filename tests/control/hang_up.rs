//! Who hangs up in the middle of a change of the configuration takes nothing back: it stands or goes by its own merit.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use weir::os::pty::Pty;

use super::rig::{self, Home, stdout};
use super::{Json, peers, site, tunnel};

/// The text of the running configuration as a pipe: who reads it waits, so that a change which begins there has a middle.
struct Middle {
    text: String,
    path: PathBuf,
}

impl Middle {
    fn of(home: &Home, number: u64) -> Self {
        let path = home.path("store/config").join(format!("{number}.toml"));
        let text = fs::read_to_string(&path).unwrap();
        fs::rename(&path, path.with_extension("aside")).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self { text, path }
    }

    /// Waits until the agent reads it.
    async fn reached(&self) -> File {
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        let mut file = None;
        rig::until("the agent takes the change", || {
            file = OpenOptions::new().write(true).custom_flags(flags).open(&self.path).ok();
            file.is_some()
        })
        .await;
        file.unwrap()
    }

    fn go_on(self, mut file: File) {
        fs::rename(self.path.with_extension("aside"), &self.path).unwrap();
        file.write_all(self.text.as_bytes()).unwrap();
    }
}

/// Asks at the local door, without waiting for the answer: the programs read the configuration themselves before they ask.
fn ask(home: &Home, question: &str) -> UnixStream {
    let mut client = UnixStream::connect(home.path("store/weir.sock")).unwrap();
    client.write_all(format!("{{{question}}}\n").as_bytes()).unwrap();
    client
}

#[tokio::test]
async fn who_hangs_up_in_the_middle_of_a_change_takes_nothing_back() {
    let pty = Pty::open().unwrap();
    let (home, _broker, agent, mut platform) = site(&format!("{}confirm = \"10s\"\n", tunnel(pty.path()))).await;
    let book = || fs::read_to_string(home.path("store/config/book")).unwrap();
    rig::until("it is noted that the broker was reached", || book().contains("\"reached\": true")).await;
    // An order at the local door.
    let middle = Middle::of(&home, 1);
    let client = ask(
        &home,
        "\"ask\":\"config\",\"order\":\"set\",\"changes\":[[\"uplink.batch\",\"400\"]],\"how\":{\"confirm_s\":300}",
    );
    let waiting = middle.reached().await;
    drop(client);
    middle.go_on(waiting);
    agent.until_said(&["was confirmed", "number=2"]).await;
    assert!(platform.ask("AT^WEIR=GETPARAM,uplink.batch").await.contains("uplink.batch: 400"));
    // A command in AT style as `weir at` gives it, of one that goes back.
    let middle = Middle::of(&home, 2);
    let dead = format!("AT^WEIR=SETPARAM,broker.url,tcp://127.0.0.1:{}", peers::free_port());
    let client = ask(&home, &format!("\"ask\":\"at\",\"text\":\"{dead}\""));
    let waiting = middle.reached().await;
    drop(client);
    middle.go_on(waiting);
    agent.until_said(&["was given up", "number=3"]).await;
    let connected = || agent.said(&["connected to the broker"]).len();
    rig::until("the one before runs again", || connected() >= 3).await;
    let history: Json = serde_json::from_str(&stdout(&home.weir(&["config", "history", "--json"]))).unwrap();
    let outcomes: Vec<_> = history.as_array().unwrap().iter().map(|entry| entry["outcome"].clone()).collect();
    assert_eq!(outcomes, ["first", "confirmed", "went-back"]);
    // The audit has what became of both, and the agent is there for the next.
    let audit = platform.ask("AT^WEIR=AUDIT,100").await;
    let outcome = |what: &str| {
        let lines = audit.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        let of_it = lines.filter(|line| line["command"].as_str().is_some_and(|command| command.contains(what)));
        of_it.map(|line| line["outcome"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(outcome("config set uplink.batch"), ["begun", "done"], "{audit}");
    assert_eq!(outcome("SETPARAM,broker.url"), ["begun", "done"], "{audit}");
}
