//! A key that a PKCS#11 token keeps: `pkcs11-tool` of OpenSC asks the token, in a process of its own.
//!
//! The key is 32 random bytes in a small file, encrypted with what the token's RSA key signs (SHA256-RSA-PKCS, which gives the same
//! signature each time: RFC 8017, 8.2.1) over 32 other random bytes of that file. A signature, since every token with RSA makes one,
//! while `pkcs11-tool` can't encrypt for an RSA key. The file's first line is the URI; it may be edited, when the PIN or the
//! module moves. The PIN goes to the program by its environment, which its own user and root may see, never as an argument.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ring::aead::Aad;
use ring::rand::SecureRandom;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use zeroize::Zeroizing;

use super::uri::Uri;
use super::{LONGEST_HEAD, SALT, SealError, derived, opened, pin};
use crate::os::file::{open_itself, write_atomic_for};
use crate::os::random;

const PROGRAM: &str = "pkcs11-tool";
/// What a file of a token's key begins with.
const MAGIC: &str = "weir-token-1 ";
/// What is signed begins so: a key that signs something else, too, never signs this for it.
const SIGNED: &[u8] = b"weir opens its sealed files by a signature over this and what follows\n";
/// How long the token may take: its PIN and one signature are a few seconds on a slow card.
pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// A signature of RSA with 2048 bits, the shortest key that is taken.
const SHORTEST: usize = 256;
/// The environment by which the PIN is handed over.
const PIN: &str = "WEIR_TOKEN_PIN";

/// What became of asking the token.
#[derive(Debug)]
enum Answer {
    Signature(Zeroizing<Vec<u8>>),
    /// The PIN was right, but there is no signature.
    Taken(String),
    /// The PIN was wrong.
    Refused(String),
    /// The token did not see the PIN.
    Unseen(String),
    Unclear(String),
}

/// Why there is no key.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: String,
    /// The PIN may have been shown: it is not tried again before the next start.
    pub(super) shown: bool,
}

impl Failed {
    const fn unshown(why: String) -> Self {
        Self { why, shown: false }
    }
}

/// Makes a key for the token of a URI, and its file.
pub(super) fn make(file: &Path, uri: &Uri, owner: Option<(u32, u32)>) -> Result<(), SealError> {
    let mut random = Zeroizing::new([0; SALT * 2]);
    random::system().fill(&mut *random).map_err(|_| io::Error::other("the system gives no randomness"))?;
    let (salt, key) = random.split_at(SALT);
    let signature = ask(uri, salt, file).map_err(|failed| SealError::NoToken(failed.why))?;
    let (once, nonce) = derived(&signature, salt)?;
    let mut body = key.to_vec();
    once.seal_in_place_append_tag(nonce, Aad::from(MAGIC.as_bytes()), &mut body).map_err(|_| SealError::Wrong)?;
    let content = [MAGIC.as_bytes(), uri.text.as_bytes(), b"\n", salt, &body].concat();
    Ok(write_atomic_for(file, &content, 0o600, owner)?)
}

/// The key in a file, by its token.
pub(super) fn key(file: &Path) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let (uri, rest) = read(file).map_err(Failed::unshown)?;
    let salt = rest.get(..SALT).unwrap_or_default();
    let signature = ask(&uri, salt, file)?;
    opened(&signature, MAGIC, &rest).map(Zeroizing::new).map_err(|_| Failed {
        why: format!(
            "the token {} signs with another key than the one {} was made with; bring the right token back",
            uri.token,
            file.display()
        ),
        shown: true,
    })
}

/// The file of the PIN that opens a key's token.
pub(super) fn pin_of(file: &Path) -> Option<PathBuf> {
    Some(read(file).ok()?.0.pin)
}

fn read(file: &Path) -> Result<(Uri, Vec<u8>), String> {
    let unreadable = |error: io::Error| format!("{} can't be read: {error}; bring it back", file.display());
    let mut content = Vec::new();
    // Any file may be named in the head of one that others wrote.
    open_itself(file)
        .and_then(|file| file.take(2 * LONGEST_HEAD as u64).read_to_end(&mut content))
        .map_err(unreadable)?;
    let (head, rest) = super::split(&content).map_err(|_| format!("{} is damaged; bring it back", file.display()))?;
    let head = head.strip_prefix(MAGIC).filter(|_| rest.len() > SALT);
    let head = head.ok_or_else(|| format!("{} is no file of a token's key; bring it back", file.display()))?;
    Ok((Uri::parse(head).map_err(|why| format!("{}: {why}", file.display()))?, rest.to_vec()))
}

