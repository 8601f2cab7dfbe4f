//! Sealing by a PKCS#11 token: SoftHSM's token, asked by OpenSC's program.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::peers;
use super::rig::{self, stderr, stdout};
use super::{Agent, Site};

const SO_PIN: &str = "87654321";
const PIN: &str = "20406080";
const WRONG: &str = "13579135";

/// A folder of tokens, what finds it, and a file with the PIN.
struct Tokens {
    folder: PathBuf,
    module: PathBuf,
}

impl Tokens {
    /// `None`, and told: the programs are not there.
    fn new(site: &Site) -> Option<Self> {
        let found =
            Command::new("sh").args(["-c", "ls /usr/lib/softhsm/libsofthsm2.so && command -v pkcs11-tool"]).output();
        let module = PathBuf::from("/usr/lib/softhsm/libsofthsm2.so");
        if !found.unwrap().status.success() {
            peers::not_checked("sealing by a PKCS#11 token: softhsm2 and opensc are not installed");
            return None;
        }
        let folder = site.home.path("tokens");
        fs::create_dir(&folder).unwrap();
        let tokens = Self { folder, module };
        let settings = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.folder.display());
        fs::write(tokens.settings(), settings).unwrap();
        Some(tokens)
    }

    fn settings(&self) -> PathBuf {
        self.folder.with_extension("conf")
    }

    /// A token with an RSA key 01 and an elliptic one 02; gives its URI, whose PIN is in `pin`.
    fn make(&self, label: &str, pin: &Path) -> String {
        let module = self.module.to_str().unwrap();
        let tool = |arguments: &[&str]| {
            let mut program = Command::new("pkcs11-tool");
            program.args(["--module", module]).args(arguments).env("SOFTHSM2_CONF", self.settings());
            let done = program.output().unwrap();
            assert!(done.status.success(), "{}", stderr(&done));
            stdout(&done)
        };
        // SoftHSM always shows one more slot, without a token yet.
        let slots = tool(&["--list-slots"]);
        let free = (slots.matches("\nSlot ").count() - 1).to_string();
        tool(&["--slot-index", &free, "--init-token", "--label", label, "--so-pin", SO_PIN]);
        let by = ["--token-label", label, "--login"];
        tool(&[&by[..], &["--login-type", "so", "--so-pin", SO_PIN, "--init-pin", "--new-pin", PIN]].concat());
        for (id, kind) in [("01", "rsa:2048"), ("02", "EC:prime256v1")] {
            tool(&[&by[..], &["--pin", PIN, "--keypairgen", "--key-type", kind, "--id", id]].concat());
        }
        write(pin, PIN);
        format!("pkcs11:token={label};id=%01?module-path={module}&pin-source=file:{}", pin.display())
    }

    fn weir(&self, site: &Site, arguments: &[&str]) -> Output {
        let mut command = rig::weir();
        command.env("SOFTHSM2_CONF", self.settings()).arg("--config").arg(site.home.config());
        command.args(arguments).output().unwrap()
    }

    fn refused(&self, site: &Site, arguments: &[&str], why: &str) {
        let done = self.weir(site, arguments);
        let told = stderr(&done);
        assert!(!done.status.success() && told.contains(why), "{why}: {told}");
        assert!(!told.contains(PIN) && !told.contains(WRONG), "{told}");
    }

    fn run(&self, site: &Site) -> Agent {
        site.home.run_with("trace", &[("SOFTHSM2_CONF", self.settings().to_str().unwrap())])
    }

    /// Puts a program of the same name before the real one: it writes down how it was called, then does this. Gives the way to it,
    /// and where it writes.
    fn instead(&self, site: &Site, does: &str) -> (String, PathBuf) {
        let (folder, calls) = (site.home.path("bin"), site.home.path("calls"));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("pkcs11-tool");
        fs::write(&program, format!("#!/bin/sh\necho \"$*\" >> {}\n{does}\n", calls.display())).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        (format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()), calls)
    }

    /// Whether the token counted a wrong PIN since it took a right one.
    fn counted(&self) -> bool {
        let mut program = Command::new("pkcs11-tool");
        program.arg("--module").arg(&self.module).arg("--list-slots").env("SOFTHSM2_CONF", self.settings());
        stdout(&program.output().unwrap()).contains("user PIN count low")
    }
}

