//! Certificates and keys by command: checked, kept in the store's folder, and taken on trial like any other change.
//!
//! A file is never overwritten: each gets a name of its own, and weir.toml names it on trial. So the one before counts again by
//! itself unless the broker was reached. What belongs to nothing yet is kept aside until its counterpart comes.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Done, Orders, Who, taken};
use crate::agent::change::Changer;
use crate::config;
use crate::model::{ClockState, Timestamp};
use crate::os::file::read_small;
use crate::os::seal::write_secret;
use crate::uplink::{Wanted, check_certificates, check_key, is_pair};

/// The folder in the store's.
const FOLDER: &str = "tls";
const LARGEST: u64 = 64 << 10;

/// What the command names, the setting that it stands in, and where it waits for its counterpart.
const CLIENT: (&str, &str, &str) = ("client", "client_certificate_file", "waiting-client.pem");
const KEY: (&str, &str, &str) = ("key", "client_key_file", "waiting-key.pem");

/// Loads one for the (first) broker.
pub(super) async fn load(orders: &Orders, which: String, pem: String, who: Who) -> Done {
    // One at a time: another one would remove what this one has kept and not named yet.
    let _one = orders.certificates.lock().await;
    let changer = match orders.changer() {
        Ok(changer) => changer.clone(),
        Err(why) => return Err(why).into(),
    };
    let stamp = orders.evidence.clock.stamp();
    let now = (stamp.clock == ClockState::Synced).then_some(stamp.wall);
    let (text, store) = (changer.text(), orders.folder.clone());
    let name = which.clone();
    let stored = tokio::task::spawn_blocking(move || Shelf::open(&store, &text)?.put(&name, &pem, now)).await;
    let changes = match stored.map_err(|error| error.to_string()) {
        Ok(Ok(Some(changes))) => changes,
        Ok(Ok(None)) => {
            let other = if which == KEY.0 { CLIENT.0 } else { KEY.0 };
            return Ok(format!("kept aside: it belongs to no {other} here; it is used when that comes")).into();
        }
        Ok(Err(why)) | Err(why) => return Err(why).into(),
    };
    let set: Vec<_> = changes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let done = taken(changer.set(&set, who, "a certificate by command", None).await);
    tidy(orders, changer).await;
    done
}

/// Removes what no configuration of the history names any more.
async fn tidy(orders: &Orders, changer: Changer) {
    let mut texts = vec![changer.text().to_string()];
    for entry in changer.history() {
        match changer.text_of(entry.number).await {
            Ok(text) => texts.push(text),
            // What can't be read may name anything.
            Err(_) => return,
        }
    }
    let folder = orders.folder.join(FOLDER);
    let removed = tokio::task::spawn_blocking(move || {
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with("waiting-") && !texts.iter().any(|text| text.contains(&name)) {
                fs::remove_file(folder.join(name))?;
            }
        }
        Ok::<(), io::Error>(())
    });
    if let Ok(Err(error)) = removed.await {
        tracing::debug!(%error, "old certificates could not be removed; they are with the next one");
    }
}

/// A setting and its new value.
type Changes = Vec<(String, String)>;

