//! Certificates and passwords for a broker and its clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir::sim::authority::Authority;

/// A directory with a CA, and the lines of mosquitto's configuration for a server certificate.
pub struct Site {
    pub directory: tempfile::TempDir,
    pub authority: Authority,
}

impl Site {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("test CA").unwrap();
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        Self { directory, authority }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn server(&self, names: &[&str], years: Option<std::ops::Range<i32>>) -> String {
        let issued = self.authority.issue(names, years).unwrap();
        let (certificate, key) = issued.write(self.directory.path(), "server").unwrap();
        format!("certfile {}\nkeyfile {}\nallow_anonymous true\n", certificate.display(), key.display())
    }

    pub fn client(&self, authority: &Authority, name: &str) -> String {
        let (certificate, key) = authority.issue(&["gw1"], None).unwrap().write(self.directory.path(), name).unwrap();
        format!("client_certificate_file = \"{}\"\nclient_key_file = \"{}\"\n", certificate.display(), key.display())
    }

    pub fn mutual(&self) -> String {
        format!("cafile {}\nrequire_certificate true\n", self.path("ca.pem").display())
    }

    pub fn broker_settings(&self, port: u16) -> String {
        format!("url = \"ssl://127.0.0.1:{port}\"\nca_file = \"{}\"\n", self.path("ca.pem").display())
    }
}

/// Lines of mosquitto's configuration that want user `meters` with the password in the file `right`.
pub fn passwords(directory: &Path) -> String {
    let path = directory.join("passwords");
    let made = Command::new("mosquitto_passwd").args(["-b", "-c", path.to_str().unwrap(), "meters", "right"]).status();
    assert!(made.unwrap().success());
    fs::write(directory.join("right"), "right\n").unwrap();
    fs::write(directory.join("wrong"), "wrong\n").unwrap();
    format!("allow_anonymous false\npassword_file {}\n", path.display())
}
