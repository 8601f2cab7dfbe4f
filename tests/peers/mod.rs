//! Programs nobody here wrote, started for a test and ended with it.

#![allow(dead_code, unreachable_pub, clippy::print_stderr, reason = "each test binary uses its own part, and may tell")]

pub mod broker;
#[cfg(feature = "demo")]
pub mod line;
#[cfg(feature = "demo")]
pub mod site;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a peer may take to become ready, on a machine with other work.
const READY: Duration = Duration::from_secs(180);

/// Notes that a test could not look at something on this machine; tests/run shows it.
pub fn not_checked(what: &str) {
    eprintln!("NOT CHECKED: {what}");
    let Some(file) = std::env::var_os("WEIR_NOT_CHECKED") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    std::io::Write::write_all(&mut file, format!("NOT CHECKED: {what}\n").as_bytes()).unwrap();
}

/// A running program; killed by its own process id when dropped.
pub struct Peer {
    child: Child,
}

impl Peer {
    /// Starts a program and waits until it prints a line that contains `ready`, on either of its outputs.
    pub fn start(command: &mut Command, ready: &str) -> Self {
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child =
            started.unwrap_or_else(|e| panic!("cannot start {command:?}: {e}; tests/run installs the peers"));
        let (lines, heard) = mpsc::channel();
        listen(child.stdout.take().unwrap(), lines.clone());
        listen(child.stderr.take().unwrap(), lines);
        let peer = Self { child };
        let mut told = String::new();
        loop {
            match heard.recv_timeout(READY) {
                Ok(line) if line.contains(ready) => return peer,
                Ok(line) => told += &format!("{line}\n"),
                Err(_) => panic!("{command:?} did not say \"{ready}\"; it said:\n{told}"),
            }
        }
    }

    /// A socat pair of pseudo-terminals with names in `directory`.
    pub fn socat_pair(directory: &Path) -> (Self, PathBuf, PathBuf) {
        let (one, other) = (directory.join("one"), directory.join("other"));
        let end = |path: &Path| format!("pty,raw,echo=0,link={}", path.display());
        let peer = Self::start(
            Command::new("socat").args(["-d", "-d", &end(&one), &end(&other)]),
            "starting data transfer loop",
        );
        (peer, one, other)
    }

    /// The same with these variables in its environment.
    pub fn python_with(script: &str, arguments: &[&str], variables: &[(&str, &str)], ready: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
        Self::start(Command::new(python()).arg(script).args(arguments).envs(variables.iter().copied()), ready)
    }

    /// A script of tests/peers under the virtual environment's python.
    pub fn python(script: &str, arguments: &[&str], ready: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
        Self::start(Command::new(python()).arg(script).args(arguments), ready)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps reading, so that the peer never blocks on a full pipe.
fn listen(stream: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
}

/// Runs a program to its end without blocking the test's own runtime.
pub async fn run(command: &mut Command) -> Output {
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("true")));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(READY, output).await.expect("the program ends");
    output.unwrap_or_else(|e| panic!("cannot start {command:?}: {e}; tests/run installs the peers"))
}

/// The python of the virtual environment: `WEIR_VENV`, or `.venv` in the project.
pub fn python() -> PathBuf {
    let venv = std::env::var_os("WEIR_VENV")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "{} is missing: run tests/run, which makes it from tests/peers/requirements.txt",
        python.display()
    );
    python
}

/// A TCP port of the loopback interface that nobody uses now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
