//! Files that only this gateway can read, from outside.

use std::fs;

use super::*;

#[tokio::test]
async fn what_is_sealed_is_sealed_anew_with_a_credential_and_the_configurations_key_counts() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let [password, later, old, link] = ["password", "later", "old", "link"].map(|name| site.home.path(name));
    for file in [&password, &later, &old] {
        fs::write(file, "hunter2\n").unwrap();
    }
    std::os::unix::fs::symlink(&later, &link).unwrap();
    fs::create_dir(site.home.path("given")).unwrap();
    fs::write(site.home.path("given/weir-seal"), [9; 32]).unwrap();
    // As systemd gives the credential to the service.
    let weir = |arguments: &[&str]| {
        let mut command = rig::weir();
        command.env("CREDENTIALS_DIRECTORY", site.home.path("given"));
        command.arg("--config").arg(site.home.config()).args(arguments).output().unwrap()
    };
    let head = |file: &std::path::Path| {
        let content = fs::read(file).unwrap();
        String::from_utf8_lossy(&content[..content.iter().position(|byte| *byte == b'\n').unwrap()]).into_owned()
    };
    let base = site.home.path("weir.toml.sealed");
    let all = [base.clone(), password.clone(), site.home.path("store/config/1.toml")];
    let name = |file: &std::path::Path| file.to_str().unwrap().to_owned();
    assert!(weir(&["config", "seal", &name(&password), &name(&old)]).status.success());
    all.iter().for_each(|file| assert!(head(file).starts_with("weir-sealed-1 board"), "{}", head(file)));
    let credential = ["config", "seal", "--credential", "/etc/weir/seal.cred", &name(&password)];
    let sealed = weir(&credential);
    assert!(sealed.status.success() && rig::stdout(&sealed).contains("with the other key"), "{sealed:?}");
    let by_credential = "weir-sealed-1 credential /etc/weir/seal.cred";
    all.iter().for_each(|file| assert_eq!(head(file), by_credential));
    assert!(weir(&["check"]).status.success());
    // What is sealed later gets the configuration's key, also after a file with another one was opened.
    // Nothing is sealed before all can be read.
    let linked = weir(&["config", "seal", &name(&later), &name(&link)]);
    assert!(!linked.status.success() && stderr(&linked).contains("it is a link; name the file itself"), "{linked:?}");
    assert_eq!(fs::read_to_string(&later).unwrap(), "hunter2\n");
    // And before all that has another key is opened.
    let (key, aside) = (site.home.path("store/seal.key"), site.home.path("key"));
    fs::rename(&key, &aside).unwrap();
    let closed = weir(&["config", "seal", &name(&later), &name(&old)]);
    assert!(!closed.status.success() && stderr(&closed).contains("seal.key"), "{closed:?}");
    assert_eq!(fs::read_to_string(&later).unwrap(), "hunter2\n");
    assert!(weir(&["config", "seal", &name(&later)]).status.success());
    assert_eq!(head(&later), by_credential);
    // Nor is anything unsealed.
    let linked = weir(&["config", "unseal", &name(&password), &name(&link)]);
    assert!(!linked.status.success() && stderr(&linked).contains("it is a link; name the file itself"), "{linked:?}");
    all.iter().for_each(|file| assert_eq!(head(file), by_credential));
    assert!(weir(&["config", "unseal", &name(&password), &name(&later)]).status.success());
    assert_eq!(fs::read_to_string(&password).unwrap(), "hunter2\n");
}

#[tokio::test]
async fn a_plain_file_in_place_of_a_sealed_one_is_told_in_log_and_audit() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let (plain, first) = (site.home.config(), site.home.path("store/config/1.toml"));
    let (before, text) = (fs::read(&first).unwrap(), fs::read(&plain).unwrap());
    assert!(site.home.weir(&["config", "seal"]).status.success());
    let told = |agent: &Agent| agent.said(&["a plain file stands where a sealed one should"]);
    let mut agent = site.run().await;
    assert!(told(&agent).is_empty(), "{:?}", told(&agent));
    agent.stop().await;
    fs::write(&first, before).unwrap();
    let mut agent = site.run().await;
    assert!(
        told(&agent).len() == 1 && told(&agent)[0].contains("1.toml is plain on a sealed gateway"),
        "{:?}",
        told(&agent)
    );
    agent.stop().await;
    // One beside it counts before it.
    fs::write(&plain, text).unwrap();
    let agent = site.run().await;
    assert!(told(&agent)[0].contains("weir.toml is plain and counts before"), "{:?}", told(&agent));
    let audit = || stdout(&site.home.weir(&["at", "AT^WEIR=AUDIT"]));
    let lines = |audit: &str| audit.lines().filter(|line| line.contains("\"outcome\":\"warned\"")).count();
    until("both are in the audit", || lines(&audit()) == 2).await;
}

