//! What becomes of each parameter of a config.txt: the one table, for files, GETPARAM, SETPARAM and docs/mtx.md.
//!
//! `{comm}` and `{comm2}` in a key are the names of the first and second port; `#` at the end of a name is a number.

use super::form::Form;

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// A key of weir.toml.
    Key(&'static str, Form),
    /// The file that a key of weir.toml names holds it.
    Secret(&'static str),
    /// It decides, with others, what is built.
    Part,
    /// Nothing; the row says why.
    Nothing,
}

/// A parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its name in the vendor's spelling.
    pub name: &'static str,
    /// What becomes of it.
    pub becomes: Becomes,
    /// What it does here, or why nothing.
    pub about: &'static str,
}

const fn key(name: &'static str, key: &'static str, form: Form, about: &'static str) -> Row {
    Row { name, becomes: Becomes::Key(key, form), about }
}

const fn part(name: &'static str, about: &'static str) -> Row {
    Row { name, becomes: Becomes::Part, about }
}

const fn none(name: &'static str, about: &'static str) -> Row {
    Row { name, becomes: Becomes::Nothing, about }
}

const fn secret(name: &'static str, key: &'static str, about: &'static str) -> Row {
    Row { name, becomes: Becomes::Secret(key), about }
}

const FLOW: &str = "weir's lines have no hardware flow control: off is what it does anyway";
const CELLULAR: &str = "the cellular connection belongs to NetworkManager or ModemManager: nmcli connection add type gsm \
    con-name cellular ifname '*' gsm.apn APN gsm.username LOGIN gsm.password PASSWORD";
const DIALLED: &str = "it belongs to the cellular connection: see GPRS_apn";
const CHRONY: &str =
    "the clock belongs to the system: a line `server HOST iburst` in /etc/chrony/chrony.conf (docs/time.md)";
const TELNET: &str = "weir opens no console to the network: use SSH, AT commands by MQTT and SMS, or weir at";
const CSD: &str =
    "circuit-switched data calls are gone from the networks; a tunnel by MQTT or a call-back takes their place";
const NO_HTTP: &str = "weir sends readings to the broker at uplink.data_topic (docs/mqtt.md), not to a web server";
const NO_LIMIT: &str = "weir's cache holds store.max_size, 256 MiB unless it is changed, and needs no sizes of records";
const IO: &str =
    "weir does not watch inputs or follow rules with outputs; SETIO and GETIOS (docs/control.md) are for single ones";
const POLLED: &str = "a meter on the second port; blocks are counted by `;`, a shorter list repeats its last value";