/// Has the token sign once, by the PIN of the URI; nobody else shows that PIN meanwhile.
fn ask(uri: &Uri, salt: &[u8], file: &Path) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let module = trusted(&uri.module).map_err(Failed::unshown)?;
    let _held = alone(folder, 2 * LIMIT).map_err(|error| Failed::unshown(format!("{}: {error}", folder.display())))?;
    let trial = pin::begin(&uri.pin, folder, &uri.token).map_err(Failed::unshown)?;
    let mut program = Command::new(PROGRAM);
    program.arg(format!("--module={}", module.display())).arg(format!("--token-label={}", uri.token));
    program.args(["--login", &format!("--pin=env:{PIN}")]).env(PIN, &*trial.pin);
    program.args(["--sign", "--mechanism=SHA256-RSA-PKCS", &format!("--id={}", uri.id)]);
    let answer = match run(&mut program, &[SIGNED, salt].concat(), LIMIT) {
        Ok(Some(output)) => heard(output, uri, &trial.pin),
        Ok(None) => Answer::Unclear(format!(
            "the token {} gave no answer within {} s; plug it in anew",
            uri.token,
            LIMIT.as_secs()
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Answer::Unseen(format!("{PROGRAM} is not installed; install OpenSC (Debian's package opensc)"))
        }
        Err(error) => Answer::Unseen(format!("{PROGRAM} can't be started: {error}")),
    };
    match answer {
        Answer::Signature(signature) => {
            trial.taken();
            Ok(signature)
        }
        Answer::Taken(why) => {
            trial.taken();
            Err(Failed::unshown(why))
        }
        Answer::Refused(why) => {
            trial.refused();
            Err(Failed { why, shown: true })
        }
        Answer::Unclear(why) => {
            trial.unclear();
            Err(Failed { why, shown: true })
        }
        Answer::Unseen(why) => {
            trial.unseen();
            Err(Failed::unshown(why))
        }
    }
}

/// Holds a folder, but does not wait for ever for who holds it: that may be anybody who may read it.
fn alone(folder: &Path, limit: Duration) -> io::Result<File> {
    const STEP: Duration = Duration::from_millis(100);
    let held = File::open(folder)?;
    for _ in 0..limit.as_millis() / STEP.as_millis() {
        match flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(STEP),
            done => return done.map(|()| held).map_err(Into::into),
        }
    }
    Err(io::Error::other("another program has asked a token for too long; end it"))
}

/// The module itself, when only root, or who runs this, could have put it there: it runs with their rights.
fn trusted(module: &Path) -> Result<PathBuf, String> {
    let absent = |error: io::Error| format!("its module {} is not there: {error}; install it", module.display());
    let itself = fs::canonicalize(module).map_err(absent)?;
    let user = geteuid().as_raw();
    for part in itself.ancestors() {
        let about = fs::symlink_metadata(part).map_err(absent)?;
        // In a folder such as /tmp nobody removes what is another's.
        let is_open = about.mode() & 0o022 != 0 && !(about.is_dir() && about.mode() & 0o1000 != 0);
        if is_open || !(about.uid() == 0 || about.uid() == user) {
            return Err(format!(
                "its module {} could be changed by others through {}, and is not loaded: it must belong to root, and so must its folders",
                module.display(),
                part.display()
            ));
        }
    }
    Ok(itself)
}

/// The first of what a program says; the rest is read and forgotten, so that it may go on.
fn said(by: Option<impl Read>) -> io::Result<Vec<u8>> {
    const MOST: u64 = 64 << 10;
    let mut bytes = Vec::new();
    if let Some(mut by) = by {
        by.by_ref().take(MOST).read_to_end(&mut bytes)?;
        io::copy(&mut by, &mut io::sink())?;
    }
    Ok(bytes)
}

/// Runs a program to its end; `None`: it did not end in time, and was killed with all it started.
pub(super) fn run(program: &mut Command, input: &[u8], limit: Duration) -> io::Result<Option<Output>> {
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = program.spawn()?;
    let group = Pid::from_child(&child);
    if let Some(mut to) = child.stdin.take() {
        // Less than a pipe holds; one that ended already says why.
        let _ = to.write_all(input);
    }
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // Both at once: a program that waits until somebody reads the one says no more on the other.
        let err = child.stderr.take();
        let err = std::thread::spawn(move || said(err));
        let stdout = said(child.stdout.take());
        let stderr = err.join().unwrap_or_else(|_| Ok(Vec::new()));
        let status = child.wait();
        let output = || Ok(Output { status: status?, stdout: stdout?, stderr: stderr? });
        let _ = tell.send(output());
    });
    match told.recv_timeout(limit) {
        Ok(output) => output.map(Some),
        Err(_) => {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = told.recv_timeout(Duration::from_secs(1));
            Ok(None)
        }
    }
}

