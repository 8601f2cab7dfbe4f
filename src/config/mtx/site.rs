//! `site.toml` beside a config.txt: what this gateway knows and a config.txt can't say.
//!
//! It is a part of a weir.toml, and its keys win: `[gateway] board`, `[broker] ca_file`, `[[port]] device` ... Tables of
//! lists are the same when they have the same name (tunnels: port, brokers: url). What a config.txt has one of, the broker, is the
//! first of the site.toml's list, unless that names it elsewhere; its first member goes there when it names none. `[mtx] ports = ["rs232-1", "rs485-1"]` names the ports
//! that COMM_ and COMM2_ mean; unset: the board's first two.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike, Value};

use crate::setting::{Problem, Problems};

/// The file's name.
pub const FILE: &str = "site.toml";

/// What stands in a site.toml.
#[derive(Debug, Clone, Default)]
pub struct Site {
    document: DocumentMut,
    /// What `[mtx] ports` says.
    pub(super) ports: Option<Vec<String>>,
}

impl Site {
    /// Reads the text.
    ///
    /// # Errors
    /// What is no TOML, with its place.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let wrong = |span, message: String| {
            let mut problems = Problems::new();
            problems.syntax(span, message);
            problems.located(text)
        };
        let mut document: DocumentMut = text
            .parse()
            .map_err(|e: toml_edit::TomlError| wrong(e.span(), format!("not valid TOML: {}", e.message())))?;
        let mtx = document.remove("mtx");
        let ports = match mtx.as_ref().and_then(|mtx| mtx.get("ports")) {
            None => None,
            Some(ports) => {
                let names =
                    ports.as_array().map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect());
                let names: Option<Vec<String>> = names.filter(|names: &Vec<String>| !names.is_empty());
                Some(
                    names
                        .ok_or_else(|| wrong(ports.span(), "[mtx] ports must be a list of ports' names".to_owned()))?,
                )
            }
        };
        Ok(Self { document, ports })
    }

    fn get(&self, path: &[&str]) -> Option<&Item> {
        path.iter().try_fold(self.document.as_item(), |item, key| item.get(key))
    }

    /// A text of it.
    pub(super) fn text(&self, path: &[&str]) -> Option<&str> {
        self.get(path).and_then(Item::as_str)
    }

    pub(super) fn has(&self, path: &[&str]) -> bool {
        self.get(path).is_some()
    }

    /// Whether one of its tunnels has one of these keys.
    pub(super) fn tunnel_has(&self, keys: &[&str]) -> bool {
        let tunnels = self.document.get("tunnel").and_then(Item::as_array_of_tables);
        tunnels.is_some_and(|tunnels| tunnels.iter().any(|tunnel| keys.iter().any(|key| tunnel.contains_key(key))))
    }

    /// Whether it names addresses that may connect to a port's tunnel.
    pub(super) fn allows(&self, port: &str) -> bool {
        let tunnels = self.document.get("tunnel").and_then(Item::as_array_of_tables);
        let is_its = |tunnel: &&Table| tunnel.get("port").and_then(Item::as_str) == Some(port);
        let list = tunnels.and_then(|tunnels| tunnels.iter().find(is_its)?.get("allow")?.as_array());
        list.is_some_and(|list| !list.is_empty())
    }

    /// Puts it over a text; its keys win.
    pub(super) fn over(&self, text: &str) -> String {
        let Ok(mut document) = text.parse::<DocumentMut>() else { return text.to_owned() };
        if self.document.is_empty() {
            return text.to_owned();
        }
        merge(document.as_table_mut(), self.document.as_table());
        forget_places(document.as_table_mut());
        document.to_string()
    }
}

/// Lets the tables stand in the order in which they are now, not where they stood in their files.
fn forget_places(table: &mut Table) {
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(table) => {
                table.set_position(None);
                forget_places(table);
            }
            Item::ArrayOfTables(tables) => {
                for table in tables.iter_mut() {
                    table.set_position(None);
                    forget_places(table);
                }
            }
            Item::None | Item::Value(_) => {}
        }
    }
}

