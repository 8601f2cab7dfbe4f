//! The published scenario with nothing beside it: no site.toml, so the usual folder, the usual port and the usual roots.

use std::fs;
use std::process::{Command, Stdio};

use weir::os::pty::Pty;

use super::peers::broker::{Subscriber, publish};
use super::peers::line::read;
use super::peers::site::Site;
use super::rig::{Agent, Home, weir};
use super::{Notices, SCENARIO, broker};

/// Gives the rest of its arguments a machine of their own: `$1` is its folder, `$2` its first USB converter, `$3` its trusted roots.
const ALONE: &str = r#"set -e
folder=$1 line=$2 roots=$3
shift 3
mkdir "$folder/dev" "$folder/lib"
mount -t tmpfs weir-alone /etc/ssl
mkdir /etc/ssl/certs
cp "$roots" /etc/ssl/certs/ca-certificates.crt
mount -t tmpfs weir-alone "$folder/dev"
for node in null urandom; do
    touch "$folder/dev/$node"
    mount --bind "/dev/$node" "$folder/dev/$node"
done
mkdir "$folder/dev/pts"
mount --rbind /dev/pts "$folder/dev/pts"
ln -s "$line" "$folder/dev/ttyUSB0"
mount --rbind "$folder/dev" /dev
mkdir "$folder/lib/weir"
mount --bind "$folder/lib" /var/lib
exec "$@"
"#;

/// A namespace of mounts, as root or as nearly root; `None` where the machine lets nobody have one.
fn namespace() -> Option<Command> {
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let is_allowed = |way: &&&[&str]| {
        let tries = ["mount", "-t", "tmpfs", "none", "/mnt"];
        let tried = Command::new("unshare").args(**way).args(tries).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let way = ways.iter().find(is_allowed)?;
    let mut command = Command::new("unshare");
    command.args(*way);
    Some(command)
}

/// Runs what stands in the file, and nothing else.
fn run(home: &Home, mut command: Command, (pty, certificates): (&Pty, &Site), text: &str) -> (Agent, Notices) {
    fs::write(home.config(), text).unwrap();
    let notices = Notices::new(home);
    command.args(["sh", "-c", ALONE, "sh"]).arg(home.directory.path()).arg(pty.path()).arg(certificates.path("ca.pem"));
    command.arg(weir().get_program());
    let agent = home.run_as(command, "debug", &[("NOTIFY_SOCKET", home.path("notify").to_str().unwrap())]);
    (agent, notices)
}

#[tokio::test]
async fn the_scenario_alone_gets_ready_with_nothing_beside_it() {
    let Some(command) = namespace() else {
        return super::peers::not_checked("config.txt alone: this machine gives nobody a namespace of mounts");
    };
    let (home, pty, certificates) = (Home::new(), Pty::open().unwrap(), Site::new());
    let (mut agent, notices) = run(&home, command, (&pty, &certificates), SCENARIO);
    notices.until_ready().await;
    assert!(agent.is_running() && !home.path("site.toml").exists());
    assert!(home.path("lib/weir/store").is_dir(), "its store is where weir's store is");
    assert_eq!(fs::read(home.config()).unwrap(), SCENARIO.as_bytes());
    agent.stop().await;
}

#[tokio::test]
async fn with_another_server_alone_the_scenario_carries_bytes_both_ways() {
    let Some(command) = namespace() else {
        return super::peers::not_checked("config.txt alone: this machine gives nobody a namespace of mounts");
    };
    let (home, mut pty, certificates) = (Home::new(), Pty::open().unwrap(), Site::new());
    let (broker, plain) = broker(&home, &certificates).await;
    let mut subscriber = Subscriber::start(plain, &["-q", "1"]).await;
    let here = format!("ssl://127.0.0.1:{}", broker.port);
    let text = SCENARIO.replace("ssl://test.mosquitto.org:8883", &here);
    assert_eq!(text.lines().zip(SCENARIO.lines()).filter(|(ours, theirs)| ours != theirs).count(), 1);
    let (mut agent, notices) = run(&home, command, (&pty, &certificates), &text);
    notices.until_ready().await;
    agent.until_said(&["the broker lets weir listen"]).await;
    for round in 0..3 {
        publish(plain, "rxmaster", format!("/?{round}!\r\n").as_bytes(), false).await;
        assert_eq!(read(&mut pty, 6).await, format!("/?{round}!\r\n").as_bytes());
        pty.send(format!("/ISk5ME162-{round}").as_bytes()).await.unwrap();
        assert_eq!(subscriber.next_of("txmaster").await.payload, format!("/ISk5ME162-{round}"));
    }
    assert_eq!(pty.baud().unwrap(), 9600);
    agent.stop().await;
}
