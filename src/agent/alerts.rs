//! SMS that weir sends by itself: what happened, told once, not too often, to whom the rule says.
//!
//! Invariants: a rule sends at most one message in its `pause`, also over restarts; what is over before it could be told is not
//! told; a network that refuses is asked again every minute, for a day at most. [`Watch`] decides and is pure.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::change::Changer;
use super::status::Reason;
use super::wiring::Evidence;
use super::{Agent, SESSIONS};
use crate::config::Settings;
use crate::control::Alert;
use crate::modem::{Handle, ModemError, Sent, State};
use crate::os::file::{read_small, write_atomic};
use crate::os::machine;
use crate::setting::Identity;
use crate::store::Store;
use crate::uplink::{Connect, Health};

/// So often it is looked whether something happened.
const LOOK: Duration = Duration::from_secs(5);
/// A message that could not be sent is tried again so often, and so long.
const AGAIN: Duration = Duration::from_mins(1);
const OF_USE: Duration = Duration::from_hours(24);
/// So many meters are named in one message.
const NAMED: usize = 3;
/// That no broker is reached is told without a reason only when none is known after so long.
const REASON_WITHIN: Duration = Duration::from_mins(2);
/// A disk with less than one part in so many free is nearly full.
const NEARLY_FULL: u64 = 50;

/// What the rooms tell, as far as alerts look at it.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Why weir started; `None` when that is no news.
    start: Option<&'static str>,
    /// There is a session, or none is wanted just now.
    connected: bool,
    /// Why there is none.
    last_error: Option<String>,
    disk: Option<String>,
    failing: Vec<String>,
    configuration: Option<String>,
}

/// What a look finds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Nothing,
    /// It is to be told, with this detail.
    News(String),
    /// What was to be told is over.
    Over,
}

/// One rule's memory of what it saw.
#[derive(Debug, Default)]
struct Watch {
    since: Option<Instant>,
    told: bool,
    meters: BTreeMap<String, (Instant, bool)>,
    configuration: Option<String>,
}

impl Watch {
    fn look(&mut self, on: &str, after: Duration, seen: &Seen, now: Instant) -> Found {
        match on {
            "start" if !std::mem::replace(&mut self.told, true) => {
                seen.start.map_or(Found::Nothing, |why| Found::News(format!("({why})")))
            }
            "offline" => {
                let unknown = || "no broker was reached yet".to_owned();
                let after = if seen.last_error.is_some() { after } else { after.max(REASON_WITHIN) };
                let why = (!seen.connected).then(|| seen.last_error.clone().unwrap_or_else(unknown));
                self.lasting(why, after, now)
            }
            "online" => self.online(seen.connected, after, now),
            "disk" => self.lasting(seen.disk.clone(), after, now),
            "meter-silent" => self.silent(&seen.failing, after, now),
            "config" => {
                let before = std::mem::replace(&mut self.configuration, seen.configuration.clone());
                match (&before, &self.configuration) {
                    (Some(before), Some(is)) if before != is => Found::News(is.clone()),
                    _ => Found::Nothing,
                }
            }
            _ => Found::Nothing,
        }
    }

    /// Something that must last before it is told.
    fn lasting(&mut self, detail: Option<String>, after: Duration, now: Instant) -> Found {
        let Some(detail) = detail else {
            self.since = None;
            return if std::mem::take(&mut self.told) { Found::Over } else { Found::Nothing };
        };
        let since = *self.since.get_or_insert(now);
        if self.told || now.duration_since(since) < after {
            return Found::Nothing;
        }
        self.told = true;
        Found::News(detail)
    }

    fn online(&mut self, connected: bool, after: Duration, now: Instant) -> Found {
        if !connected {
            self.since.get_or_insert(now);
            return Found::Over;
        }
        match self.since.take().map(|since| now.duration_since(since)) {
            Some(away) if away >= after => Found::News(format!("after {} min", away.as_secs() / 60)),
            _ => Found::Nothing,
        }
    }