/// The folder, and what counts now.
struct Shelf {
    folder: PathBuf,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Shelf {
    fn open(store: &Path, text: &str) -> Result<Self, String> {
        let settings = config::parse(text).map_err(|_| "the running configuration can't be read".to_owned())?.settings;
        let broker = settings.broker.iter().next().ok_or("there is no [broker]")?;
        let shelf = Self {
            folder: store.join(FOLDER),
            certificate: broker.client_certificate_file.as_ref().map(|file| file.to_path_buf()),
            key: broker.client_key_file.as_ref().map(|file| file.path().to_owned()),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&shelf.folder).map_err(unwritable)?;
        Ok(shelf)
    }

    /// Checks and keeps it; the settings to change, or none when it waits for its counterpart.
    fn put(&self, which: &str, pem: &str, now: Option<Timestamp>) -> Result<Option<Changes>, String> {
        match which {
            "ca" => {
                check_certificates(pem, Wanted::Authority, now)?;
                Ok(Some(vec![self.keep("ca", "ca_file", pem)?]))
            }
            "client" => {
                check_certificates(pem, Wanted::Client, now)?;
                self.pair(CLIENT, pem, KEY, self.key.as_deref(), |other| is_pair(pem, other))
            }
            _ => {
                check_key(pem)?;
                self.pair(KEY, pem, CLIENT, self.certificate.as_deref(), |other| is_pair(other, pem))
            }
        }
    }

    /// Takes a certificate or key together with the counterpart that fits: the one that counts, else the one that waits.
    fn pair(
        &self,
        (name, setting, waiting): (&str, &str, &str),
        pem: &str,
        (other_name, other_setting, other_waiting): (&str, &str, &str),
        counts: Option<&Path>,
        fits: impl Fn(&str) -> Result<bool, String>,
    ) -> Result<Option<Changes>, String> {
        // What can't be read fits nothing.
        let read = |path: &Path| read_small(path, LARGEST).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if counts.and_then(read).is_some_and(|other| fits(&other).unwrap_or(false)) {
            return Ok(Some(vec![self.keep(name, setting, pem)?]));
        }
        let waits = self.folder.join(other_waiting);
        let Some(other) = read(&waits).filter(|other| fits(other).unwrap_or(false)) else {
            write_secret(&self.folder.join(waiting), pem.as_bytes()).map_err(unwritable)?;
            return Ok(None);
        };
        let changes = vec![self.keep(name, setting, pem)?, self.keep(other_name, other_setting, &other)?];
        // Left there it would be found again by a later one, which does no harm.
        let _ = fs::remove_file(waits);
        Ok(Some(changes))
    }

    /// Writes it under a name that nothing has yet.
    fn keep(&self, name: &str, setting: &str, pem: &str) -> Result<(String, String), String> {
        let free = (1u32..).map(|number| self.folder.join(format!("{name}-{number}.pem"))).find(|path| !path.exists());
        let path = free.ok_or("there is no free name")?;
        write_secret(&path, pem.as_bytes()).map_err(unwritable)?;
        Ok((format!("broker[1].{setting}"), path.display().to_string()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn unwritable(error: io::Error) -> String {
    format!("it can't be written into the store's folder: {error}; see to the disk")
}

#[cfg(test)]
#[cfg(feature = "demo")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn made() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["gw1".to_owned()]).unwrap();
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn shelf(store: &Path, set: &[(String, String)]) -> Shelf {
        let lines: String =
            set.iter().map(|(key, value)| format!("{} = \"{value}\"\n", &key["broker[1].".len()..])).collect();
        Shelf::open(store, &format!("[broker]\nurl = \"ssl://b:8883\"\n{lines}")).unwrap()
    }

    #[test]
    fn a_pair_is_taken_when_both_are_there_whichever_comes_first() {
        let (certificate, key) = made();
        for order in [[("client", &certificate), ("key", &key)], [("key", &key), ("client", &certificate)]] {
            let store = tempfile::tempdir().unwrap();
            let shelf = shelf(store.path(), &[]);
            assert_eq!(shelf.put(order[0].0, order[0].1, None), Ok(None), "it waits");
            let changes = shelf.put(order[1].0, order[1].1, None).unwrap().expect("both are there");
            assert_eq!(changes.len(), 2);
            for (setting, path) in &changes {
                let expected = if setting.ends_with("key_file") { &key } else { &certificate };
                assert_eq!(&fs::read_to_string(path).unwrap(), expected);
                assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            }
            // A stranger's key does not follow, and the pair that counts is untouched.
            let shelf = self::shelf(store.path(), &changes);
            assert_eq!(shelf.put("key", &made().1, None), Ok(None));
            assert_eq!(fs::read_to_string(shelf.key.as_ref().unwrap()).unwrap(), key);
            // The same certificate anew goes with the key that counts, under a name of its own.
            let again = shelf.put("client", &certificate, None).unwrap().unwrap();
            assert!(again.len() == 1 && again[0].1 != shelf.certificate.unwrap().display().to_string());
        }
    }

    #[test]
    fn what_is_no_certificate_leaves_nothing_behind() {
        let store = tempfile::tempdir().unwrap();
        let shelf = shelf(store.path(), &[]);
        let (certificate, key) = made();
        for (which, pem) in [("ca", key.as_str()), ("client", &key), ("key", &certificate), ("ca", "-----BEGIN X")] {
            assert!(shelf.put(which, pem, None).is_err(), "{which}");
        }
        assert_eq!(fs::read_dir(shelf.folder).unwrap().count(), 0);
    }
}
