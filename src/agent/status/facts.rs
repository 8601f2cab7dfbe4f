//! The figures of all rooms at one moment, and what each field says of them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use crate::agent::change::State;
use crate::agent::io;
use crate::agent::orders::Lock;
use crate::agent::wiring::Evidence;
use crate::config::Settings;
use crate::meter::MeterHealth;
use crate::model::{ClockState, Stamp};
use crate::modem;
use crate::os::machine;
use crate::radio::SourceState;
use crate::setting::Identity;
use crate::store::{Status, Store};
use crate::uplink::{Account, Field, Health, Placeholder, PortField, Statement};

/// So many failures in a row make a meter one that fails.
pub(super) const FAILING: u64 = 2;

/// Writes the status message; clones are the same.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Teller {
    store: Store,
    pub(super) evidence: Evidence,
    identity: Identity,
    board: Arc<str>,
    lock: Lock,
    place: PathBuf,
    /// The broker's address, where the settings have it as numbers.
    broker: Option<IpAddr>,
    ports: Arc<[String]>,
    meters: Arc<[(String, String)]>,
    statement: Arc<Statement>,
    pub(super) extended: bool,
}

/// What is true at one moment.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) status: Status,
    pub(super) now: Option<Stamp>,
    pub(super) clock: &'static str,
    pub(super) gateway: String,
    pub(super) imei: Option<String>,
    pub(super) board: String,
    pub(super) ip: Option<IpAddr>,
    pub(super) modem: Option<modem::Status>,
    pub(super) running: u64,
    pub(super) restart: &'static str,
    pub(super) temperature: Option<i32>,
    pub(super) disk: Option<(u64, u64)>,
    pub(super) brokers: Vec<Health>,
    pub(super) account: Account,
    pub(super) locked: bool,
    pub(super) standing: Option<State>,
}

impl Teller {
    /// The store that is told of.
    pub(in crate::agent) const fn store(&self) -> &Store {
        &self.store
    }

    pub(in crate::agent) fn new(
        store: &Store,
        evidence: &Evidence,
        settings: &Settings,
        (identity, lock): (&Identity, &Lock),
    ) -> Self {
        let ports: Vec<String> = settings.port.iter().map(|port| port.name.to_string()).collect();
        let names: Vec<&str> = ports.iter().map(String::as_str).collect();
        let made = settings.status.as_ref().map(|status| Statement::of(status, &names));
        // The check has seen that it can be made.
        let statement = made.and_then(Result::ok).map_or(Statement::Document, |(statement, _)| statement);
        Self {
            store: store.clone(),
            evidence: evidence.clone(),
            identity: identity.clone(),
            board: settings.gateway.board.as_str().into(),
            lock: lock.clone(),
            place: settings.store.path.clone(),
            broker: settings.broker.iter().find_map(|broker| broker.url.host.parse().ok()),
            meters: settings.meter.iter().map(|m| (m.name.to_string(), m.port.to_string())).collect(),
            ports: ports.into(),
            statement: Arc::new(statement),
            extended: settings.status.as_ref().is_some_and(|status| status.extended),
        }
    }

    /// The text, as it is published; made on a thread that may wait for sensors and converters.
    pub(in crate::agent) async fn text(&self) -> String {
        let teller = self.clone();
        tokio::task::spawn_blocking(move || teller.written()).await.unwrap_or_else(|_| self.written())
    }

    fn written(&self) -> String {
        let facts = self.facts();
        match &*self.statement {
            Statement::Document => super::document::document(&facts, self).to_string(),
            Statement::Text(template) => template.fill(|placeholder| match placeholder {
                Placeholder::Gateway(field) => self.value(*field, &facts),
                Placeholder::Port(port, field) => self.port_value(port, *field),
            }),
        }
    }

