//! systemd/helper on a bench: folders of its own, a systemctl that only notes what it is asked, a clock that is set.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Writes a program by another process: one that this process is just starting would inherit the open file, and a program that
/// is open for writing can't be run.
pub fn program(file: &Path, text: &str) {
    let mut install =
        Command::new("install").args(["-m", "755", "/dev/stdin"]).arg(file).stdin(Stdio::piped()).spawn().unwrap();
    install.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
}

/// The helper with everything it looks at.
pub struct Bench {
    pub home: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let bench = Self { home };
        for folder in ["run/request", "bin", "firmware"] {
            fs::create_dir_all(bench.path(folder)).unwrap();
        }
        bench.program("bin/systemctl", "#!/bin/sh\necho \"$@\" >>\"$BENCH/asked\"\n");
        bench.program("bin/date", "#!/bin/sh\ncat \"$BENCH/now\"\n");
        bench.program("bin/timedatectl", "#!/bin/sh\ncat \"$BENCH/synchronized\"\n");
        bench.program("weir", "#!/bin/sh\necho weir 1\n");
        bench.kernel(1, true);
        bench.time(1_800_000_000, 5000);
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        program(&self.path(name), text);
    }

    /// What the clocks show: seconds since 1970, and since the boot.
    pub fn time(&self, wall: u64, uptime: u64) {
        fs::write(self.path("now"), format!("{wall}\n")).unwrap();
        fs::write(self.path("uptime"), format!("{uptime}.27 99.00\n")).unwrap();
    }

    /// Which boot this is, and whether the kernel knows its clock to be right.
    pub fn kernel(&self, boot: u64, synchronized: bool) {
        fs::write(self.path("boot"), format!("6b6ebdd2-8e40-4c5a-9d3e-{boot:012x}\n")).unwrap();
        fs::write(self.path("synchronized"), if synchronized { "yes\n" } else { "no\n" }).unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/helper"));
        let paths = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command
            .env("PATH", paths)
            .env("BENCH", self.home.path())
            .env("WEIR_RUN", self.path("run"))
            .env("WEIR_HELPER_STATE", self.path("state"))
            .env("WEIR_BINARY", self.path("weir"))
            .env("WEIR_FIRMWARE", self.path("firmware/weir.new"))
            .env("WEIR_FIRMWARE_KEYS", self.path("keys"))
            .env("WEIR_UPTIME", self.path("uptime"))
            .env("WEIR_BOOT_ID", self.path("boot"))
            .env("WEIR_WATCH_STEP", "0.01")
            .env("WEIR_LAST_WORD", "0");
        command
    }

    /// Puts a request and has it judged; gives the answer.
    pub fn ask(&self, word: &str, content: &str) -> String {
        fs::write(self.path("run/request").join(word), content).unwrap();
        self.judge();
        self.answer(word)
    }

    pub fn judge(&self) -> Output {
        let output = self.command().output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output
    }

    /// The power fails and comes back: what is in memory is gone, and weir-trial.service does what it does before weir starts.
    pub fn boot(&self) {
        let _ = fs::remove_dir_all(self.path("run"));
        fs::create_dir_all(self.path("run/request")).unwrap();
        self.trial("ExecStartPre=", |command| command.output().unwrap());
    }

    /// Runs the lines of weir-trial.service that begin with `key`, where its condition holds.
    pub fn trial<T>(&self, key: &str, mut run: impl FnMut(&mut Command) -> T) -> Vec<T> {
        let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/weir-trial.service");
        let unit = fs::read_to_string(unit).unwrap();
        let begun = self.path("state/trial").exists();
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key)).filter(|_| begun);
        lines.map(|line| run(self.command().args(line.split(' ').skip(1)))).collect()
    }

    pub fn answer(&self, word: &str) -> String {
        fs::read_to_string(self.path(&format!("run/{word}.answer"))).unwrap_or_default().trim().to_owned()
    }

    /// What systemctl was asked since the last time.
    pub fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.path("asked")).unwrap_or_default();
        let _ = fs::remove_file(self.path("asked"));
        asked.lines().map(str::to_owned).collect()
    }

    /// A new firmware; gives its hash.
    pub fn firmware(&self, text: &str) -> String {
        fs::write(self.path("firmware/weir.new"), text).unwrap();
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        data_encoding::HEXLOWER.encode(hash.as_ref())
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}