/// All parameters.
pub(super) const ROWS: &[Row] = &[
    key("COMM_baudrate", "port[{comm}].baud", Form::Number, "speed of the first port"),
    key("COMM_bitsperchar", "port[{comm}].framing", Form::DataBits, "data bits, 7 or 8"),
    key("COMM_parity", "port[{comm}].framing", Form::Parity, "none, even or odd"),
    key("COMM_stopbits", "port[{comm}].framing", Form::StopBits, "1 or 2"),
    none("COMM_autorts", FLOW),
    none("COMM_autocts", FLOW),
    key("COMM2_baudrate", "port[{comm2}].baud", Form::Number, "speed of the second port"),
    key("COMM2_bitsperchar", "port[{comm2}].framing", Form::DataBits, "data bits, 7 or 8"),
    key("COMM2_parity", "port[{comm2}].framing", Form::Parity, "none, even or odd"),
    key("COMM2_stopbits", "port[{comm2}].framing", Form::StopBits, "1 or 2"),
    none("COMM2_autorts", FLOW),
    none("COMM2_autocts", FLOW),
    none("GPRS_apn", CELLULAR),
    none("GPRS_login", DIALLED),
    none("GPRS_password", DIALLED),
    none(
        "GPRS_timeout",
        "the cellular connection belongs to NetworkManager or ModemManager, which keep it all the time",
    ),
    none("GPRS_mode", "the radio belongs to ModemManager: mmcli -m any --set-allowed-modes='4g|3g'"),
    none("GPRS_DNS", "name servers belong to NetworkManager: nmcli connection modify cellular ipv4.dns ADDRESS"),
    secret("MTX_PIN", "modem.pin_file", "PIN of the SIM; a refused one is not tried again"),
    key("MTX_mode", "tunnel[{comm}].mode", Form::Mode, "who has the first port: mqtt, server, client, udp or none"),
    none("MTX_model", "the hardware is gateway.board (`weir boards`)"),
    key(
        "MTX_ping",
        "watchdog.ping.after",
        Form::Minutes,
        "minutes of silence before the way to the world is tested; 0: never",
    ),
    key("MTX_pingIP", "watchdog.ping.host", Form::Text, "the host that is asked then"),
    none("MTX_numGSMErrors", "what it counts is not documented; [watchdog] decides by failures of the ping"),
    part("MTX_invertedCom", "on: the first and second port of the board change places"),
    key("MTX_msToSend", "tunnel[{comm}].gather", Form::Millis, "silence after which bytes are sent as one message"),
    part("MTX_portAux", "modbusmaster: meters or GETMODBUS on the second port"),
    key("MTX_ATMux", "control.line_ports", Form::LinePort, "on: commands inside tags on the first port"),
    part("MTX_ATEmbedded", "temporalclient: the first port is opened to a reading centre on AT^WEIR=CALLBACK"),
    none("MTX_te*", "how the vendor names the reading centre is not documented: write tunnel.targets into site.toml"),
    none("MTX_ATLimited", "who may command what is [[control.grant]] (docs/control.md)"),
    none("MTX_urc", "what the modem says unasked is weir's own business"),
    none("MTX_TPProtocol", CHRONY),
    none("MTX_TPServer", CHRONY),
    none("MTX_TPServer2", CHRONY),
    none("MTX_TPFormat", "times are RFC 3339 in UTC (docs/mqtt.md)"),
    none("MTX_latitude", "weir has no astronomical clock"),
    none("MTX_longitude", "weir has no astronomical clock"),
    key(
        "MTX_flushSerialBuffers",
        "tunnel[{comm}].flush",
        Form::OnOff,
        "server, client: old bytes are thrown away before a connection",
    ),
    none("MTX_radioBand", "the radio belongs to ModemManager: mmcli -m any --set-current-bands=..."),
    key(
        "SMS_sendIP",
        "control.sms.send_ip",
        Form::OnOff,
        "a missed call or `mtxtunnel on` is answered with the IP address",
    ),
    key("SMS_ATEnabled", "control.sms.enabled", Form::OnOff, "commands by SMS; off when the line is missing"),
    key("SMS_ATResponse", "control.sms.reply", Form::OnOff, "they are answered"),
    key("SMS_allPhones", "control.sms.allow_all", Form::OnOff, "every number may command"),
    key("SMS_validPhone#", "control.sms.allow", Form::Element, "a number that may command"),
    key("SMS_tunnelString", "control.sms.tunnel_prefix", Form::Text, "an SMS that begins with it goes to the port"),
    key("SMS_alias#", "control.sms.alias", Form::Element, "TEXT>AT command"),
    key("SMS_aliasResponse", "control.sms.alias_response", Form::Text, "what an alias is answered with"),
    key("SMS_aliasError", "control.sms.alias_error", Form::Text, "what is sent when an alias fails"),
    part("MQTT_enabled", "off: MQTT_server does not count"),
    key(
        "MQTT_server",
        "broker[1].url",
        Form::Url,
        "the broker; its CA is broker.ca_file in site.toml, else the system's roots",
    ),
    key("MQTT_id", "broker[1].client_id", Form::Name, "client id"),
    key("MQTT_login", "broker[1].username", Form::Name, "user name"),
    secret("MQTT_password", "broker[1].password_file", "password of the broker"),
    key("MQTT_attopic#", "control.at_topics", Form::Topic, "a topic where commands are published"),
    key("MQTT_atrtopic", "control.reply_topic", Form::Name, "where their answers go"),
    none("MQTT_qos", "weir publishes and listens with QoS 1"),
    key("MQTT_keepalive", "broker[1].keep_alive", Form::Seconds, "seconds of silence before weir pings the broker"),
    none("MQTT_persistent", "weir keeps frames itself until the broker has acknowledged them"),
    key("MQTT_commrxtopic", "tunnel[{comm}].rx_topic", Form::Name, "what is published there is written to the port"),
    key("MQTT_commtxtopic", "tunnel[{comm}].tx_topic", Form::Name, "what comes from the port is published there"),
    none("MQTT_defaultOTopic", IO),
    none("MQTT_defaultIOQos", IO),
    part("DNS_enabled", "on: the status message is sent"),
    part("DNS_mode", "mqtt; weir has no other way for the status message"),
    key("DNS_mqttTopic", "status.topic", Form::Name, "topic of the status message"),
    key("DNS_extended", "status.extended", Form::OnOff, "the long form"),
    key("DNS_period", "status.every", Form::Seconds, "seconds between two"),
    part(
        "FIREWALL_enabled",
        "on, with MTX_mode server: only FIREWALL_IP1.. may connect; the gateway's own firewall is nftables",
    ),
    key("FIREWALL_IP#", "tunnel[{comm}].allow", Form::Element, "with MTX_mode server: an address that may connect"),
    none("TELNET_enabled", TELNET),
    none("TELNET_login", TELNET),
    none("TELNET_password", TELNET),
    none("TELNET_port", TELNET),
    none("TELNET_firewall", TELNET),
    key(
        "TCP_port",
        "tunnel[{comm}].listen",
        Form::Listen,
        "with MTX_mode server: where it listens; 20010 when the line is missing",
    ),
    key(
        "UDP_IP",
        "tunnel[{comm}].routes",
        Form::Routes,
        "with MTX_mode udp: ip@n,ip@n routes by the Modbus address; an ip alone may send",
    ),
    key("UDP_localPort", "tunnel[{comm}].local", Form::Listen, "with MTX_mode udp: where datagrams are heard"),
    key(
        "UDP_remotePort",
        "tunnel[{comm}].remote_port",
        Form::Number,
        "with MTX_mode udp and routes: where datagrams are sent to",
    ),
    none("WEBSERVER_enabled", "weir has no web server: use weir meters, weir report, or the status message"),
    none("CSD_enabled", CSD),
    none("CSD_commPort", CSD),
    part("MODBUS_address", POLLED),
    part("MODBUS_start", "first register of each block, as on the wire"),
    part("MODBUS_numWords", "registers of each block"),
    part("MODBUS_period", "seconds between two readings"),
    part("MODBUS_readCommand", "function of each block: 1, 2, 3 or 4; 3 when the line is missing"),
    part("MODBUS_custom", "label of each block: what its values are called"),
    none("LOGGER_enabled", "weir always keeps readings until the broker has acknowledged them"),
    none("LOGGER_password", "a site's name: frames carry gateway.id"),
    none("LOGGER_server", NO_HTTP),
    none("LOGGER_serverLogin", NO_HTTP),
    none("LOGGER_serverPassword", NO_HTTP),
    none("LOGGER_httpMode", NO_HTTP),
    none("LOGGER_registerSize", NO_LIMIT),
    none("LOGGER_numRegistersFlash", NO_LIMIT),
    none("LOGGER_numRegistersRam", NO_LIMIT),
    none("LOGGER_ioPeriod", IO),
    none(
        "LOGGER_serialData#",
        "weir does not send frames of its own to a device it does not know; the platform does, through the tunnel",
    ),
    none("GPIO_mode#", IO),
    none("GPIO_config#", IO),
    none("ADC_mode#", IO),
    none("ADC_config#", IO),
    none("OUTPUT_mode#", IO),
    none("OUTPUT_config#", IO),
    none("ALARM_gpioEnabled", IO),
    none("ALARM_gpioValue", IO),
    none("ALARM_gpioMessage", IO),
    none("ALARM_gpioMessage1", IO),
    none("ALARM_gpioPause", IO),
    none("ALARM_smsNumber#", "weir does not watch inputs; what it tells by SMS is [[control.sms.alert]]"),
];

