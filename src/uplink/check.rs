//! What `weir check` says about `[broker]`, `[[broker]]` and `[uplink]` beyond single values.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::plan::Plan;
use super::settings::{Arrangement, BrokerSettings, UplinkSettings};
use super::tls::{TlsError, TlsFiles, own_identity};
use crate::os::clock::Clock;
use crate::setting::{At, Identity, Problems, SecretFile};

/// The longest will and the longest status payload (MQTT 3.1.1, 3.1.3.3).
const LONGEST_WILL: usize = 65_535;
/// Waits longer than this leave a gateway dark for no reason.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
const SHORTEST_RETURN: Duration = Duration::from_secs(1);

/// Tells every problem of the two tables that no single value shows, files included when they
/// are there.
pub fn check(brokers: &[BrokerSettings], uplink: &UplinkSettings, problems: &mut Problems) {
    for broker in brokers {
        credentials(broker, problems);
        if broker.url.tls {
            tls_files(broker, problems);
        } else {
            no_tls(broker, problems);
        }
    }
    several(brokers, uplink, problems);
    backoff(uplink, problems);
    for (topic, payload, name) in [
        (&uplink.will_topic, &uplink.will_payload, "will_payload"),
        (&uplink.status_topic, &uplink.status_payload, "status_payload"),
    ] {
        if let Some(topic) = topic.as_ref().filter(|_| payload.len() > LONGEST_WILL) {
            problems.error(topic.span(), format!("uplink.{name} is longer than {LONGEST_WILL} bytes"));
        }
    }
    if let (Some(status), Some(will)) = (&uplink.status_topic, &uplink.will_topic)
        && **status == *uplink.data_topic
        && **will == *uplink.data_topic
    {
        problems.warning(
            status.span(),
            "uplink.status_topic and will_topic are the data_topic: consumers must tell frames and states apart",
        );
    }
}

/// Tells when a topic, id or payload can't be filled in with the gateway's own names.
pub fn check_names(brokers: &[BrokerSettings], uplink: &UplinkSettings, identity: &Identity, problems: &mut Problems) {
    // The topics are common: told once is enough.
    let _ = brokers.iter().any(|broker| is_misnamed(broker, uplink, identity, problems));
}

/// Tells the first name that can't be filled in, if any.
fn is_misnamed(broker: &BrokerSettings, uplink: &UplinkSettings, identity: &Identity, problems: &mut Problems) -> bool {
    let Err(error) = Plan::new(broker, uplink, identity) else { return false };
    let usable = |topic: Option<String>| topic.is_some_and(|t| !t.contains(['+', '#']));
    let texts = [Some(&broker.client_id), broker.username.as_ref()].into_iter().flatten();
    let topics = [
        Some(&uplink.data_topic),
        uplink.event_topic.as_ref(),
        uplink.status_topic.as_ref(),
        uplink.will_topic.as_ref(),
    ];
    let first = texts
        .filter(|t| t.of(identity).is_none())
        .map(|t| t.span())
        .chain(topics.into_iter().flatten().filter(|t| !usable(t.of(identity))).map(|t| t.span()))
        .next();
    match first {
        Some(span) => problems.error(span, error.to_string()),
        None => problems.error_overall(error.to_string()),
    }
    true
}

/// What several brokers must have in common, and what not.
fn several(brokers: &[BrokerSettings], uplink: &UplinkSettings, problems: &mut Problems) {
    let mirrors = *uplink.brokers == Arrangement::Mirror;
    let mut seen = BTreeSet::new();
    for broker in brokers.iter().filter(|b| !b.url.host.is_empty()) {
        if !seen.insert((broker.url.to_string(), broker.client_id.as_written().to_owned())) {
            let message =
                "there is already a broker with this url and client_id: the two sessions would throw each other out";
            problems.error(broker.url.span(), message);
        }
    }
    if mirrors && brokers.len() == 1 {
        problems.warning(uplink.brokers.span(), "uplink.brokers is \"mirror\", but there is only one broker");
    }
    if mirrors && !brokers.iter().any(|broker| *broker.required) {
        problems.error(
            uplink.brokers.span(),
            "no broker is required: with uplink.brokers = \"mirror\" at least one must be, or nobody would say when a frame may be deleted",
        );
    }
    if !mirrors {
        for broker in brokers.iter().filter(|broker| !*broker.required) {
            problems.warning(broker.required.span(), "broker.required is only used with uplink.brokers = \"mirror\"");
        }
    }
    if *uplink.return_after < SHORTEST_RETURN {
        problems.error(uplink.return_after.span(), "uplink.return_after must be at least 1s: each try is a connection");
    }
}