    /// The gateway's own address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        machine::own_address(self.broker)
    }

    pub(super) fn is_locked(&self) -> bool {
        self.lock.is_locked()
    }

    pub(super) fn disk_refuses(&self) -> bool {
        self.store.status().borrow().disk_error.is_some() || machine::refuses(&self.place).is_some()
    }

    fn facts(&self) -> Facts {
        let evidence = &self.evidence;
        let modem = evidence.modem.as_ref().map(|modem| modem.status().borrow().clone());
        let now = evidence.clock.stamp();
        let mut status = self.store.status().borrow().clone();
        // With a broker the store writes only now and then: it may not know yet.
        status.disk_error = status.disk_error.or_else(|| machine::refuses(&self.place).map(str::to_owned));
        Facts {
            status,
            clock: evidence.clock.health().state().word(),
            now: Some(now),
            gateway: self.identity.id.clone(),
            imei: self.identity.imei.clone().or_else(|| modem.as_ref()?.imei.clone()),
            board: self.board.to_string(),
            ip: self.address(),
            modem,
            running: evidence.runs.started().elapsed().as_secs(),
            restart: evidence.runs.reason().word(),
            temperature: machine::temperature(),
            disk: machine::disk(&self.place),
            brokers: evidence.brokers(),
            account: evidence.traffic.account(),
            locked: self.lock.is_locked(),
            standing: evidence.changer.as_ref().map(crate::agent::change::Changer::state),
        }
    }

    fn value(&self, field: Field, facts: &Facts) -> Json {
        let open = |state: SourceState| state == SourceState::Open;
        match field {
            Field::Meters => json!(self.evidence.meters.meters().len()),
            Field::MetersFailing => json!(self.evidence.meters.failing(FAILING).len()),
            Field::Receivers => json!(self.evidence.receivers.len()),
            Field::ReceiversOpen => {
                json!(self.evidence.receivers.iter().filter(|(_, health)| open(health.status().source)).count())
            }
            Field::Inputs => json!(io::listed(&self.evidence.dogs, io::Kind::Input)),
            Field::Outputs => json!(io::listed(&self.evidence.dogs, io::Kind::Output)),
            Field::Analog => json!(io::listed(&self.evidence.dogs, io::Kind::Analog)),
            Field::Ports => {
                let port = |port: &String| {
                    let figure = |field: &PortField| (field.name().to_owned(), self.port_value(port, *field));
                    (port.clone(), Json::Object(PortField::ALL.iter().map(figure).collect()))
                };
                Json::Object(self.ports.iter().map(port).collect::<Map<_, _>>())
            }
            field => facts.value(field),
        }
    }

    /// A figure of one port: of its meters and its tunnel.
    fn port_value(&self, port: &str, field: PortField) -> Json {
        let tunnel = self.evidence.tunnels.iter().find(|tunnel| tunnel.port == port);
        let tunnel = tunnel.map(|tunnel| tunnel.health.status()).unwrap_or_default();
        let meters = self.evidence.meters.meters();
        let sum = |figure: fn(&MeterHealth) -> u64| -> u64 {
            let on_port = self.meters.iter().filter(|(_, on)| on == port);
            on_port.filter_map(|(name, _)| meters.get(name)).map(figure).sum()
        };
        match field {
            PortField::ToPort => json!(tunnel.to_port),
            PortField::FromPort => json!(tunnel.from_port),
            PortField::Requests => json!(sum(|meter| meter.requests) + tunnel.requests),
            PortField::Answers => json!(sum(|meter| meter.answers) + tunnel.answers),
            PortField::Failures => {
                let dropped = tunnel.dropped_requests + tunnel.dropped_answers;
                json!(sum(|meter| meter.unanswered + meter.damaged_answers) + dropped)
            }
            PortField::Holder => {
                let hold = self.evidence.buses.iter().find(|bus| bus.port() == port).and_then(|bus| bus.hold());
                let purpose = || hold.map(|hold| hold.owner.purpose.word().to_owned());
                json!(tunnel.peer.or_else(|| tunnel.holds_line.then(|| "tunnel".to_owned())).or_else(purpose))
            }
        }
    }
}

