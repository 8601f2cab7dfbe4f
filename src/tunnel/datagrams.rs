//! The port's end of datagrams: a Modbus master's requests go to the gateway that has the unit, other gateways' requests to
//! the units here.
//!
//! With routes a master is on the line: each of its frames whose CRC is right goes to the address of its unit as one datagram, and one
//! answer of that unit from that address comes back. Without, each datagram of an address that may is written to the line, one
//! at a time, and what comes back goes to where it came from.

use std::collections::{BTreeSet, VecDeque};
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::address::{Network, Route};
use super::carry::Ended;
use super::duplex::{Moved, move_bytes};
use super::gather::{Echoes, Gatherer};
use super::session::Desk;
use super::settings::TunnelSettings;
use super::{Health, PAUSE, REQUESTS_WAITING};
use crate::meter::bus;
use crate::os::alarm::Alarm;
use crate::os::line::Line;
use crate::wire::modbus::rtu;

/// No datagram is longer.
const LONGEST: usize = 65_535;
/// So many addresses are told apart in the counters.
const MOST_KNOWN: usize = 256;

/// What came from the network.
struct Datagram {
    bytes: Vec<u8>,
    from: SocketAddr,
    at: Instant,
}

/// A port and a socket.
pub(super) struct Datagrams {
    settings: Arc<TunnelSettings>,
    port: bus::Handle,
    shared: bool,
    desk: Arc<Mutex<Desk>>,
    health: Health,
}

impl Datagrams {
    pub(super) fn new(
        settings: &Arc<TunnelSettings>,
        (port, shared): (bus::Handle, bool),
        desk: Arc<Mutex<Desk>>,
        health: Health,
    ) -> Self {
        Self { settings: settings.clone(), port, shared, desk, health }
    }

    /// Carries until weir ends.
    pub(super) async fn run(self) -> Result<(), String> {
        let Some(local) = &self.settings.local else { return Ok(()) };
        let failed = |error| {
            format!(
                "the tunnel of port \"{}\" cannot have {}: {error}; choose another address or port",
                self.port.port(),
                **local
            )
        };
        let socket = Arc::new(UdpSocket::bind(local.0).await.map_err(failed)?);
        let address = socket.local_addr().map_or_else(|_| local.to_string(), |at| at.to_string());
        tracing::info!(port = self.port.port(), address, "the tunnel hears datagrams");
        let (give, take) = mpsc::channel(REQUESTS_WAITING);
        let table = Arc::new(Mutex::new(Table::new(&self.settings, (socket.clone(), take), self.health.clone())));
        tokio::select! {
            () = self.hear(&socket, &give) => {}
            () = self.carry(table) => {}
        }
        Ok(())
    }