/// The words that published examples misspell, and what they mean.
pub(super) const MISSPELT: &[(&str, &str)] = &[("DNS_exdended", "DNS_extended")];

/// A name that was found in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its row.
    pub row: &'static Row,
    /// The number of a numbered one.
    pub number: Option<usize>,
    /// The name in the vendor's spelling.
    pub name: String,
}

/// Finds a name, whatever its capitals and blanks.
pub(super) fn find(name: &str) -> Option<Found> {
    let bare = crate::wire::mtx::bare(name);
    ROWS.iter().find_map(|row| {
        if row.name.eq_ignore_ascii_case(&bare) {
            return (!row.name.ends_with('#')).then(|| Found { row, number: None, name: row.name.to_owned() });
        }
        if let Some(stem) = row.name.strip_suffix('*') {
            let fits = bare.get(..stem.len()).is_some_and(|head| head.eq_ignore_ascii_case(stem));
            return fits.then(|| Found { row, number: None, name: bare.clone() });
        }
        let stem = row.name.strip_suffix('#')?;
        let digits =
            bare.get(stem.len()..).filter(|_| bare.get(..stem.len()).is_some_and(|h| h.eq_ignore_ascii_case(stem)))?;
        let number: usize = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?;
        Some(Found { row, number: Some(number), name: format!("{stem}{number}") })
    })
}