    fn silent(&mut self, failing: &[String], after: Duration, now: Instant) -> Found {
        self.meters.retain(|meter, _| failing.contains(meter));
        for meter in failing {
            self.meters.entry(meter.clone()).or_insert((now, false));
        }
        let news = |(_, (since, told)): &(&String, &mut (Instant, bool))| !*told && now.duration_since(*since) >= after;
        let mut found: Vec<_> = self.meters.iter_mut().filter(news).collect();
        if found.is_empty() {
            return if self.meters.is_empty() { Found::Over } else { Found::Nothing };
        }
        found.iter_mut().for_each(|(_, (_, told))| *told = true);
        let names: Vec<_> = found.iter().take(NAMED).map(|(name, _)| name.as_str()).collect();
        let more = found.len().saturating_sub(NAMED);
        Found::News(if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) })
    }
}

/// What must outlive a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Memory {
    /// When each rule sent last, in milliseconds since 1970.
    sent: BTreeMap<String, i64>,
    configuration: Option<String>,
}

/// A message on its way.
#[derive(Debug)]
struct Pending {
    text: String,
    to: Vec<String>,
    /// Somebody has it, or may have it: the others are not made to wait for the pause.
    begun: bool,
    next: Instant,
    until: Instant,
}

#[derive(Debug)]
struct Rule {
    key: String,
    alert: Alert,
    watch: Watch,
    pending: Option<Pending>,
}

impl Memory {
    /// Whether a rule sent so lately that it must not now.
    fn rests(&self, rule: &Rule, wall: i64) -> bool {
        let pause = i64::try_from(rule.alert.pause.as_millis()).unwrap_or(i64::MAX);
        // A clock that was set back must not silence a rule.
        self.sent.get(&rule.key).is_some_and(|last| (0..pause).contains(&wall.saturating_sub(*last)))
    }
}

/// All rules, and what they look at.
struct Alerts {
    rules: Vec<Rule>,
    modem: Handle,
    evidence: Evidence,
    /// Sessions are wanted only while frames wait.
    on_demand: bool,
    store: Store,
    place: PathBuf,
    identity: Identity,
    memory: Memory,
    file: PathBuf,
}

/// Starts the room when there are rules and a modem; everything that is looked at runs already.
pub(super) fn start(agent: &mut Agent, settings: &Settings, identity: &Identity) {
    let rules = settings.control.sms.alert.clone();
    let Some(modem) = agent.evidence.modem.clone().filter(|_| !rules.is_empty()) else { return };
    let (evidence, store, identity) = (agent.evidence.clone(), agent.store.clone(), identity.clone());
    let (place, file) = (settings.store.path.clone(), settings.store.path.join(SESSIONS).join("alerts"));
    let on_demand = settings.uplink.connect == Connect::OnDemand;
    agent.inputs.start("alerts", move || {
        let memory = read_small(&file, 64 << 10).ok().and_then(|text| serde_json::from_slice::<Memory>(&text).ok());
        let memory = memory.unwrap_or_default();
        let rule = |(number, alert): (usize, &Alert)| {
            let configuration = memory.configuration.clone();
            let watch = Watch { configuration, ..Watch::default() };
            Rule { key: format!("{number} {}", *alert.on), alert: alert.clone(), watch, pending: None }
        };
        let alerts = Alerts {
            rules: rules.iter().enumerate().map(rule).collect(),
            modem: modem.clone(),
            evidence: evidence.clone(),
            on_demand,
            store: store.clone(),
            place: place.clone(),
            identity: identity.clone(),
            memory,
            file: file.clone(),
        };
        alerts.run()
    });
}

