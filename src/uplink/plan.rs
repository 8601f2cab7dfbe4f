//! The settings with the gateway's own names filled in: what a session needs.

use std::path::PathBuf;

use rumqttc::{LastWill, MqttOptions, QoS, TlsConfiguration, Transport};

use super::UplinkError;
use super::backoff::hash;
use super::failure::{Failure, Kind};
use super::settings::{BrokerSettings, Compression, Connect, UplinkSettings};
use super::tls::TlsFiles;
use super::value::BrokerUrl;
use crate::model::Lane;
use crate::os::clock::Clock;
use crate::os::file::read_secret;
use crate::setting::{At, Identity, Text, Topic, substituted};

/// A topic and what is published there.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    pub(super) topic: String,
    pub(super) payload: String,
}

/// Everything a session is made from.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) url: BrokerUrl,
    pub(super) files: TlsFiles,
    pub(super) connect: Connect,
    pub(super) batch: usize,
    pub(super) max_payload: usize,
    pub(super) compression: Compression,
    pub(super) status: Option<Notice>,
    client_id: String,
    username: Option<String>,
    password_file: Option<PathBuf>,
    keep_alive: u16,
    data_topic: String,
    event_topic: Option<String>,
    will: Option<Notice>,
}

/// A packet is this much longer than its payload at most: topic, header, packet id.
const OVERHEAD: usize = 70_000;
/// The protocol's own limit (MQTT 3.1.1, 2.2.3).
const LONGEST_PACKET: usize = 268_435_455;
const LARGEST_PASSWORD: u64 = 65_535;

impl Plan {
    pub(super) fn new(
        broker: &BrokerSettings,
        uplink: &UplinkSettings,
        identity: &Identity,
    ) -> Result<Self, UplinkError> {
        let text = |text: &Text| text.of(identity).ok_or(UplinkError::NoImei);
        let topic = |topic: &At<Topic>| usable(topic.of(identity).ok_or(UplinkError::NoImei)?);
        let notice = |at: &Option<At<Topic>>, payload: &str| {
            let payload = substituted(payload, identity).ok_or(UplinkError::NoImei)?;
            at.as_ref().map(|at| Ok::<_, UplinkError>(Notice { topic: topic(at)?, payload })).transpose()
        };
        let certificate = broker.client_certificate_file.as_ref().map(|p| p.to_path_buf());
        let key = broker.client_key_file.as_ref().map(|p| p.path().to_path_buf());
        Ok(Self {
            url: (*broker.url).clone(),
            files: TlsFiles { ca: broker.ca_file.as_ref().map(|p| p.to_path_buf()), client: certificate.zip(key) },
            connect: uplink.connect,
            batch: usize::try_from(uplink.batch.value()).unwrap_or(usize::MAX),
            max_payload: uplink.max_payload.bytes(),
            compression: uplink.compression,
            status: notice(&uplink.status_topic, &uplink.status_payload)?,
            client_id: text(&broker.client_id)?,
            username: broker.username.as_deref().map(text).transpose()?,
            password_file: broker.password_file.as_ref().map(|p| p.path().to_path_buf()),
            keep_alive: broker.keep_alive.seconds(),
            data_topic: topic(&uplink.data_topic)?,
            event_topic: uplink.event_topic.as_ref().map(topic).transpose()?,
            will: notice(&uplink.will_topic, &uplink.will_payload)?,
        })
    }

    /// The same for a session that only shows that it can be had: it leaves no will, and does not
    /// throw out the session of a running agent when it has a client id of its own.
    pub(super) fn for_rehearsal(self, beside_an_agent: bool) -> Self {
        let suffix = if beside_an_agent { "-report" } else { "" };
        Self { will: None, status: None, client_id: format!("{}{suffix}", self.client_id), ..self }
    }

    /// The same for a person's session beside the agents': no will, no status, a client id of its own.
    pub(super) fn for_operator(self, suffix: &str) -> Self {
        Self { will: None, status: None, client_id: format!("{}{suffix}", self.client_id), ..self }
    }

    /// Stands for the broker in a mirror's record: another address, client id or user is another
    /// consumer.
    pub(super) fn key(&self) -> u64 {
        let user = self.username.as_deref().unwrap_or("");
        hash(&format!("{}\0{}\0{user}", self.url, self.client_id))
    }

    /// Where the frames of a lane go.
    pub(super) fn topic(&self, lane: Lane) -> &str {
        match (&self.event_topic, lane) {
            (Some(event), Lane::Priority) => event,
            _ => &self.data_topic,
        }
    }

    /// The MQTT client's options; passwords and certificates are read from their files now. A
    /// keep-alive is not shorter than `quiet` seconds.
    pub(super) fn options(&self, clock: &Clock, quiet: Option<u16>) -> Result<MqttOptions, Failure> {
        let mut options = MqttOptions::new(self.client_id.clone(), (self.url.host.clone(), self.url.port));
        options.set_clean_session(true).set_keep_alive(self.keep_alive.max(quiet.unwrap_or(0)));
        // A single frame may be longer than max_payload; it must not end the session.
        options.set_max_packet_size(OVERHEAD, LONGEST_PACKET);
        if let Some(username) = &self.username {
            match &self.password_file {
                Some(path) => options.set_credentials(username.clone(), password(path)?),
                None => options.set_username(username.clone()),
            };
        }
        if let Some(will) = &self.will {
            options.set_last_will(LastWill::new(will.topic.clone(), will.payload.clone(), QoS::AtLeastOnce, false));
        }
        if self.url.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(self.files.config(clock)?)));
        }
        Ok(options)
    }
}

/// A topic that can't be published to would end every session (MQTT 3.1.1, 4.7.3).
pub(super) fn usable(topic: String) -> Result<String, UplinkError> {
    if topic.is_empty() || topic.len() > 65_535 || topic.contains(['+', '#', '\0']) {
        return Err(UplinkError::Topic { topic });
    }
    Ok(topic)
}

fn password(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let content = read_secret(path, LARGEST_PASSWORD).map_err(|error| {
        Failure::new(Kind::Files, format!("the password file {} can't be read: {error}", path.display()))
    })?;
    let line = content.split(|&b| b == b'\n').next().unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}