/// What the program said, in weir's words.
fn heard(output: Output, uri: &Uri, pin: &str) -> Answer {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let token = &uri.token;
    if output.status.success() && output.stdout.len() >= SHORTEST {
        return Answer::Signature(Zeroizing::new(output.stdout));
    }
    let last = || last_of(&said.replace(pin, "***"), output.status);
    let is = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if is(&["CKR_PIN_LOCKED"]) {
        Answer::Refused(format!("the token {token} is locked after too many wrong PINs; unlock it with its SO PIN"))
    } else if is(&["CKR_PIN_"]) {
        Answer::Refused(format!(
            "the token {token} refused the PIN in {}; it is not shown again: write the right one into it",
            uri.pin.display()
        ))
    } else if is(&["Failed to load pkcs11 module"]) {
        let module = uri.module.display();
        Answer::Unseen(format!("{PROGRAM} can't load the module {module}; see that it is one, and for this machine"))
    } else if is(&["No slot"]) {
        let module = uri.module.display();
        Answer::Unseen(format!("there is no token {token}; plug it in, and see: {PROGRAM} --module {module} -L"))
    } else if is(&["C_Initialize failed", "C_GetSlotList failed", "C_OpenSession failed"]) {
        Answer::Unseen(format!("the module {} does not work here: {}", uri.module.display(), last()))
    } else if is(&["Private key not found"]) {
        Answer::Taken(format!("the token {token} has no private key with the id {}", uri.id))
    } else if output.status.success() && !output.stdout.is_empty() {
        Answer::Taken(format!("the key {} of the token {token} is shorter than 2048 bits; make a longer one", uri.id))
    } else if is(&["C_Sign"]) {
        let id = &uri.id;
        Answer::Taken(format!("the key {id} of the token {token} does not sign by SHA256-RSA-PKCS: {}", last()))
    } else {
        Answer::Unclear(format!("{PROGRAM} ended without a signature of the token {token}: {}", last()))
    }
}

