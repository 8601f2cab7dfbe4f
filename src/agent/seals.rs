//! Says where a gateway that is sealed has plain files in place of sealed ones: they are taken, but somebody should know.

use std::fs;
use std::path::PathBuf;

use tracing::warn;

use crate::config::Settings;
use crate::control::{Audit, Entry, Origin};
use crate::model::Stamp;
use crate::os::seal;

/// Looks once, and tells the log and the audit.
pub(super) fn look(settings: &Settings, audit: &Audit, now: Stamp) {
    let mut told: Vec<String> = Vec::new();
    if let Some(file) = seal::outranking() {
        let file = file.display();
        told.push(format!("{file} is plain and counts before {file}.sealed: remove the one that is not meant"));
    }
    if seal::active().is_some() {
        let plain = candidates(settings).into_iter().filter(|file| seal::is_plain(file));
        told.extend(plain.map(|file| {
            let file = file.display();
            format!("{file} is plain on a sealed gateway: see who wrote it, then run weir config seal {file}")
        }));
    }
    for sentence in &told {
        warn!(problem = sentence, "a plain file stands where a sealed one should");
    }
    let entry = |detail: String| {
        let (who, command) = (Origin::Local("weir".to_owned()), "start".to_owned());
        Entry { who, key: None, command, outcome: "warned", detail }
    };
    let (entries, audit): (Vec<_>, _) = (told.into_iter().map(entry).collect(), audit.clone());
    tokio::task::spawn_blocking(move || {
        if let Some(error) = entries.iter().find_map(|entry| audit.append(entry, &now).err()) {
            warn!(%error, "the audit can't be written; see to the disk");
        }
    });
}

/// What weir keeps by itself, and the files of secrets that the settings name.
fn candidates(settings: &Settings) -> Vec<PathBuf> {
    let mut found = secrets(&settings.effective());
    for (folder, ending) in [("config", "toml"), ("tls", "pem")] {
        let entries = fs::read_dir(settings.store.path.join(folder)).into_iter().flatten().filter_map(Result::ok);
        found.extend(entries.map(|e| e.path()).filter(|path| path.extension().is_some_and(|end| end == ending)));
    }
    found.sort();
    found.dedup();
    found
}

/// The files that effective settings say are secret.
fn secrets(effective: &str) -> Vec<PathBuf> {
    let quoted =
        |line: &str| line.strip_suffix("  # content masked")?.split_once(" = \"").map(|(_, rest)| rest.to_owned());
    effective.lines().filter_map(quoted).map(|rest| PathBuf::from(rest.trim_end_matches('"'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_secrets_are_found_in_the_settings() {
        let text = "[gateway]\nid = \"g\"\n[broker]\nurl = \"ssl://b:8883\"\nusername = \"u\"\npassword_file = \"/etc/weir/pass word\"\n[modem]\npin_file = \"/etc/weir/pin\"\n[store]\npath = \"/none\"\n";
        let settings = crate::config::parse(text).unwrap_or_else(|problems| panic!("{problems:?}")).settings;
        let found = ["/etc/weir/pass word", "/etc/weir/pin"].map(PathBuf::from);
        assert_eq!(candidates(&settings), found);
    }
}