fn merge(into: &mut Table, from: &Table) {
    for (key, theirs) in from {
        match (into.get_mut(key), theirs) {
            (Some(Item::Table(ours)), Item::Table(theirs)) => merge(ours, theirs),
            (Some(Item::ArrayOfTables(ours)), Item::ArrayOfTables(theirs)) => join(ours, theirs, false),
            (Some(ours), Item::ArrayOfTables(theirs)) if ours.is_table() => {
                let mut all = ArrayOfTables::new();
                all.extend(std::mem::take(ours).into_table());
                join(&mut all, theirs, true);
                *ours = Item::ArrayOfTables(all);
            }
            (_, theirs) => drop(into.insert(key, theirs.clone())),
        }
    }
}

/// Puts their members into the list; `only`: ours is a single table, and their first one without a name is the same.
fn join(ours: &mut ArrayOfTables, theirs: &ArrayOfTables, only: bool) {
    for (number, member) in theirs.iter().enumerate() {
        let theirs = name(member);
        let same = |table: &Table| theirs.is_some() && name(table) == theirs;
        let unnamed = (only && number == 0 && theirs.is_none()).then_some(0);
        let at = ours.iter().position(same).or(unnamed);
        match at.and_then(|at| ours.get_mut(at)) {
            Some(table) => merge(table, member),
            None => ours.push(member.clone()),
        }
    }
}

fn name(table: &dyn TableLike) -> Option<String> {
    ["name", "port", "url"].iter().find_map(|key| table.get(key)?.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_keys_win_and_members_of_lists_meet_by_their_names() {
        let ours = "version = 1\n\n[broker]\nurl = \"tcp://h\"  # line 1: MQTT_server\n\n[[port]]\nname = \"a\"\nbaud = 9600\n\n[[tunnel]]\nport = \"a\"\n\n[status]\ntopic = \"t\"\n";
        let site = Site::parse(
            "[store]\npath = \"/s\"\n[broker]\nca_file = \"/ca\"\n[[port]]\nname = \"b\"\ndevice = \"/dev/y\"\n[port.rs485]\ndirection = \"auto\"\n[[port]]\nname = \"a\"\ndevice = \"/dev/x\"\nbaud = 19200\n[mtx]\nports = [\"a\", \"b\"]\n",
        )
        .unwrap();
        assert_eq!(site.ports.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
        let text = site.over(ours);
        let loaded = crate::config::parse(&text).unwrap_or_else(|p| panic!("{p:?}\n{text}"));
        let ports: Vec<_> = loaded.settings.port.iter().map(|p| (p.name.to_string(), p.baud.value())).collect();
        assert_eq!(format!("{ports:?}"), format!("{:?}", [("a".to_owned(), 19200), ("b".to_owned(), 9600)]), "{text}");
        assert_eq!(loaded.settings.store.path, std::path::Path::new("/s"));
        assert!(text.contains("# line 1: MQTT_server") && !text.contains("mtx"), "{text}");
    }

    #[test]
    fn a_list_of_brokers_keeps_the_one_of_the_config_txt_as_its_first() {
        let ours = "version = 1\n\n[broker]\nurl = \"tcp://h\"  # line 1: MQTT_server\nclient_id = \"c\"\n\n[status]\ntopic = \"t\"\n";
        let second = "[[broker]]\nurl = \"tcp://other\"\n";
        for (site, first) in [
            (second.to_owned(), None),
            (format!("[[broker]]\nusername = \"me\"\n{second}"), Some("me")),
            (format!("[[broker]]\nurl = \"tcp://h\"\nusername = \"me\"\n{second}"), Some("me")),
            (format!("{second}[[broker]]\nurl = \"tcp://h\"\nusername = \"me\"\n"), Some("me")),
        ] {
            let text = Site::parse(&site).unwrap().over(ours);
            let loaded = crate::config::parse(&text).unwrap_or_else(|p| panic!("{p:?}\n{text}"));
            let urls: Vec<_> = loaded.settings.broker.iter().map(|broker| broker.url.host.clone()).collect();
            assert_eq!(urls, ["h", "other"], "{text}");
            let broker = &loaded.settings.broker[0];
            assert_eq!(broker.client_id.as_written(), "c", "{text}");
            assert_eq!(broker.username.as_ref().map(|name| name.as_written().to_owned()).as_deref(), first, "{text}");
            // What the site.toml says anew is not of the config.txt any more.
            assert_eq!(text.contains("# line 1: MQTT_server"), !site.contains("\"tcp://h\""), "{text}");
        }
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_place() {
        assert_eq!(Site::parse("a = 1\nb =\n").unwrap_err()[0].line, 2);
        assert!(Site::parse("[mtx]\nports = 3\n").unwrap_err()[0].message.contains("[mtx] ports"));
    }
}