/// The line of a program's that says most.
fn last_of(said: &str, status: ExitStatus) -> String {
    let line = said.lines().rfind(|line| !line.is_empty() && *line != "Aborting.");
    let line = line.map_or_else(|| status.to_string(), str::to_owned);
    line.replace(char::is_control, " ").chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const URI: &str = "pkcs11:token=gateway;id=%01?module-path=/usr/lib/m.so&pin-source=file:/etc/weir/pin";

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $! $$ > {}; wait", pids.display());
        // Long enough for it to say who it is, on an idle machine; it does not end before.
        let done = run(Command::new("sh").args(["-c", &script]), b"x", Duration::from_secs(2)).unwrap();
        assert!(done.is_none());
        let pids = fs::read_to_string(&pids).unwrap_or_default();
        // The kernel takes a moment to end a killed process; a zombie has ended too.
        let is_alive =
            |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        let gone = async {
            while pids.split_whitespace().any(is_alive) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.expect("killed");
        let done = run(Command::new("sh").args(["-c", "cat; echo why >&2; exit 3"]), b"x", LIMIT).unwrap().unwrap();
        assert_eq!((done.stdout.as_slice(), done.stderr.as_slice()), (&b"x"[..], &b"why\n"[..]));
        assert_eq!(done.status.code(), Some(3));
        let chatty = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; echo >&2";
        let done = run(Command::new("sh").args(["-c", chatty]), b"", LIMIT).unwrap().unwrap();
        assert_eq!((done.stdout.len(), done.stderr.len()), (64 << 10, 64 << 10));
    }

    #[test]
    fn who_holds_the_folder_for_ever_holds_nobody_up_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let held = alone(folder.path(), LIMIT).unwrap();
        let told = alone(folder.path(), Duration::from_millis(200)).unwrap_err();
        assert!(told.to_string().contains("for too long"), "{told}");
        drop(held);
        alone(folder.path(), LIMIT).unwrap();
    }

    #[test]
    fn a_module_that_others_could_change_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let (own, module) = (folder.path().join("own"), folder.path().join("own/m.so"));
        assert!(trusted(&module).unwrap_err().contains("is not there"));
        fs::create_dir(&own).unwrap();
        fs::write(&module, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(&own, 0o755);
        mode(&module, 0o644);
        let itself = module.canonicalize().unwrap();
        assert_eq!(trusted(&module).unwrap(), itself);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&module, &link).unwrap();
        assert_eq!(trusted(&link).unwrap(), itself, "what is looked at is what is loaded");
        for (path, open, shut) in [(&module, 0o664, 0o644), (&module, 0o646, 0o644), (&own, 0o775, 0o755)] {
            mode(path, open);
            assert!(trusted(&module).unwrap_err().contains("could be changed by others"));
            mode(path, shut);
        }
        if geteuid().is_root() {
            std::os::unix::fs::chown(&module, Some(65534), None).unwrap();
            assert!(trusted(&module).unwrap_err().contains("could be changed by others"));
        }
    }

    /// What `pkcs11-tool` 0.23 says of SoftHSM 2.6.1, word for word.
    #[test]
    fn what_the_program_says_is_told_in_one_sentence_and_the_pin_counts_as_shown_or_not() {
        let uri = Uri::parse(URI).unwrap();
        for (stdout, stderr, kind, why) in [
            (
                0,
                "error: PKCS11 function C_Login failed: rv = CKR_PIN_INCORRECT (0xa0)\nAborting.\n",
                "Refused",
                "refused the PIN in /etc/weir/pin",
            ),
            (
                0,
                "error: PKCS11 function C_Login failed: rv = CKR_PIN_LOCKED (0xa4)\nAborting.\n",
                "Refused",
                "is locked after too many",
            ),
            (
                0,
                "error: PKCS11 function C_Login failed: rv = CKR_DEVICE_ERROR (0x30)\nAborting.\n",
                "Unclear",
                "CKR_DEVICE_ERROR",
            ),
            (0, "No slot with token named \"gateway\" found\n", "Unseen", "there is no token gateway; plug it in"),
            (0, "No slots.\n", "Unseen", "there is no token gateway; plug it in"),
            (
                0,
                "sc_dlopen failed: /m.so: file too short\nerror: Failed to load pkcs11 module\nAborting.\n",
                "Unseen",
                "can't load the module /usr/lib/m.so",
            ),
            (
                0,
                "error: PKCS11 function C_Initialize failed: rv = CKR_GENERAL_ERROR (0x5)\nAborting.\n",
                "Unseen",
                "does not work here",
            ),
            (0, "error: Private key not found\nAborting.\n", "Taken", "no private key with the id 01"),
            (
                0,
                "Using signature algorithm SHA256-RSA-PKCS\nerror: PKCS11 function C_SignFinal failed: rv = CKR_GENERAL_ERROR (0x5)\nAborting.\n",
                "Taken",
                "does not sign by SHA256-RSA-PKCS: error: PKCS11 function C_SignFinal",
            ),
            (128, "Using signature algorithm SHA256-RSA-PKCS\n", "Taken", "shorter than 2048 bits"),
            (0, "", "Unclear", "exit status: 1"),
            (0, "your 4711 is odd\n", "Unclear", "your *** is odd"),
            (256, "", "Signature", ""),
        ] {
            let status = ExitStatus::from_raw(if stdout > 0 { 0 } else { 1 << 8 });
            let told = heard(Output { status, stdout: vec![7; stdout], stderr: stderr.into() }, &uri, "4711");
            let told = format!("{told:?}");
            assert!(told.starts_with(kind) && told.contains(why) && !told.contains("4711"), "{stderr}: {told}");
        }
    }

    #[test]
    fn a_file_that_is_no_key_of_a_token_is_refused_before_anybody_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seal.token");
        assert!(read(&file).unwrap_err().contains("bring it back"));
        let whole = [MAGIC.as_bytes(), URI.as_bytes(), b"\n", &[7; 80]].concat();
        fs::write(&file, &whole).unwrap();
        assert_eq!(read(&file).unwrap().0.text, URI);
        assert_eq!(pin_of(&file), Some(PathBuf::from("/etc/weir/pin")));
        for bad in [&whole[1..], &whole[..whole.len() - 48], &whole[..20], &[b'x'; 4096]] {
            fs::write(&file, bad).unwrap();
            assert!(key(&file).unwrap_err().why.contains("bring it back"));
        }
        fs::write(&file, String::from_utf8_lossy(&whole).replace("id=%01", "object=x")).unwrap();
        assert!(key(&file).unwrap_err().why.contains("more than weir looks at"));
    }
}