fn credentials(broker: &BrokerSettings, problems: &mut Problems) {
    let Some(file) = &broker.password_file else { return };
    if broker.username.is_none() {
        problems.error(
            file.span(),
            "broker.password_file needs broker.username: MQTT 3.1.1 has no password without a user name",
        );
    }
    if !crate::os::file::has_secret(file.path()) {
        problems.warning(file.span(), format!("broker.password_file {} does not exist yet", file.path().display()));
    }
}

fn no_tls(broker: &BrokerSettings, problems: &mut Problems) {
    problems.warning(
        broker.url.span(),
        "broker.url has no TLS: meter data and the password travel readable; use ssl:// outside a closed network",
    );
    let spans = [
        broker.ca_file.as_ref().map(|f| ("ca_file", f.span())),
        broker.client_certificate_file.as_ref().map(|f| ("client_certificate_file", f.span())),
        broker.client_key_file.as_ref().map(|f| ("client_key_file", f.span())),
    ];
    for (name, span) in spans.into_iter().flatten() {
        problems.warning(span, format!("broker.{name} is not used: broker.url has no TLS"));
    }
}

fn tls_files(broker: &BrokerSettings, problems: &mut Problems) {
    let span = broker.ca_file.as_ref().map_or(broker.url.span(), |f| f.span());
    let ca = broker.ca_file.as_ref().map(|p| p.to_path_buf());
    if present(ca.as_deref(), "ca_file", &span, problems) {
        match (TlsFiles { ca, client: None }).config(&Clock::system()) {
            // The machine that checks need not be the gateway.
            Err(error @ TlsError::NoSystemRoots) => problems.warning(span, error.to_string()),
            Err(error) => problems.error(span, error.to_string()),
            Ok(_) => {}
        }
    }
    let (certificate, key) = match (&broker.client_certificate_file, &broker.client_key_file) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(alone), None) => {
            return problems.error(alone.span(), "broker.client_certificate_file needs broker.client_key_file");
        }
        (None, Some(alone)) => {
            return problems.error(alone.span(), "broker.client_key_file needs broker.client_certificate_file");
        }
        (None, None) => return,
    };
    let both = [
        present(Some(certificate), "client_certificate_file", &certificate.span(), problems),
        present(Some(key.path()), "client_key_file", &key.span(), problems),
    ];
    if both == [true, true] {
        match own_identity(certificate, key.path()) {
            Ok(_) => {}
            Err(error @ (TlsError::NoKey { .. } | TlsError::Mismatch { .. })) => {
                problems.error(key.span(), error.to_string());
            }
            Err(error) => problems.error(certificate.span(), error.to_string()),
        }
    }
}

/// Says what is wrong with the files of a connection that is no broker's, as far as they are there.
pub fn check_tls_files(
    ca: Option<&At<PathBuf>>,
    client: Option<(&At<PathBuf>, &At<SecretFile>)>,
    problems: &mut Problems,
) {
    for (name, path, span) in [
        ca.map(|file| ("ca_file", file.as_path(), file.span())),
        client.map(|(file, _)| ("client_certificate_file", file.as_path(), file.span())),
        client.map(|(_, file)| ("client_key_file", file.path(), file.span())),
    ]
    .into_iter()
    .flatten()
    {
        if !path.exists() {
            problems.warning(span, format!("{name} {} does not exist yet", path.display()));
        }
    }
    if let Some(file) = ca.filter(|file| file.exists())
        && let Err(error) = (TlsFiles { ca: Some(file.to_path_buf()), client: None }).config(&Clock::system())
    {
        problems.error(file.span(), error.to_string());
    }
    if let Some((certificate, key)) = client.filter(|(one, other)| one.exists() && other.path().exists())
        && let Err(error) = own_identity(certificate, key.path())
    {
        problems.error(certificate.span(), error.to_string());
    }
}

/// Whether a file is there; a missing one is a warning, because it may be installed later.
fn present(path: Option<&Path>, name: &str, span: &std::ops::Range<usize>, problems: &mut Problems) -> bool {
    let missing = path.filter(|p| !p.exists());
    if let Some(path) = missing {
        problems.warning(span.clone(), format!("broker.{name} {} does not exist yet", path.display()));
    }
    missing.is_none()
}

fn backoff(uplink: &UplinkSettings, problems: &mut Problems) {
    let (span, wait) = (uplink.backoff.span(), &*uplink.backoff);
    if wait.first.is_zero() {
        problems.error(
            span.clone(),
            "uplink.backoff.first must not be zero: a broker that refuses would be asked without a pause",
        );
    }
    if wait.max < wait.first {
        problems.error(span.clone(), "uplink.backoff.max must not be shorter than first");
    }
    if wait.max.saturating_add(wait.jitter) > LONGEST_WAIT {
        problems.warning(span, "uplink.backoff waits longer than an hour: after an outage data comes that much later");
    }
}

