//! `[broker]` and `[uplink]` of weir.toml.

use std::path::PathBuf;
use std::time::Duration;

use super::backoff::Growth;
use super::value::{BrokerUrl, KeepAlive, PayloadLimit};
use crate::setting::{At, Count, SecretFile, Text, Topic};
use crate::{choices, settings};

settings! {
    /// Where the platform's MQTT broker is and how weir proves who it is. One broker is
    /// `[broker]`; several are `[[broker]]` tables in the order of preference, and
    /// `uplink.brokers` says what they are for.
    pub struct BrokerSettings {
        /// `ssl://host:port` or `mqtts://host:port` speak TLS; `tcp://` and `mqtt://` do not, and
        /// `check` warns. Ports default to 8883 and 1883.
        pub url: At<BrokerUrl>,
        /// The MQTT client id; `{id}` is the gateway's id, `{imei}` or `[IMEI]` its modem's IMEI.
        /// Two gateways with one client id throw each other out.
        pub client_id: At<Text> = "{id}",
        /// The user name, if the broker wants one; `{id}` and `{imei}` are replaced.
        pub username: Option<At<Text>>,
        /// A file with the password in its first line.
        pub password_file: Option<At<SecretFile>>,
        /// A PEM file with the certificates the broker's certificate is checked against. Unset:
        /// the system's roots.
        pub ca_file: Option<At<PathBuf>>,
        /// A PEM file with weir's own certificate, then its issuers, for mutual TLS.
        pub client_certificate_file: Option<At<PathBuf>>,
        /// The PEM file of that certificate's private key.
        pub client_key_file: Option<At<SecretFile>>,
        /// The longest silence before weir pings the broker.
        pub keep_alive: KeepAlive = "60s",
        /// With `uplink.brokers = "mirror"`: a frame is kept until this broker has acknowledged it
        /// too. A broker that is not required gets what is still there.
        pub required: At<bool> = true,
    }
}

settings! {
    /// What is published, where and when.
    pub struct UplinkSettings {
        /// When there is a session with the broker.
        pub connect: Connect = "always",
        /// What several brokers are for.
        pub brokers: At<Arrangement> = "failover",
        /// Failover: how often weir, on a later broker, tries whether a preferred one is back.
        pub return_after: At<Duration> = "5m",
        /// The payload and topic conventions.
        pub profile: Profile = "frames",
        /// How many frames one iteration takes from the cache; its priority frames go first.
        pub batch: Count<1, 10_000> = 500,
        /// No message's payload is longer, before it is compressed; a batch becomes as many
        /// messages as it needs.
        pub max_payload: PayloadLimit = "128KiB",
        /// Makes payloads of frames shorter. Consumers must be able to read it: docs/mqtt.md.
        pub compression: Compression = "none",
        /// Where ordinary frames go; `{id}`, `{imei}` and `[IMEI]` are replaced in all topics.
        pub data_topic: At<Topic> = "/device/{id}/data/endpointdata",
        /// Where priority frames go. Unset: to `data_topic`, still before the others.
        pub event_topic: Option<At<Topic>>,
        /// Where `status_payload` goes after every successful connect. Unset: nowhere.
        pub status_topic: Option<At<Topic>>,
        /// Says that the gateway is there.
        pub status_payload: String = "{\"connected\": 1}",
        /// Where the broker publishes `will_payload` when the gateway is lost. Unset: no will.
        pub will_topic: Option<At<Topic>>,
        /// Says that the gateway is lost.
        pub will_payload: String = "{\"connected\": 0}",
        /// How long weir waits before it tries again.
        pub backoff: At<BackoffSettings> = {},
    }
}

settings! {
    /// The wait before the retry number n (counting from 0), plus a random part. Each broker has its own.
    pub struct BackoffSettings {
        /// How the wait grows.
        pub shape: Growth = "exponential",
        /// The wait before the first retry.
        pub first: Duration = "1s",
        /// The wait never grows beyond this.
        pub max: Duration = "64s",
        /// A random time from zero to this is added, so that a fleet does not come back at once.
        pub jitter: Duration = "999ms",
    }
}

choices! {
    /// When there is a session with the broker.
    pub enum Connect {
        /// All the time.
        Always = "always",
        /// When frames wait; it ends some seconds after the last one was acknowledged.
        OnDemand = "on-demand",
    }
}

choices! {
    /// What several brokers are for.
    pub enum Arrangement {
        /// One session at a time, with the first broker that accepts it.
        Failover = "failover",
        /// Each frame goes to every broker.
        Mirror = "mirror",
    }
}

choices! {
    /// How payloads of frames are made shorter.
    pub enum Compression {
        /// They are plain JSON.
        None = "none",
        /// A zlib stream (RFC 1950) around the JSON, when that is shorter.
        Deflate = "deflate",
    }
}

choices! {
    /// The payload and topic conventions.
    pub enum Profile {
        /// The frames JSON, version 1: docs/mqtt.md.
        Frames = "frames",
    }
}

settings! {
    /// The periodic status message (docs/status.md).
    pub struct StatusSettings {
        /// Where it goes; `{id}`, `{imei}` and `[IMEI]` are replaced.
        pub topic: At<Topic>,
        /// How often it is published while there is a session; also after every connect.
        pub every: At<Duration> = "5m",
        /// Whether a change worth telling is published at once (docs/status.md), at most every 10 s.
        pub on_change: bool = true,
        /// What it says: "weir" is weir's own document, "mtx" flat JSON in MTX style, anything else a text of your own with fields such
        /// as `{imei}`.
        pub template: At<String> = "weir",
        /// Whether it tells of every meter and receiver, too; with "mtx" of every port.
        pub extended: bool = false,
    }
}