impl Alerts {
    async fn run(mut self) -> Result<(), Infallible> {
        loop {
            let (seen, now) = (self.seen(), Instant::now());
            let (wall, imei) = (self.evidence.clock.now().as_millis(), self.imei());
            for rule in &mut self.rules {
                match rule.watch.look(&rule.alert.on, rule.alert.after, &seen, now) {
                    // Starts in a row are one message: the next one comes when its pause is over.
                    Found::News(_) if *rule.alert.on == "start" && self.memory.rests(rule, wall) => {}
                    Found::News(detail) => {
                        let text = filled(&rule.alert, (&self.identity.id, &imei), &detail);
                        let to = rule.alert.to.iter().cloned().collect();
                        rule.pending = Some(Pending { text, to, begun: false, next: now, until: now + OF_USE });
                    }
                    Found::Over => rule.pending = None,
                    Found::Nothing => {}
                }
            }
            let remembered = self.memory.configuration.clone();
            if seen.configuration.is_some() && seen.configuration != remembered {
                self.memory.configuration.clone_from(&seen.configuration);
                self.keep().await;
            }
            for at in 0..self.rules.len() {
                self.send(at).await;
            }
            sleep(LOOK).await;
        }
    }

    fn imei(&self) -> String {
        let told = || self.modem.status().borrow().imei.clone();
        self.identity.imei.clone().or_else(told).unwrap_or_default()
    }

    fn seen(&self) -> Seen {
        let evidence = &self.evidence;
        let reason = evidence.runs.reason();
        let refuses = || machine::refuses(&self.place).map(str::to_owned);
        let full = || {
            let (free, total) = machine::disk(&self.place)?;
            (free < total / NEARLY_FULL).then(|| format!("the disk is nearly full: {} MB left", free / 1_000_000))
        };
        let (connected, last_error) = session(&evidence.brokers(), self.on_demand);
        Seen {
            start: (reason != Reason::Configuration).then(|| reason.word()),
            connected,
            last_error,
            disk: self.store.status().borrow().disk_error.clone().or_else(refuses).or_else(full),
            failing: evidence.meters.failing(1),
            configuration: evidence.changer.as_ref().map(standing),
        }
    }

    /// Sends what a rule has to tell, when it may.
    async fn send(&mut self, at: usize) {
        let now = Instant::now();
        let wall = self.evidence.clock.now().as_millis();
        let Some(rule) = self.rules.get_mut(at) else { return };
        let begun = rule.pending.as_ref().is_some_and(|pending| pending.begun);
        let waits = (!begun && self.memory.rests(rule, wall)) || self.modem.status().borrow().state != State::Ready;
        let Some(pending) = rule.pending.as_mut().filter(|pending| pending.next <= now) else { return };
        if now >= pending.until {
            warn!(event = %*rule.alert.on, "an alert by SMS could not be sent for a day and is given up");
            rule.pending = None;
            return;
        }
        if waits {
            return;
        }
        let mut left = Vec::new();
        let mut sent = false;
        for number in std::mem::take(&mut pending.to) {
            match self.modem.send(&number, &pending.text).await {
                Ok(Sent::Accepted { .. }) => sent = true,
                // It, or a part of it, is paid for or may be: it is not sent again.
                Ok(Sent::Refused { parts: 1.., reason }) => {
                    warn!(reason, "an alert by SMS was sent in part");
                    sent = true;
                }
                Err(error @ ModemError::Silent(_)) => {
                    warn!(%error, "nobody knows whether an alert by SMS was sent");
                    sent = true;
                }
                Ok(Sent::Refused { reason, .. }) => {
                    debug!(reason, "an alert by SMS was refused");
                    left.push(number);
                }
                Err(error) => {
                    debug!(%error, "an alert by SMS could not be sent");
                    left.push(number);
                }
            }
        }
        (pending.to, pending.next) = (left, Instant::now() + AGAIN);
        pending.begun |= sent;
        if pending.to.is_empty() {
            info!(event = %*rule.alert.on, "an alert was sent by SMS");
            rule.pending = None;
        }
        if sent {
            self.memory.sent.insert(rule.key.clone(), wall);
            self.keep().await;
        }
    }

    async fn keep(&self) {
        let (file, text) = (self.file.clone(), serde_json::to_vec(&self.memory));
        let write = move || -> std::io::Result<()> {
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            write_atomic(&file, &text?, 0o600)
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            debug!(%error, "what alerts were sent can't be written down");
        }
    }
}