impl Facts {
    /// What a field says; null when that is not known.
    pub(super) fn value(&self, field: Field) -> Json {
        let modem = self.modem.as_ref();
        let of_modem = |value: fn(&modem::Status) -> Json| modem.map_or(Json::Null, value);
        let brokers = || Health::overall(&self.brokers);
        match field {
            Field::Id => json!(self.gateway),
            Field::Imei => json!(self.imei),
            Field::Ip => json!(self.ip.map(|ip| ip.to_string())),
            Field::Modem => of_modem(|modem| json!(modem.state.word())),
            Field::Csq => of_modem(|modem| json!(modem.csq)),
            Field::Rssi => of_modem(|modem| json!(modem.rssi)),
            Field::Rsrp => of_modem(|modem| json!(modem.rsrp)),
            Field::Rsrq => of_modem(|modem| json!(modem.rsrq)),
            Field::Technology => of_modem(|modem| json!(modem.technology)),
            Field::Operator => of_modem(|modem| json!(modem.operator)),
            Field::Registration => of_modem(|modem| json!(modem.registration)),
            Field::Area => of_modem(|modem| json!(modem.area)),
            Field::Cell => of_modem(|modem| json!(modem.cell)),
            Field::Iccid => of_modem(|modem| json!(modem.iccid)),
            Field::Version => json!(env!("CARGO_PKG_VERSION")),
            Field::Board => json!(self.board),
            Field::Uptime => json!(self.now.map(|now| now.uptime / 1000)),
            Field::Running => json!(self.running),
            Field::Restart => json!(self.restart),
            Field::Time => json!(self.now.map(|now| now.wall.to_string())),
            Field::Clock => json!(self.clock),
            Field::Temperature => json!(self.temperature),
            Field::DiskFree => json!(self.disk.map(|(free, _)| free)),
            Field::DiskTotal => json!(self.disk.map(|(_, total)| total)),
            Field::Broker => {
                let all = brokers();
                json!(all.connected_since.map(|_| all.broker))
            }
            Field::ConnectedSince => json!(brokers().connected_since.map(|time| time.to_string())),
            Field::Reconnects => json!(brokers().reconnects()),
            Field::LastError => json!(brokers().last_error),
            Field::SentToday => json!(self.account.today.sent),
            Field::ReceivedToday => json!(self.account.today.received),
            Field::DataUsed => json!(self.account.this_month.sent + self.account.this_month.received),
            Field::Locked => json!(self.locked),
            Field::Configuration => json!(self.standing.as_ref().map(|standing| standing.number)),
            Field::OnTrial => json!(self.standing.as_ref().is_some_and(|standing| standing.trial.is_some())),
            field => self.of_store(field),
        }
    }

    fn of_store(&self, field: Field) -> Json {
        let status = &self.status;
        match field {
            Field::DiskError => json!(status.disk_error),
            Field::Queue => json!(status.cached),
            Field::QueuePriority => json!(status.cached_priority),
            Field::Received => json!(status.received),
            Field::Acknowledged => json!(status.acknowledged),
            Field::Evicted => json!(status.evicted),
            Field::Damaged => json!(status.damaged),
            Field::Skipped => json!(status.skipped),
            Field::Given => json!(status.given()),
            _ => Json::Null,
        }
    }

    /// Whether the wall clock is right, in the document's older words.
    pub(super) fn is_synced(&self) -> bool {
        self.now.is_some_and(|now| now.clock == ClockState::Synced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_value_or_a_known_reason_for_none() {
        let modem = modem::Status {
            csq: Some(1),
            rssi: Some(-80),
            rsrp: Some(-90),
            rsrq: Some(-9),
            technology: Some("4g"),
            operator: Some("O".into()),
            registration: Some("home"),
            area: Some("1".into()),
            cell: Some("2".into()),
            iccid: Some("3".into()),
            ..modem::Status::default()
        };
        let status = Status { disk_error: Some("full".into()), ..Status::default() };
        let facts = Facts {
            imei: Some("i".into()),
            ip: Some(IpAddr::from([127, 0, 0, 1])),
            modem: Some(modem),
            now: Some(Stamp::synced(crate::model::Timestamp::default())),
            temperature: Some(40),
            disk: Some((1, 2)),
            brokers: vec![Health {
                connected_since: Some(crate::model::Timestamp::default()),
                last_error: Some("e".into()),
                ..Health::default()
            }],
            standing: Some(State { number: 1, trial: None }),
            status,
            ..Facts::default()
        };
        // These are the teller's.
        let elsewhere = [
            Field::Meters,
            Field::MetersFailing,
            Field::Receivers,
            Field::ReceiversOpen,
            Field::Inputs,
            Field::Outputs,
            Field::Analog,
            Field::Ports,
        ];
        for field in Field::ALL {
            assert_eq!(facts.value(*field).is_null(), elsewhere.contains(field), "{}", field.name());
        }
    }
}