#[cfg(test)]
mod tests {
    use super::super::brokers::Brokers;
    use super::*;
    use crate::setting::{Node, Setting};

    fn read<T: Setting>(text: &str) -> T {
        let document = toml::de::DeTable::parse(text).unwrap();
        let value = toml::de::DeValue::Table(document.into_inner());
        let mut problems = Problems::new();
        T::read(&Node::new(&value, 0..0, ""), &mut problems).unwrap_or_else(|| panic!("{:?}", problems.located(text)))
    }

    fn said(broker: &str, uplink: &str) -> Vec<String> {
        let mut problems = Problems::new();
        check(&read::<Brokers>(broker), &read(uplink), &mut problems);
        problems.located(broker).iter().map(ToString::to_string).collect()
    }

    fn only(broker: &str, uplink: &str, words: &[&str]) {
        let said = said(broker, uplink);
        assert!(said.len() == 1 && words.iter().all(|w| said[0].contains(w)), "{words:?} not in {said:?}");
    }

    #[test]
    fn no_tls_is_a_loud_warning() {
        only("url = \"tcp://b\"", "", &["1:7: warning", "no TLS", "password travel readable"]);
    }

    #[test]
    fn credentials_that_do_not_fit_together_are_errors() {
        let ca = concat!("url = \"ssl://b\"\nca_file = \"", env!("CARGO_MANIFEST_DIR"), "/none.pem\"\n");
        let key = format!("{ca}client_key_file = \"/k\"");
        assert!(said(&key, "").iter().any(|s| s.contains("client_key_file needs broker.client_certificate_file")));
        let certificate = format!("{ca}client_certificate_file = \"/c\"");
        assert!(said(&certificate, "").iter().any(|s| s.contains("needs broker.client_key_file")));
        let password = format!("{ca}password_file = \"/dev/null\"");
        assert!(said(&password, "").iter().any(|s| s.contains("needs broker.username")));
        only(ca, "", &["2:11: warning", "none.pem does not exist yet"]);
    }

    #[test]
    fn files_that_are_there_are_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        only(&format!("url = \"ssl://b\"\nca_file = \"{}\"", path.display()), "", &["error", "the CA file", "x.pem"]);
    }

    #[test]
    fn a_back_off_without_sense_is_an_error() {
        let broker = concat!("url = \"ssl://b\"\nca_file = \"", env!("CARGO_MANIFEST_DIR"), "/none.pem\"\n");
        let errors = |uplink: &str| said(broker, uplink).join("|");
        assert!(errors("backoff = { first = \"0s\" }").contains("must not be zero"));
        assert!(errors("backoff = { first = \"9s\", max = \"1s\" }").contains("shorter than first"));
        assert!(errors("backoff = { max = \"1d\" }").contains("longer than an hour"));
    }

    #[test]
    fn the_example_of_the_manual_is_read_as_written() {
        let uplink: UplinkSettings = read(
            "connect = \"always\"\nprofile = \"frames\"\nbatch = 500\nmax_payload = \"128KiB\"\n\
             data_topic = \"/device/{id}/data/endpointdata\"\nevent_topic = \"/device/{id}/data/event\"\n\
             status_topic = \"/device/{id}/status\"\nstatus_payload = '{\"connected\": 1}'\n\
             will_topic = \"/device/{id}/will\"\nwill_payload = '{\"connected\": 0}'\n\
             backoff = { shape = \"exponential\", first = \"1s\", max = \"64s\", jitter = \"999ms\" }",
        );
        let defaults: UplinkSettings = read("");
        assert_eq!(uplink.status_payload, defaults.status_payload);
        assert_eq!(uplink.backoff.printed(), defaults.backoff.printed());
        assert_eq!(uplink.max_payload, defaults.max_payload);
        let broker: BrokerSettings = read(
            "url = \"ssl://broker.example.com:8883\"\nclient_id = \"{id}\"\nusername = \"meters\"\n\
             password_file = \"/etc/weir/secrets/broker-password\"\nca_file = \"/etc/weir/tls/broker-ca.pem\"\n\
             client_certificate_file = \"/etc/weir/tls/client.pem\"\nclient_key_file = \"/etc/weir/tls/client.key\"\n\
             keep_alive = \"60s\"",
        );
        assert_eq!(broker.keep_alive.seconds(), 60);
    }
}