/// Whether brokers are as they should be, and else why not. On demand one that took all in its last session is enough, whatever another
/// fails with, and before the first attempt none is wanted.
fn session(brokers: &[Health], on_demand: bool) -> (bool, Option<String>) {
    let rests = |health: &Health| health.sessions > 0 && health.failures == 0;
    let untried = |health: &Health| health.sessions == 0 && health.failures == 0;
    let wants_none = if on_demand {
        brokers.iter().any(rests) || (!brokers.is_empty() && brokers.iter().all(untried))
    } else {
        rests(&Health::overall(brokers))
    };
    let connected = wants_none || brokers.iter().any(|health| health.connected_since.is_some());
    // What an earlier session failed with is no reason now.
    let failing = brokers.iter().find(|health| health.failures > 0);
    (connected, failing.and_then(|health| health.last_error.clone()))
}

fn standing(changer: &Changer) -> String {
    let state = changer.state();
    let trial = if state.trial.is_some() { "is on trial" } else { "is kept" };
    format!("configuration {} {trial}", state.number)
}

fn filled(alert: &Alert, (id, imei): (&str, &str), detail: &str) -> String {
    let detail: String = detail.chars().take(300).collect();
    let values = [("{id}", id), ("{imei}", imei), ("{what}", alert.on.as_str()), ("{detail}", &detail)];
    let mut text = String::new();
    let mut rest = alert.text.as_str();
    // One pass: what is put in is not looked into.
    while let Some((at, name, value)) =
        values.iter().filter_map(|(name, value)| Some((rest.find(name)?, name, value))).min_by_key(|(at, ..)| *at)
    {
        let (before, after) = rest.split_at(at);
        text.push_str(before);
        text.push_str(value);
        rest = after.strip_prefix(name).unwrap_or_default();
    }
    text.push_str(rest);
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    const AFTER: Duration = Duration::from_mins(15);

    fn minutes(now: Instant, minutes: u64) -> Instant {
        now + Duration::from_mins(minutes)
    }

    fn news(found: &Found) -> &str {
        match found {
            Found::News(detail) => detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_broker_that_is_away_is_told_once_when_it_has_lasted_and_again_when_it_is_back() {
        let now = Instant::now();
        let (mut offline, mut online) = (Watch::default(), Watch::default());
        let away = Seen { last_error: Some("refused".into()), ..Seen::default() };
        let back = Seen { connected: true, ..Seen::default() };
        let mut look = |seen: &Seen, at| {
            (
                offline.look("offline", AFTER, seen, minutes(now, at)),
                online.look("online", AFTER, seen, minutes(now, at)),
            )
        };
        assert_eq!(look(&away, 0).0, Found::Nothing);
        assert_eq!(look(&back, 10), (Found::Nothing, Found::Nothing), "it was short");
        assert_eq!(look(&away, 20).0, Found::Nothing);
        assert_eq!(news(&look(&away, 35).0), "refused");
        assert_eq!(look(&away, 99).0, Found::Nothing, "once");
        let (offline, online) = look(&back, 100);
        assert_eq!((offline, news(&online)), (Found::Over, "after 80 min"));
        assert_eq!(look(&back, 101).1, Found::Nothing);
    }

    #[test]
    fn the_reason_is_waited_for_but_not_for_ever() {
        let now = Instant::now();
        let none = Seen::default();
        let (mut told, mut reason) = (Watch::default(), Watch::default());
        assert_eq!(told.look("offline", Duration::ZERO, &none, now), Found::Nothing);
        assert_eq!(news(&told.look("offline", Duration::ZERO, &none, minutes(now, 2))), "no broker was reached yet");
        assert_eq!(reason.look("offline", Duration::ZERO, &none, now), Found::Nothing);
        let known = Seen { last_error: Some("refused".into()), ..Seen::default() };
        assert_eq!(news(&reason.look("offline", Duration::ZERO, &known, now)), "refused");
    }

    #[test]
    fn on_demand_a_broker_that_took_all_is_enough_and_nothing_tried_is_nothing_missed() {
        let broker = |sessions, failures| Health { sessions, failures, ..Health::default() };
        let error = |health, why: &str| Health { last_error: Some(why.into()), ..health };
        let up = Health { connected_since: Some(Timestamp::from_millis(9)), ..broker(1, 0) };
        let (good, bad) = (error(broker(4, 0), "earlier"), error(broker(2, 7), "refused"));
        let is = |brokers: &[Health]| session(brokers, true);
        assert_eq!(is(std::slice::from_ref(&good)), (true, None), "everything is delivered");
        assert_eq!(is(&[error(broker(0, 3), "gone")]), (false, Some("gone".into())), "never reached");
        assert_eq!(is(std::slice::from_ref(&bad)), (false, Some("refused".into())), "it broke, and does not come back");
        // The preferred one is away, and the second takes all; or each gets all.
        assert!(is(&[bad.clone(), good.clone()]).0 && is(&[good.clone(), bad.clone()]).0);
        assert!(is(&[bad.clone(), up.clone()]).0);
        assert!(!is(&[bad.clone(), broker(0, 0)]).0, "the second was not tried");
        assert_eq!(is(&[error(broker(3, 1), "lost"), bad.clone()]), (false, Some("lost".into())));
        assert!(is(&[broker(0, 0), broker(0, 0)]).0, "nothing waited yet");
        assert!(!is(&[]).0, "there is no uplink yet");
    }

    #[test]
    fn a_session_that_is_always_wanted_is_missed_when_there_is_none() {
        let broker = |sessions, failures| Health { sessions, failures, ..Health::default() };
        let bad = Health { last_error: Some("refused".into()), ..broker(2, 7) };
        let up = Health { connected_since: Some(Timestamp::from_millis(9)), ..broker(1, 0) };
        let is = |brokers: &[Health]| session(brokers, false);
        assert!(!is(&[broker(0, 0)]).0, "none was reached yet");
        assert!(is(&[bad.clone(), up]).0);
        assert!(is(&[broker(1, 0)]).0, "it is made anew");
        assert_eq!(is(std::slice::from_ref(&bad)), (false, Some("refused".into())));
        // Whatever the other was like before.
        let earlier = Health { last_error: Some("earlier".into()), ..broker(4, 0) };
        assert_eq!(is(&[earlier, bad]), (false, Some("refused".into())));
    }

    #[test]
    fn silent_meters_are_told_together_and_once_until_they_answer() {
        let now = Instant::now();
        let mut watch = Watch::default();
        let failing =
            |names: &[&str]| Seen { failing: names.iter().map(ToString::to_string).collect(), ..Seen::default() };
        let mut look = |names: &[&str], at| watch.look("meter-silent", AFTER, &failing(names), minutes(now, at));
        assert_eq!(look(&["a", "b", "c", "d"], 0), Found::Nothing);
        assert_eq!(news(&look(&["a", "b", "c", "d"], 15)), "a, b, c and 1 more");
        assert_eq!(look(&["a", "e"], 20), Found::Nothing);
        assert_eq!(news(&look(&["a", "e"], 35)), "e");
        assert_eq!(look(&[], 36), Found::Over);
        assert_eq!(look(&["a"], 40), Found::Nothing);
    }

    #[test]
    fn starts_and_configurations_are_news_when_they_are() {
        let now = Instant::now();
        let seen = Seen {
            start: Some("power-loss"),
            configuration: Some("configuration 3 is kept".into()),
            ..Seen::default()
        };
        let mut start = Watch::default();
        assert_eq!(news(&start.look("start", AFTER, &seen, now)), "(power-loss)");
        assert_eq!(start.look("start", AFTER, &seen, now), Found::Nothing);
        let mut config = Watch::default();
        assert_eq!(config.look("config", AFTER, &seen, now), Found::Nothing, "the first is no change");
        let later = Seen { configuration: Some("configuration 4 is on trial".into()), ..seen };
        assert_eq!(news(&config.look("config", AFTER, &later, now)), "configuration 4 is on trial");
    }
}
