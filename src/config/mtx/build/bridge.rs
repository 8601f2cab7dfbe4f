//! What the two ports do: the tunnel on the first one, meters on the second.

use super::{Built, Fate, Outcome};
use crate::config::mtx::form::{MODES, elements, list, quoted};
use crate::config::mtx::modbus::{self, Polling};
use crate::config::mtx::understand::{Lint, Understood};

impl Built<'_> {
    /// What the main port is bridged to, as weir calls it.
    fn mode(&mut self) -> Option<&'static str> {
        let topics = self.value("MQTT_commrxtopic").is_some() || self.value("MQTT_commtxtopic").is_some();
        let embedded = self.value("MTX_ATEmbedded").is_some_and(|v| v.eq_ignore_ascii_case("temporalclient"));
        let word = self.value("MTX_mode").unwrap_or_default().to_ascii_lowercase();
        let mode = match word.as_str() {
            "" if embedded => Some("call-back"),
            "none" if embedded => Some("call-back"),
            "" if topics => Some("mqtt"),
            "" | "none" => None,
            word => match MODES.into_iter().find(|(theirs, _)| *theirs == word) {
                Some((_, ours)) => Some(ours),
                None => {
                    let message =
                        format!("MTX_mode must be mqtt, server, client, udp or none; \"{word}\" does not count");
                    self.warn("MTX_mode", message);
                    topics.then_some("mqtt")
                }
            },
        };
        if matches!(mode, Some("tcp-client" | "call-back")) && !self.gateway.centre {
            let name = if mode == Some("call-back") { "MTX_ATEmbedded" } else { "MTX_mode" };
            let key = if mode == Some("call-back") { "mode = \"call-back\" and targets" } else { "connect" };
            self.warn(
                name,
                format!(
                    "where it connects to is not documented for config.txt: write [[tunnel]] with {key} into site.toml"
                ),
            );
            return None;
        }
        mode
    }

    pub(super) fn tunnel(&mut self) {
        const TOPICS: [&str; 2] = ["MQTT_commrxtopic", "MQTT_commtxtopic"];
        let mode = self.mode();
        let (Some(mode), Some(port)) = (mode, self.comm.clone()) else {
            self.used("MTX_mode", "no tunnel on the first port");
            self.ignored(&["MTX_ATEmbedded"], "there is no tunnel for it");
            let names = [
                "MTX_msToSend",
                "MTX_ATMux",
                "MTX_flushSerialBuffers",
                "TCP_port",
                "UDP_IP",
                "UDP_localPort",
                "UDP_remotePort",
            ];
            self.ignored(&TOPICS, "there is no tunnel on the first port");
            return self.ignored(&names, "there is no tunnel on the first port");
        };
        self.draft.tunnels.push(port.clone());
        self.bridged = Some((port.clone(), false));
        let at = self.index(if mode == "call-back" { "MTX_ATEmbedded" } else { "MTX_mode" });
        let key = format!("tunnel[{port}].mode");
        self.draft.set(&key, mode, at, if at.is_none() { "MTX_mode is missing" } else { "" });
        self.say("MTX_mode", Fate::Mapped, format!("{key} = \"{mode}\""));
        self.used(
            "MTX_ATEmbedded",
            if mode == "call-back" {
                format!("{key} = \"call-back\"")
            } else {
                "commands come by MQTT, SMS, and with MTX_ATMux on the line".to_owned()
            },
        );
        self.map(&["MTX_msToSend", "MTX_ATMux"]);
        self.mode_keys(mode, &port);
    }

    /// What only some modes have.
    fn mode_keys(&mut self, mode: &str, port: &str) {
        let other = format!("not for mode = \"{mode}\"");
        match mode {
            "mqtt" => self.map(&["MQTT_commrxtopic", "MQTT_commtxtopic"]),
            _ => self.ignored(&["MQTT_commrxtopic", "MQTT_commtxtopic"], &other),
        }
        match mode {
            "tcp-server" | "tcp-client" | "call-back" => self.map(&["MTX_flushSerialBuffers"]),
            _ => self.ignored(&["MTX_flushSerialBuffers"], &other),
        }
        match mode {
            "tcp-server" => {
                self.map(&["TCP_port"]);
                if self.value("TCP_port").is_none() {
                    self.draft.set(&format!("tunnel[{port}].listen"), "0.0.0.0:20010", None, "TCP_port is missing");
                }
                if self.is_walled() {
                    self.bridged = Some((port.to_owned(), true));
                    self.used("FIREWALL_enabled", format!("tunnel[{port}].allow"));
                    self.map_all("FIREWALL_IP#");
                }
            }
            _ => self.ignored(&["TCP_port"], &other),
        }
        if mode != "udp" {
            return self.ignored(&["UDP_IP", "UDP_localPort", "UDP_remotePort"], &other);
        }
        self.map(&["UDP_localPort"]);
        if self.value("UDP_IP").is_some_and(|value| value.contains('@')) {
            return self.map(&["UDP_IP", "UDP_remotePort"]);
        }
        self.ignored(&["UDP_remotePort"], "answers go back to where their request came from");
        if let Some((at, addresses)) = self.index("UDP_IP").zip(self.value("UDP_IP").map(str::to_owned)) {
            let (key, value) = (format!("tunnel[{port}].allow"), list(addresses.split(',').map(str::trim)));
            self.draft.set(&key, &value, Some(at), "");
            self.say("UDP_IP", Fate::Mapped, format!("{key} = {value}"));
        }
    }

    /// Whether only named addresses may connect. What is not literally off is on: a slip of the pen opens no door.
    fn is_walled(&mut self) -> bool {
        match self.value("FIREWALL_enabled").map(str::to_ascii_lowercase).as_deref() {
            Some("off") => false,
            Some("on") => true,
            Some(_) => {
                self.warn("FIREWALL_enabled", "FIREWALL_enabled must be on or off; understood as on");
                true
            }
            None => {
                let named = |p: &&Understood| p.name().starts_with("FIREWALL_IP") && !p.value.is_empty();
                let Some(line) = self.all.iter().find(named).map(|p| p.line) else { return false };
                let message = "FIREWALL_enabled is missing, but there are FIREWALL_IP lines; understood as on";
                self.lints.push(Lint::warning(line, message));
                true
            }
        }
    }

    /// Leaves the tunnel of the first port out where it would be another one than is asked for: without its mode it would be bridged
    /// to MQTT, and a firewall that names nobody would let everybody in. `allowed` says whether site.toml names addresses for a
    /// port. True when it was left out.
    pub(in crate::config::mtx) fn guard(&mut self, allowed: &dyn Fn(&str) -> bool) -> bool {
        let Some((port, walled)) = self.bridged.clone() else { return false };
        let has = |key: &str| self.draft.value(&format!("tunnel[{port}].{key}"));
        let is_open = walled && has("allow").is_none_or(|list| elements(list).is_empty()) && !allowed(&port);
        let why = match has("mode") {
            None => "it can't have the mode that is asked for",
            Some(_) if is_open => {
                "FIREWALL_enabled is not off, and no FIREWALL_IP line names an address that weir can use; everybody could connect"
            }
            Some(_) => return false,
        };
        self.bridged = None;
        let message = format!("there is no tunnel on the first port: {why}");
        for at in self.draft.without_tunnel(&port) {
            if let Some(slot) = self.outcomes.get_mut(at) {
                *slot = Some(Outcome { fate: Fate::Ignored, became: message.clone() });
            }
        }
        self.ignored(&["FIREWALL_enabled"], "there is no tunnel on the first port");
        let culprit = if is_open && self.value("FIREWALL_enabled").is_some() { "FIREWALL_enabled" } else { "MTX_mode" };
        self.warn(culprit, message);
        true
    }

    pub(super) fn second_port(&mut self) {
        const POLLING: [&str; 6] = [
            "MODBUS_address",
            "MODBUS_start",
            "MODBUS_numWords",
            "MODBUS_readCommand",
            "MODBUS_custom",
            "MODBUS_period",
        ];
        const COMM2: [&str; 4] = ["COMM2_baudrate", "COMM2_bitsperchar", "COMM2_parity", "COMM2_stopbits"];
        let word = self.value("MTX_portAux").unwrap_or_default().to_ascii_lowercase();
        let from: Vec<usize> = POLLING.iter().filter_map(|name| self.index(name)).collect();
        let master = word == "modbusmaster";
        if !word.is_empty() && !master && word != "none" {
            self.warn("MTX_portAux", "MTX_portAux must be modbusmaster; the line does not count");
        }
        if !master && !from.is_empty() {
            let name = POLLING.into_iter().find(|name| self.value(name).is_some()).unwrap_or_default();
            self.warn(
                name,
                "MODBUS_ is for MTX_portAux: modbusmaster, which is missing; understood as if it were there",
            );
        }
        if !master && from.is_empty() {
            self.used("MTX_portAux", "nothing on the second port");
            return self.ignored(&COMM2, "the second port is not used");
        }
        let Some(port) = self.comm2.clone() else {
            let why = format!("the board {} names no second port; name one in site.toml", self.gateway.board);
            self.lints.push(Lint::warning(0, why.clone()));
            self.ignored(&COMM2, &why);
            self.ignored(&["MTX_portAux"], &why);
            return self.ignored(&POLLING, &why);
        };
        self.draft.ports.push(port.clone());
        self.map(&COMM2);
        if from.is_empty() {
            return self.commanded(port);
        }
        self.used("MTX_portAux", format!("meters on port {port}"));
        let polling = Polling {
            addresses: self.value("MODBUS_address"),
            starts: self.value("MODBUS_start"),
            words: self.value("MODBUS_numWords"),
            functions: self.value("MODBUS_readCommand"),
            labels: self.value("MODBUS_custom"),
            period: self.value("MODBUS_period"),
        };
        let (meters, told) = modbus::meters(polling, &port, &from);
        match meters.len() {
            0 => self.ignored(&POLLING, "there are no meters"),
            count => {
                POLLING.iter().for_each(|name| self.used(name, format!("[[meter]] on port {port}: {count} of them")));
            }
        }
        let end = if meters.is_empty() { "; there are no meters" } else { "" };
        self.draft.blocks = meters;
        told.into_iter().for_each(|(name, why)| self.warn(name, format!("{why}{end}")));
    }

    /// A second port without meters: a tunnel of its own lets GETMODBUS and SETMODBUS reach it.
    fn commanded(&mut self, port: String) {
        let name = if self.gateway.imei { "{imei}" } else { "{id}" };
        let at = self.index("MTX_portAux");
        for (key, end) in [("rx_topic", "rx2"), ("tx_topic", "tx2")] {
            let topic = quoted(&format!("{name}/{end}"));
            self.draft.set(
                &format!("tunnel[{port}].{key}"),
                &topic,
                at,
                "GETMODBUS and SETMODBUS reach the port by its tunnel",
            );
        }
        self.used("MTX_portAux", format!("[[tunnel]] on port {port}, for GETMODBUS and SETMODBUS"));
        self.draft.tunnels.push(port);
    }
}