fn write(file: &Path, pin: &str) {
    let _ = fs::remove_file(file);
    fs::write(file, format!("{pin}\n")).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

fn head(file: &Path) -> String {
    let content = fs::read(file).unwrap();
    String::from_utf8_lossy(&content[..content.iter().position(|byte| *byte == b'\n').unwrap()]).into_owned()
}

#[tokio::test]
async fn a_configuration_sealed_by_a_token_opens_with_that_token_only() {
    let site = Site::new().await;
    let Some(tokens) = Tokens::new(&site) else { return };
    let mut agent = site.run().await;
    agent.stop().await;
    let (pin, base) = (site.home.path("pin"), site.home.path("weir.toml.sealed"));
    let uri = tokens.make("gateway", &pin);
    let done = tokens.weir(&site, &["config", "seal", "--pkcs11", &uri]);
    assert!(done.status.success() && !site.home.config().exists(), "{done:?}");
    assert!(head(&base).starts_with("weir-sealed-1 pkcs11 "), "{}", head(&base));
    assert!(!fs::read(&base).unwrap().windows(7).any(|bytes| bytes == b"incomer"));
    let key = PathBuf::from(head(&base).rsplit_once(' ').unwrap().1);
    assert_eq!(head(&key), format!("weir-token-1 {uri}"));
    assert!(tokens.weir(&site, &["check"]).status.success());
    let mut agent = tokens.run(&site);
    agent.until_said(&["connected to the broker"]).await;
    agent.stop().await;
    assert!(!agent.log().join("\n").contains(PIN), "the PIN is in the log");

    // The token is away; then another one with the same label, PIN and id is there.
    let away = tokens.folder.with_extension("away");
    fs::rename(&tokens.folder, &away).unwrap();
    fs::create_dir(&tokens.folder).unwrap();
    tokens.refused(&site, &["check"], "there is no token gateway; plug it in");
    let mut agent = tokens.run(&site);
    assert!(!agent.ended().await.success());
    tokens.make("gateway", &pin);
    tokens.refused(&site, &["check"], "signs with another key than the one");
    fs::remove_dir_all(&tokens.folder).unwrap();
    fs::rename(&away, &tokens.folder).unwrap();
    let mut alone = rig::weir();
    let alone = alone.arg("--config").arg(site.home.config()).arg("check").env("PATH", "/nowhere").output().unwrap();
    assert!(stderr(&alone).contains("pkcs11-tool is not installed"), "{alone:?}");
    let aside = site.home.path("aside");
    fs::rename(&key, &aside).unwrap();
    tokens.refused(&site, &["check"], "can't be read: No such file or directory (os error 2); bring it back");
    fs::rename(&aside, &key).unwrap();
    // The PIN moves, and the first line is edited.
    let moved = site.home.path("pin-file");
    fs::rename(&pin, &moved).unwrap();
    tokens.refused(&site, &["check"], "its PIN can't be read from");
    let content = fs::read(&key).unwrap();
    let end = head(&key).len();
    let line = head(&key).replace(pin.to_str().unwrap(), moved.to_str().unwrap());
    fs::write(&key, [line.as_bytes(), &content[end..]].concat()).unwrap();
    let back = tokens.weir(&site, &["config", "unseal"]);
    assert!(back.status.success() && fs::read_to_string(site.home.config()).unwrap().contains("incomer"), "{back:?}");
}

#[tokio::test]
async fn a_wrong_pin_is_shown_to_the_token_once_however_often_weir_starts() {
    let site = Site::new().await;
    let Some(tokens) = Tokens::new(&site) else { return };
    let mut agent = site.run().await;
    agent.stop().await;
    let pin = site.home.path("pin");
    let uri = tokens.make("gateway", &pin);
    assert!(tokens.weir(&site, &["config", "seal", "--pkcs11", &uri]).status.success());
    fs::set_permissions(&pin, Permissions::from_mode(0o644)).unwrap();
    tokens.refused(&site, &["check"], "others may read its PIN");
    write(&pin, WRONG);
    let mut agent = tokens.run(&site);
    assert!(!agent.ended().await.success());
    let log = agent.log().join("\n");
    assert!(log.contains("the token gateway refused the PIN in") && !log.contains(WRONG), "{log}");
    assert!(tokens.counted());
    // A person's right one clears the count: from here on it tells whether weir shows the wrong one again.
    let mut person = Command::new("pkcs11-tool");
    person.arg("--module").arg(&tokens.module).args([
        "--token-label",
        "gateway",
        "--login",
        "--pin",
        PIN,
        "--list-objects",
    ]);
    assert!(person.env("SOFTHSM2_CONF", tokens.settings()).output().unwrap().status.success());
    assert!(!tokens.counted());
    for _ in 0..3 {
        tokens.refused(&site, &["check"], "it is not shown again");
        write(&pin, WRONG);
    }
    let mut agent = tokens.run(&site);
    assert!(!agent.ended().await.success() && !tokens.counted());
    write(&pin, PIN);
    let mut agent = tokens.run(&site);
    agent.until_said(&["connected to the broker"]).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_token_without_an_answer_is_asked_once_a_start_and_no_argument_shows_the_pin() {
    let site = Site::new().await;
    let Some(tokens) = Tokens::new(&site) else { return };
    let mut agent = site.run().await;
    agent.stop().await;
    let pin = site.home.path("pin");
    let uri = tokens.make("gateway", &pin);
    let plain = fs::read_to_string(site.home.config()).unwrap();
    assert!(tokens.weir(&site, &["config", "seal", "--pkcs11", &uri]).status.success());
    let settings = tokens.settings();
    let settings = settings.to_str().unwrap();
    let (way, calls) = tokens.instead(&site, "exec /usr/bin/pkcs11-tool \"$@\"");
    let mut agent = site.home.run_with("debug", &[("SOFTHSM2_CONF", settings), ("PATH", &way)]);
    agent.until_said(&["connected to the broker"]).await;
    agent.stop().await;
    let called = fs::read_to_string(&calls).unwrap();
    assert!(called.contains("--pin=env:") && !called.contains(PIN) && called.lines().count() == 1, "{called}");
    // A reader that fails for a while: each start asks once, and what the token took before is good when it is back.
    let (way, calls) = tokens.instead(&site, "echo the reader is odd >&2; exit 3");
    let starts = async |asked: [usize; 3]| {
        for asked in asked {
            let mut agent = site.home.run_with("debug", &[("SOFTHSM2_CONF", settings), ("PATH", &way)]);
            assert!(!agent.ended().await.success());
            assert_eq!(fs::read_to_string(&calls).unwrap().lines().count(), asked, "{:?}", agent.log());
        }
    };
    starts([2, 3, 4]).await;
    assert!(tokens.weir(&site, &["check"]).status.success());
    // Of one that nobody knows to be good the third start does not ask.
    let remembered = fs::read_dir(site.home.path("store")).unwrap().map(|file| file.unwrap().path());
    let remembered: Vec<_> = remembered.filter(|file| file.extension().is_some_and(|end| end == "pin")).collect();
    assert_eq!(remembered.len(), 1, "{remembered:?}");
    fs::remove_file(&remembered[0]).unwrap();
    starts([5, 6, 6]).await;
    tokens.refused(&site, &["check"], "or, when it is right, remove");
    fs::remove_file(&remembered[0]).unwrap();
    assert!(tokens.weir(&site, &["check"]).status.success());
    // One start that needs it twice: a plain configuration that names sealed files.
    let keys = site.home.path("weir.toml.sealed");
    let keys = format!("keys_file = \"{}\"", keys.display());
    let text = format!("{plain}\n[control.signatures]\n{keys}\n[control.firmware]\n{keys}\n");
    fs::write(site.home.config(), text).unwrap();
    let mut command = rig::weir();
    let command = command.env("SOFTHSM2_CONF", settings).env("PATH", &way).arg("--config").arg(site.home.config());
    let told = command.arg("check").output().unwrap();
    assert_eq!(
        stderr(&told).matches("the reader is odd").count() + stdout(&told).matches("the reader is odd").count(),
        2,
        "{told:?}"
    );
    assert_eq!(fs::read_to_string(&calls).unwrap().lines().count(), 7);
}

#[tokio::test]
async fn files_are_sealed_anew_from_the_boards_key_to_a_token_to_another_and_back() {
    let site = Site::new().await;
    let Some(tokens) = Tokens::new(&site) else { return };
    let mut agent = site.run().await;
    agent.stop().await;
    let (pin, password) = (site.home.path("pin"), site.home.path("password"));
    fs::write(&password, "hunter2\n").unwrap();
    let (one, two) = (tokens.make("one", &pin), tokens.make("two", &pin));
    let all = [site.home.path("weir.toml.sealed"), password.clone(), site.home.path("store/config/1.toml")];
    let name = password.to_str().unwrap();
    let all_have = |kind: &str| all.iter().for_each(|file| assert!(head(file).starts_with(kind), "{}", head(file)));
    let runs = |arguments: &[&str], words: &str| {
        let done = tokens.weir(&site, arguments);
        assert!(done.status.success() && stdout(&done).contains(words), "{done:?}");
    };
    // What can't be is refused before anything is sealed.
    for (from, to, why) in [
        ("token=one", "token=none", "there is no token none"),
        ("id=%01", "id=%07", "no private key with the id 07"),
        ("id=%01", "id=%02", "does not sign by SHA256-RSA-PKCS"),
        ("libsofthsm2", "libnone", "is not there"),
        ("softhsm/libsofthsm2.so", "os-release", "can't load the module"),
        ("id=%01", "object=weir", "more than weir looks at"),
    ] {
        tokens.refused(&site, &["config", "seal", "--pkcs11", &one.replace(from, to), name], why);
    }
    tokens.refused(&site, &["config", "seal", "--pkcs11", &one, pin.to_str().unwrap()], "nothing could open it");
    assert_eq!(fs::read_to_string(&password).unwrap(), "hunter2\n");
    assert!(site.home.config().exists());

    // The PIN bound to the board, the rest to the token.
    runs(&["config", "seal", name, pin.to_str().unwrap()], "sealed");
    all_have("weir-sealed-1 board");
    runs(&["config", "seal", "--pkcs11", &one, name], "with the other key");
    all_have("weir-sealed-1 pkcs11 ");
    let first = head(&password);
    assert!(head(&pin).starts_with("weir-sealed-1 board"));
    runs(&["check"], "");
    // Again with the same changes nothing; with another token all is sealed anew.
    runs(&["config", "seal", "--pkcs11", &one, name], "");
    assert_eq!(head(&password), first);
    runs(&["config", "seal", "--pkcs11", &two, name], "with the other key");
    all_have("weir-sealed-1 pkcs11 ");
    assert_ne!(head(&password), first);
    // What the agent writes is sealed with the token's key, too.
    let mut agent = tokens.run(&site);
    agent.until_said(&["connected to the broker"]).await;
    agent.stop().await;
    runs(&["config", "unseal", name, pin.to_str().unwrap()], "unsealed");
    assert_eq!(fs::read_to_string(&password).unwrap(), "hunter2\n");
    runs(&["config", "seal", name], "sealed");
    all_have("weir-sealed-1 board");
}