    /// Takes datagrams off the socket at once, whoever has the line, so that each is as old as it is.
    async fn hear(&self, socket: &UdpSocket, give: &mpsc::Sender<Datagram>) {
        let mut buffer = vec![0; LONGEST];
        let (mut known, mut last_refused, mut quiet_until) = (BTreeSet::new(), None, Instant::now());
        loop {
            let (count, from) = match socket.recv_from(&mut buffer).await {
                Ok(came) => came,
                // What an earlier datagram met on its way (nobody listens there) is told here too.
                Err(error) => {
                    tracing::debug!(port = self.port.port(), %error, "a datagram did not arrive");
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let ip = from.ip().to_canonical();
            if !may_come(&self.settings.routes, &self.settings.allow, ip) {
                self.health.change(|status| status.refused += 1);
                if last_refused.replace(ip) != Some(ip) && quiet_until <= Instant::now() {
                    quiet_until = Instant::now() + super::QUIET;
                    tracing::info!(port = self.port.port(), from = %ip, "datagrams of an address that is not configured are refused");
                }
                continue;
            }
            if known.len() < MOST_KNOWN && known.insert(ip) {
                self.health.change(|status| status.peers += 1);
            }
            let bytes = buffer.get(..count).unwrap_or_default().to_vec();
            if give.try_send(Datagram { bytes, from, at: Instant::now() }).is_err() {
                self.health.dropped_request();
            }
        }
    }

    async fn carry(&self, table: Arc<Mutex<Table>>) {
        let mut failed = false;
        loop {
            if self.shared && !table.lock().await.is_wanted(&mut *self.desk.lock().await).await {
                return;
            }
            let work = work(table.clone(), self.desk.clone());
            let lent = match self.shared {
                true => self.port.lend(bus::LONGEST_LEASE, work).await,
                false => self.port.keep(work).await,
            };
            self.health.change(|status| status.holds_line = false);
            match lent {
                Ok(Ended::Closed) => return,
                Ok(Ended::Idle) | Err(bus::LeaseError::Expired(_)) => failed = false,
                Ok(Ended::LineGone(reason)) => {
                    tracing::debug!(port = self.port.port(), reason, "the tunnel's line is gone");
                    failed = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::debug!(port = self.port.port(), %error, "the tunnel has no line");
                    }
                    table.lock().await.drop_waiting();
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// What is done with the line.
fn work(
    table: Arc<Mutex<Table>>,
    desk: Arc<Mutex<Desk>>,
) -> impl for<'a> FnOnce(&'a mut Line) -> bus::Borrowed<'a, Ended> + Send {
    move |line| Box::pin(async move { table.lock().await.with_line(&mut *desk.lock().await, line).await })
}

/// Whether datagrams of an address are heard.
fn may_come(routes: &[Route], allow: &[Network], ip: IpAddr) -> bool {
    routes.iter().any(|route| route.ip == ip) || allow.iter().any(|network| network.contains(ip))
}

/// Where frames for a unit go; those for all units go once to each gateway, however many units it has.
fn places(routes: &[Route], unit: u8) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for route in routes.iter().filter(|route| route.unit == unit || unit == 0) {
        if !ips.contains(&route.ip) {
            ips.push(route.ip);
        }
    }
    ips
}

/// Who is waited for.
enum Asked {
    /// The one whose request is on the line.
    Peer(SocketAddr),
    /// The unit that the master on the line asked, and where it is.
    Unit(IpAddr, u8),
}

/// What is under way between the line and the socket.
struct Table {
    socket: Arc<UdpSocket>,
    datagrams: mpsc::Receiver<Datagram>,
    routes: Vec<Route>,
    remote_port: u16,
    gather: Duration,
    max_age: Duration,
    /// How long an answer is waited for, and how long the line is kept from meters on it.
    hold: Duration,
    remove_echo: bool,
    shared_with_meters: bool,
    waiting: VecDeque<Datagram>,
    to_line: Vec<u8>,
    asked: Option<(Asked, Instant)>,
    gatherer: Gatherer,
    echoes: Echoes,
    health: Health,
}

impl Table {
    fn new(
        settings: &TunnelSettings,
        (socket, datagrams): (Arc<UdpSocket>, mpsc::Receiver<Datagram>),
        health: Health,
    ) -> Self {
        let port = settings.remote_port.as_ref().map_or(0, |port| port.value());
        let largest = usize::try_from(settings.max_message.bytes()).unwrap_or(1 << 16).min(LONGEST - 100);
        Self {
            socket,
            datagrams,
            routes: settings.routes.to_vec(),
            remote_port: u16::try_from(port).unwrap_or(0),
            gather: *settings.gather,
            max_age: *settings.max_age,
            hold: *settings.hold,
            remove_echo: settings.remove_echo,
            shared_with_meters: false,
            waiting: VecDeque::new(),
            to_line: Vec::new(),
            asked: None,
            gatherer: Gatherer::new(largest),
            echoes: Echoes::default(),
            health,
        }
    }

    /// Without the line, waits for a datagram; false when none will come.
    async fn is_wanted(&mut self, desk: &mut Desk) -> bool {
        self.shared_with_meters = true;
        while self.waiting.is_empty() {
            tokio::select! {
                datagram = self.datagrams.recv() => match datagram {
                    Some(datagram) => self.waiting.push_back(datagram),
                    None => return false,
                },
                order = desk.orders.recv() => match order {
                    Some(order) => desk.obey(order, None),
                    None => return false,
                },
            }
        }
        true
    }

    fn drop_waiting(&mut self) {
        while self.waiting.pop_front().is_some() || self.datagrams.try_recv().is_ok() {
            self.health.dropped_request();
        }
    }

    async fn with_line(&mut self, desk: &mut Desk, line: &mut Line) -> Ended {
        self.health.change(|status| (status.holds_line, status.sessions) = (true, status.sessions + 1));
        let ended = match desk.prepare(line).await {
            Ok(()) => self.relay(desk, line).await,
            Err(error) => Ended::LineGone(error.to_string()),
        };
        self.health.change(|status| status.holds_line = false);
        self.to_line.clear();
        ended
    }

    async fn relay(&mut self, desk: &mut Desk, line: &mut Line) -> Ended {
        let mut buffer = vec![0; 4096];
        let mut alarm = Alarm::new();
        let mut busy = Instant::now();
        loop {
            if !desk.is_asked() {
                self.next_request();
            }
            let gap = self.gather.max(line.speed().time_of(7) / 2);
            let due = self.gatherer.due(gap);
            let patience = self.asked.as_ref().map(|(_, at)| *at + self.hold);
            let idle = (self.shared_with_meters && due.is_none() && self.to_line.is_empty() && self.asked.is_none())
                .then(|| busy + self.hold);
            let quiet = due.is_none() && self.to_line.is_empty() && self.asked.is_none();
            let yields = desk.yields_to_command(quiet, busy + gap);
            let room = self.gatherer.room().min(buffer.len());
            tokio::select! {
                biased;
                () = ready(()), if due.is_some_and(|due| due <= Instant::now()) => {
                    let frame = self.gatherer.take();
                    self.deliver(frame).await;
                }
                () = ready(()), if yields.is_some_and(|at| at <= Instant::now()) => {
                    desk.give_way();
                    return Ended::Idle;
                }
                order = desk.orders.recv() => match order {
                    Some(order) => desk.obey(order, Some(&mut *line)),
                    None => return Ended::Closed,
                },
                datagram = self.datagrams.recv(), if self.waiting.len() < REQUESTS_WAITING => match datagram {
                    Some(datagram) => {
                        busy = Instant::now();
                        self.take(datagram);
                    }
                    None => return Ended::Closed,
                },
                moved = move_bytes(line, &self.to_line, buffer.get_mut(..room).unwrap_or_default()) => {
                    busy = Instant::now();
                    match moved {
                        Err(error) => return Ended::LineGone(error.to_string()),
                        Ok(Moved::Read(0)) => return Ended::LineGone("the other side closed it".to_owned()),
                        Ok(Moved::Read(count)) => self.gather(buffer.get(..count).unwrap_or_default(), busy),
                        Ok(Moved::Wrote(count)) => self.wrote(count),
                    }
                }
                () = alarm.until(due.unwrap_or(busy)), if due.is_some() => {}
                () = sleep_until(patience.unwrap_or(busy)), if patience.is_some() => self.asked = None,
                () = sleep_until(yields.unwrap_or(busy)), if yields.is_some() => {}
                () = sleep_until(idle.unwrap_or(busy)), if idle.is_some() => return Ended::Idle,
            }
        }
    }

    fn gather(&mut self, came: &[u8], now: Instant) {
        let echoed = if self.remove_echo { self.echoes.strip(came) } else { 0 };
        let came = came.get(echoed..).unwrap_or_default();
        if !came.is_empty() {
            self.gatherer.push(came, now);
        }
    }

    fn wrote(&mut self, count: usize) {
        if self.remove_echo {
            self.echoes.sent(self.to_line.get(..count).unwrap_or_default());
        }
        self.to_line.drain(..count);
        self.health.change(|status| status.to_port += count as u64);
    }

    /// With units on the line: the next request, when the line waits for none. A repeat of the one it waits for is one.
    fn next_request(&mut self) {
        while self.to_line.is_empty() {
            let free = match (&self.asked, self.waiting.front()) {
                (_, None) => return,
                (None, Some(_)) => true,
                (Some((Asked::Peer(peer), _)), Some(next)) => *peer == next.from,
                (Some((Asked::Unit(..), _)), Some(_)) => false,
            };
            let Some(next) = (if free { self.waiting.pop_front() } else { None }) else { return };
            if next.at.elapsed() > self.max_age {
                self.health.dropped_request();
                continue;
            }
            // To all units: nobody answers.
            let to_all = rtu::decode(&next.bytes).is_ok_and(|(unit, _)| unit == 0);
            self.asked = (!to_all).then(|| (Asked::Peer(next.from), Instant::now()));
            self.health.change(|status| status.requests += 1);
            self.to_line.extend(next.bytes);
        }
    }

    /// Takes a datagram: a request for the units on the line, or the answer that the master on it waits for.
    fn take(&mut self, datagram: Datagram) {
        if self.routes.is_empty() {
            self.waiting.push_back(datagram);
            return;
        }
        let unit = rtu::decode(&datagram.bytes).ok().map(|(unit, _)| unit);
        let from = datagram.from.ip().to_canonical();
        match &self.asked {
            // The master does not wait any longer than that; a later answer would be taken for another's.
            Some((Asked::Unit(ip, asked), at))
                if *ip == from && unit == Some(*asked) && at.elapsed() <= self.max_age =>
            {
                self.health.change(|status| status.requests += 1);
                self.to_line.extend(datagram.bytes);
                self.asked = None;
            }
            _ => {
                self.health.dropped_request();
                tracing::debug!(%from, bytes = datagram.bytes.len(), "a datagram that nobody waits for is dropped");
            }
        }
    }

    /// Sends what came from the line to where it belongs.
    async fn deliver(&mut self, frame: Vec<u8>) {
        let mut to = Vec::new();
        if self.routes.is_empty() {
            if let Some((Asked::Peer(peer), _)) = self.asked.take() {
                to.push(peer);
            }
        } else if let Ok((unit, _)) = rtu::decode(&frame) {
            let ips = places(&self.routes, unit);
            self.asked = ips.first().filter(|_| unit > 0).map(|ip| (Asked::Unit(*ip, unit), Instant::now()));
            to.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, self.remote_port)));
        }
        let mut sent = false;
        for peer in to {
            match self.socket.send_to(&frame, peer).await {
                Ok(_) => sent = true,
                Err(error) => tracing::debug!(%peer, %error, "a datagram could not be sent"),
            }
        }
        let bytes = frame.len() as u64;
        self.health.change(|status| {
            if sent {
                (status.answers, status.from_port) = (status.answers + 1, status.from_port + bytes);
            } else {
                status.dropped_answers += 1;
            }
        });
        if !sent {
            tracing::debug!(bytes, "what came from the line is damaged or for nobody, and is dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_for_all_units_goes_once_to_each_gateway() {
        let routes = ["10.0.0.2@1", "10.0.0.3@2", "10.0.0.2@3"].map(|route| Route::parse(route).unwrap());
        let told = |unit| places(&routes, unit).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(0), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(told(3), ["10.0.0.2"]);
        assert!(told(4).is_empty());
    }
}
