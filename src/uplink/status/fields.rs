//! The table of everything that a status message may say: name, unit, what it is.

macro_rules! fields {
    ($(#[doc = $about:literal])* $enum:ident { $( $variant:ident $name:literal $unit:literal $what:literal, )* }) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $enum {
            $( #[doc = $what] $variant, )*
        }

        impl $enum {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// Its name in a template.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// Its unit; empty for words and counts.
            pub const fn unit(self) -> &'static str {
                match self { $( Self::$variant => $unit, )* }
            }

            /// What it is.
            pub const fn what(self) -> &'static str {
                match self { $( Self::$variant => $what, )* }
            }
        }
    };
}

fields! {
    /// A figure of the gateway.
    Field {
        Id "id" "" "The gateway's name.",
        Imei "imei" "" "The modem's number, or `gateway.imei`.",
        Ip "ip" "" "The gateway's own address on the way to the world.",
        Modem "modem" "" "`absent`, `silent`, `locked` or `ready`; null without `[modem]`.",
        Csq "csq" "0 to 31" "The signal as modems tell it.",
        Rssi "rssi" "dBm" "The signal.",
        Rsrp "rsrp" "dBm" "The reference signal of LTE.",
        Rsrq "rsrq" "dB" "The quality of that.",
        Technology "technology" "" "`2g`, `3g`, `4g`, `lte-m`, `nb-iot` or `5g`.",
        Operator "operator" "" "The network's name or number.",
        Registration "registration" "" "`home`, `roaming`, `searching`, `denied`, `idle` or `unknown`.",
        Area "area" "hex" "The location or tracking area.",
        Cell "cell" "hex" "The cell.",
        Iccid "iccid" "" "The SIM's number.",
        Version "version" "" "weir's version.",
        Board "board" "" "The hardware, by its name in boards/.",
        Uptime "uptime" "s" "Since the system started.",
        Running "running" "s" "Since weir, or its configuration, started.",
        Restart "restart" "" "Why weir started: see below.",
        Time "time" "UTC" "The time of the message.",
        Clock "clock" "" "How good the time is: `synced`, `corrected` or `unsynced`.",
        Temperature "temperature" "°C" "The processor's temperature.",
        DiskFree "disk_free" "bytes" "What is free where the store is.",
        DiskTotal "disk_total" "bytes" "The size of that.",
        DiskError "disk_error" "" "Why the disk refuses, while it does.",
        Queue "queue" "frames" "What waits for the broker.",
        QueuePriority "queue_priority" "frames" "Those of them that go first.",
        Received "received" "frames" "What was ever put into the store.",
        Acknowledged "acknowledged" "frames" "What the broker acknowledged.",
        Evicted "evicted" "frames" "What was given up.",
        Damaged "damaged" "frames" "Those of them that were unreadable.",
        Skipped "skipped" "numbers" "Numbers that no frame has.",
        Given "given" "numbers" "Numbers given so far: received + skipped.",
        Broker "broker" "" "The broker there is a session with; null without one.",
        ConnectedSince "connected_since" "UTC" "Since when.",
        Reconnects "reconnects" "" "Sessions made anew since weir started.",
        LastError "last_error" "" "Why there was no session the last time.",
        SentToday "sent_today" "bytes" "Over TCP, TLS included.",
        ReceivedToday "received_today" "bytes" "The same, from the broker.",
        DataUsed "data_used" "bytes" "Both ways in this month.",
        Locked "locked" "" "Whether the gateway is locked: `true` or `false`.",
        Configuration "configuration" "" "The number of the configuration.",
        OnTrial "on_trial" "" "Whether it is on trial: `true` or `false`.",
        Meters "meters" "" "Meters that were asked or heard since weir started.",
        MetersFailing "meters_failing" "" "Those that failed twice in a row or more.",
        Receivers "receivers" "" "Radio receivers.",
        ReceiversOpen "receivers_open" "" "Those that work.",
        Inputs "inputs" "" "The board's digital inputs in the order of its file: `0,1`; `-` is unknown.",
        Outputs "outputs" "" "Its digital outputs; `-` is one that nobody set.",
        Analog "analog" "" "Its analog inputs, each in the unit its file says: `1234.5,20`.",
        Ports "ports" "JSON" "Every port's counters: the names below, by the port's name.",
    }
}

fields! {
    /// A figure of one port, since weir started: `{port.NAME.to_port}`.
    PortField {
        ToPort "to_port" "bytes" "Written to it by its tunnel.",
        FromPort "from_port" "bytes" "Heard from it by its tunnel.",
        Requests "requests" "" "Requests to its meters, and those of its tunnel.",
        Answers "answers" "" "Good readings of its meters, and messages of its tunnel.",
        Failures "failures" "" "Requests that nothing answered, damaged answers, and what its tunnel dropped.",
        Holder "holder" "" "Who is connected to its tunnel; else `tunnel`, `reading`, `order`, `background`, `listening`, `command` or `lease`; null: nobody has it.",
    }
}

/// The tables of docs/status.md.
pub fn markdown() -> String {
    let mut page = "| field | unit | what |\n| --- | --- | --- |\n".to_owned();
    for field in Field::ALL {
        page += &format!("| `{}` | {} | {} |\n", field.name(), field.unit(), field.what());
    }
    page += "\n| `port.NAME.` | unit | what |\n| --- | --- | --- |\n";
    for field in PortField::ALL {
        page += &format!("| `{}` | {} | {} |\n", field.name(), field.unit(), field.what());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (head, rest) = page.split_once("<!-- fields -->\n").unwrap();
        let (table, tail) = rest.split_once("<!-- end -->").unwrap();
        if std::env::var_os("WEIR_BLESS").is_some() {
            std::fs::write(path, format!("{head}<!-- fields -->\n{}<!-- end -->{tail}", markdown())).unwrap();
        } else {
            assert_eq!(table, markdown(), "WEIR_BLESS=1 cargo test --lib uplink::status writes it");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Field::ALL.len());
    }
}