/// Whether a name belongs to one of the vendor's groups, known or not: `MQTT_something`.
pub(super) fn is_grouped(name: &str) -> bool {
    let bare = crate::wire::mtx::bare(name);
    let Some((group, rest)) = bare.split_once('_') else { return false };
    let known = ROWS.iter().any(|row| row.name.split_once('_').is_some_and(|(g, _)| g.eq_ignore_ascii_case(group)));
    known && !rest.is_empty() && bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// No known name is longer; longer ones are near none.
const LONGEST_NAME: usize = 64;

/// The known name that is nearest to one that is not known, when it is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let lower = crate::wire::mtx::bare(name).to_ascii_lowercase();
    if lower.len() > LONGEST_NAME {
        return None;
    }
    let distance = |row: &Row| strsim::damerau_levenshtein(&lower, &row.name.to_ascii_lowercase());
    let near = ROWS.iter().map(|row| (distance(row), row.name)).min()?;
    (near.0 <= (lower.len() / 4).max(1)).then_some(near.1)
}

/// Whether a parameter's value is not for others to read.
pub fn is_secret(name: &str) -> bool {
    let lower = crate::wire::mtx::bare(name).to_ascii_lowercase();
    if lower == "logger_password" {
        return false;
    }
    let is_known = find(name).is_some_and(|found| !found.row.name.ends_with('*'));
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    lower == "mtx_pin" || has(&["password", "login"]) || !is_known && has(&["pas", "pin", "puk"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_vendors_examples_is_known() {
        let names = "COMM_baudrate COMM_bitsperchar COMM_autorts COMM_autocts COMM_stopbits COMM_parity COMM2_baudrate COMM2_autorts \
            GPRS_apn GPRS_login GPRS_password GPRS_timeout GPRS_mode GPRS_DNS MTX_PIN MTX_mode MTX_model MTX_ping MTX_pingIP \
            MTX_numGSMErrors MTX_invertedCom MTX_msToSend MTX_portAux MTX_ATMux MTX_ATEmbedded MTX_temporal MTX_ATLimited MTX_urc \
            MTX_TPProtocol MTX_TPServer MTX_TPServer2 MTX_TPFormat MTX_latitude MTX_longitude MTX_flushSerialBuffers MTX_radioBand \
            SMS_sendIP SMS_ATEnabled SMS_ATResponse SMS_allPhones SMS_validPhone1 SMS_tunnelString SMS_alias18 SMS_aliasResponse \
            SMS_aliasError MQTT_enabled MQTT_server MQTT_id MQTT_login MQTT_password MQTT_attopic3 MQTT_atrtopic MQTT_qos \
            MQTT_keepalive MQTT_persistent MQTT_commrxtopic MQTT_commtxtopic MQTT_defaultOTopic MQTT_defaultIOQos DNS_enabled DNS_mode \
            DNS_mqttTopic DNS_extended DNS_period FIREWALL_enabled FIREWALL_IP1 TELNET_enabled TELNET_login TELNET_password TELNET_port \
            TELNET_firewall TCP_port UDP_IP UDP_localPort UDP_remotePort WEBSERVER_enabled CSD_enabled CSD_commPort MODBUS_address \
            MODBUS_start MODBUS_numWords MODBUS_period MODBUS_readCommand MODBUS_custom LOGGER_enabled LOGGER_password LOGGER_server \
            LOGGER_serverLogin LOGGER_serverPassword LOGGER_httpMode LOGGER_registerSize LOGGER_numRegistersFlash \
            LOGGER_numRegistersRam LOGGER_ioPeriod LOGGER_serialData1 GPIO_mode0 GPIO_config9 ADC_mode0 ADC_config2 OUTPUT_mode4 \
            OUTPUT_config1 ALARM_gpioEnabled ALARM_gpioValue ALARM_gpioMessage ALARM_gpioMessage1 ALARM_gpioPause ALARM_smsNumber10";
        for name in names.split_whitespace() {
            let found = find(name).unwrap_or_else(|| panic!("{name} is not known"));
            assert_eq!(find(&name.to_uppercase()).unwrap().row, found.row, "{name}");
        }
    }

    #[test]
    fn names_are_found_whatever_their_capitals_and_their_numbers_are_numbers() {
        assert_eq!(find("mtx_pin").unwrap().name, "MTX_PIN");
        assert_eq!(find("UDP_ localPort").unwrap().name, "UDP_localPort");
        let phone = find("sms_VALIDphone12").unwrap();
        assert_eq!((phone.name.as_str(), phone.number), ("SMS_validPhone12", Some(12)));
        for none in ["SMS_validPhone", "SMS_validPhone+1", "SMS_validPhonex", "MQTT_", "", "uplink.batch"] {
            assert!(find(none).is_none(), "{none}");
        }
        assert!(
            is_grouped("mqtt_will") && !is_grouped("uplink.batch") && !is_grouped("max_age") && !is_grouped("MQTT_")
        );
        assert_eq!(nearest("MQTT_keepalife"), Some("MQTT_keepalive"));
        assert_eq!(nearest("XYZ_abc"), None);
        for (name, secret) in [
            ("MTX_ PIN", true),
            ("MTX_PUK", true),
            ("MQTT_pasword", true),
            ("FOO_Pin2", true),
            ("MTX_pingIP", false),
            ("FOO_bar", false),
            ("LOGGER_password", false),
        ] {
            assert_eq!(is_secret(name), secret, "{name}");
        }
    }

    #[test]
    fn the_names_of_the_lines_are_those_of_the_table() {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(crate::wire::mtx::NAMES, names.join(" "));
    }

    #[test]
    fn every_key_of_the_table_is_a_key_of_weir_toml() {
        let text =
            "[broker]\nurl = \"tcp://h\"\n[[port]]\nname = \"a\"\n[[port]]\nname = \"b\"\n[[tunnel]]\nport = \"a\"\n";
        for row in ROWS {
            let (Becomes::Key(key, _) | Becomes::Secret(key)) = row.becomes else { continue };
            let key = key.replace("{comm}", "a").replace("{comm2}", "b");
            crate::config::edit::value(text, &key).unwrap_or_else(|why| panic!("{}: {why}", row.name));
        }
    }
}