#[tokio::test]
async fn a_sealed_configuration_runs_here_and_nothing_of_it_can_be_read_elsewhere() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let sealed = site.home.weir(&["config", "seal"]);
    assert!(sealed.status.success(), "{sealed:?}");
    let (plain, beside) = (site.home.config(), site.home.path("weir.toml.sealed"));
    assert!(!plain.exists() && beside.exists());
    let mut agent = site.home.run("debug");
    agent.until_said(&["connected to the broker"]).await;
    // A change is taken as ever, and is sealed on the disk.
    let changed = site.changes(&["set", "meter.incomer.every", "2s"]).await.unwrap();
    assert!(changed.status.success(), "{changed:?}");
    assert_eq!(site.value("meter.incomer.every"), "2s");
    agent.stop().await;
    let folder = site.home.path("store/config");
    for file in fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).chain([beside.clone()]) {
        let content = fs::read(&file).unwrap();
        assert!(!content.windows(7).any(|bytes| bytes == b"incomer") || file.ends_with("book"), "{}", file.display());
    }
    // Without the board's key nothing opens, and weir says why.
    let (key, aside) = (site.home.path("store/seal.key"), site.home.path("key"));
    fs::rename(&key, &aside).unwrap();
    let refused = site.home.weir(&["check"]);
    assert!(!refused.status.success() && stderr(&refused).contains("its key"), "{refused:?}");
    fs::write(&key, [7; 32]).unwrap();
    let refused = site.home.weir(&["check"]);
    assert!(stderr(&refused).contains("sealed for another gateway, or damaged"), "{refused:?}");
    fs::rename(&aside, &key).unwrap();
    let back = site.home.weir(&["config", "unseal"]);
    assert!(back.status.success() && !beside.exists(), "{back:?}");
    assert!(fs::read_to_string(&plain).unwrap().contains("incomer"));
    assert!(fs::read_to_string(folder.join("2.toml")).unwrap().contains("2s"));
}

#[tokio::test]
async fn a_plain_file_that_is_applied_or_not_taken_up_does_not_undo_the_seal() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let (plain, store) = (site.home.config(), site.home.path("store/config"));
    let text = fs::read_to_string(&plain).unwrap();
    // A configuration that is a link is refused before anything is sealed.
    let aside = site.home.path("aside.toml");
    fs::rename(&plain, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &plain).unwrap();
    let linked = site.home.weir(&["config", "seal"]);
    assert!(!linked.status.success() && stderr(&linked).contains("it is a link"), "{linked:?}");
    let is_sealed = |name: &str| fs::read(store.join(name)).unwrap().starts_with(b"weir-sealed-1 ");
    assert!(!is_sealed("1.toml"));
    fs::rename(&aside, &plain).unwrap();
    assert!(site.home.weir(&["config", "seal"]).status.success());
    // Applied while weir does not run.
    fs::write(&aside, text.replace("\"1s\"", "\"2s\"")).unwrap();
    let applied = site.home.weir(&["config", "apply", "--no-wait", aside.to_str().unwrap()]);
    assert!(applied.status.success(), "{applied:?}");
    assert!(is_sealed("2.toml"));
    // Laid beside it with a mistake, and not taken up.
    let mut agent = site.run().await;
    agent.until_said(&["was confirmed", "number=2"]).await;
    fs::write(&plain, text.replace("every = \"1s\"", "evry = \"1s\"")).unwrap();
    agent.signal("HUP");
    agent.until_said(&["the base file can't be taken up"]).await;
    let changed = site.changes(&["set", "meter.incomer.every", "3s"]).await.unwrap();
    assert!(changed.status.success(), "{changed:?}");
    assert!(is_sealed("3.toml"));
    agent.until_said(&["was confirmed", "number=3"]).await;
    agent.stop().await;
    // At a start with it the sealed one runs, too, and so does a command without an agent.
    let unset = site.home.weir(&["config", "set", "--now", "meter.incomer.every", "4s"]);
    assert!(unset.status.success() && is_sealed("4.toml"), "{unset:?}");
    let agent = site.run().await;
    assert!(!agent.said(&["weir.toml is plain and counts before"]).is_empty());
    let changed = site.changes(&["set", "meter.incomer.every", "5s"]).await.unwrap();
    assert!(changed.status.success() && is_sealed("5.toml"), "{changed:?}");
}

/// The host's key stands for a TPM's: systemd's tool makes the credential, and systemd gives it to the service in a folder.
#[tokio::test]
async fn a_configuration_sealed_by_a_credential_of_systemd_opens_with_that_only() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let (given, credential) = (site.home.path("given"), site.home.path("seal.cred"));
    fs::create_dir(&given).unwrap();
    fs::write(given.join("weir-seal"), [42; 32]).unwrap();
    let mut program = std::process::Command::new("systemd-creds");
    program.args(["encrypt", "--with-key=host", "--name=weir-seal"]).arg(given.join("weir-seal")).arg(&credential);
    let made = program.output().expect("systemd-creds comes with systemd: tests/run installs it");
    if !made.status.success() {
        peers::not_checked(&format!(
            "sealing by a credential: systemd-creds has no key of this host: {}",
            stderr(&made)
        ));
        return;
    }
    let sealed = site.home.weir(&["config", "seal", "--credential", credential.to_str().unwrap()]);
    assert!(sealed.status.success(), "{sealed:?}");
    assert!(!site.home.config().exists());
    let seal = fs::read(site.home.path("weir.toml.sealed")).unwrap();
    assert!(!seal.windows(7).any(|bytes| bytes == b"incomer"));
    // A command outside the service asks systemd's tool; the service needs none.
    let checked = site.home.weir(&["check"]);
    assert!(checked.status.success(), "{checked:?}");
    let aside = site.home.path("aside.cred");
    fs::rename(&credential, &aside).unwrap();
    let refused = site.home.weir(&["check"]);
    assert!(!refused.status.success() && stderr(&refused).contains("a credential of systemd"), "{refused:?}");
    let mut agent = site.home.run_with("debug", &[("CREDENTIALS_DIRECTORY", given.to_str().unwrap())]);
    agent.until_said(&["connected to the broker"]).await;
    agent.stop().await;
    fs::write(given.join("weir-seal"), [43; 32]).unwrap();
    let mut agent = site.home.run_with("debug", &[("CREDENTIALS_DIRECTORY", given.to_str().unwrap())]);
    assert!(!agent.ended().await.success(), "another key opens nothing");
    fs::rename(&aside, &credential).unwrap();
    let back = site.home.weir(&["config", "unseal"]);
    assert!(back.status.success(), "{back:?}");
    assert!(fs::read_to_string(site.home.config()).unwrap().contains("incomer"));
}
