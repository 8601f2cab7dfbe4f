//! One peer of the network and the port, from its first byte to its last; what outlives a lease is kept here.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::com_port::{self, ComPort, settle};
use super::connect::Stream;
use super::gather::Echoes;
use super::pipe::{MOST, Moved, Pipe};
use super::tagged::{self, Tagged};
use super::terms::{Ended, Terms, Why};
use super::{Health, Order};
use crate::os::line::{Line, Speed};
use crate::wire::rfc2217;

mod orders;

/// A peer that takes none of the bytes that wait for it for so long is given up.
const STUCK: Duration = Duration::from_mins(1);
/// The goodbye of TLS must not hold up the next peer.
const GOODBYE: Duration = Duration::from_secs(1);
/// What a serial driver takes before it has sent it, at most.
const KERNEL_HOLDS: usize = 8192;
/// As good as never.
const LONG: Duration = Duration::from_hours(1);

/// A port's place in the network: the peer that is there now, and what is under way.
pub(super) struct Desk {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) health: Health,
    pub(super) pipe: Pipe,
    pub(super) terms: Terms,
    /// Who the peer is.
    name: String,
    /// The peers up to this one must go.
    evicted: watch::Receiver<u64>,
    number: u64,
    com: Option<ComPort>,
    /// What came from the line and was not sent yet, and when its first and last bytes came.
    data: Vec<u8>,
    fresh: Option<(Instant, Instant)>,
    /// What the peer sent while there was no line, and when.
    unheard: Vec<u8>,
    asked: Instant,
    /// The peer sends nothing any more.
    hung_up: bool,
    /// The speed that an order has set, for all peers; and the one that this peer has set.
    ordered: Option<Speed>,
    chosen: Option<Speed>,
    flushed: bool,
    until: Option<Instant>,
    /// When the line will have sent what was written.
    busy_until: Instant,
    /// When anything moved last.
    last: Instant,
    /// When the peer took something last.
    progress: Instant,
    echoes: Echoes,
    /// Who wants the line for a command, since when.
    wanted: Option<(Vec<super::carry::Asker>, Instant)>,
    /// Where commands may come from the line.
    pub(super) tagged: Option<Tagged>,
}

impl Desk {
    pub(super) fn new(
        terms: Terms,
        orders: mpsc::Receiver<Order>,
        health: Health,
        evicted: watch::Receiver<u64>,
    ) -> Self {
        let now = Instant::now();
        Self {
            orders,
            health,
            pipe: Pipe::new(),
            terms,
            name: String::new(),
            evicted,
            number: 0,
            com: None,
            data: Vec::new(),
            fresh: None,
            unheard: Vec::new(),
            asked: now,
            hung_up: false,
            ordered: None,
            chosen: None,
            flushed: false,
            until: None,
            busy_until: now,
            last: now,
            progress: now,
            echoes: Echoes::default(),
            wanted: None,
            tagged: None,
        }
    }

    /// A peer sits down; it is told `greeting` first, and has to go after `limit`.
    pub(super) fn begin(&mut self, peer: Box<dyn Stream>, name: &str, (greeting, limit): (&[u8], Option<Duration>)) {
        let now = Instant::now();
        self.pipe.reset(Some(peer));
        name.clone_into(&mut self.name);
        self.number += 1;
        self.pipe.to_peer.extend_from_slice(greeting);
        self.com = self.terms.rfc2217.then(ComPort::new);
        if let Some(com) = &mut self.com {
            let opening = com.open();
            self.pipe.to_peer.extend(opening);
        }
        self.unheard.clear();
        (self.hung_up, self.chosen) = (false, None);
        self.until = limit.map(|limit| now + limit);
        (self.last, self.progress) = (now, now);
        self.health.change(|status| (status.peers, status.peer) = (status.peers + 1, Some(name.to_owned())));
    }

    /// The peer goes, and what was under way with it.
    pub(super) async fn end(&mut self) {
        if let Some(peer) = &mut self.pipe.peer {
            let _ = timeout(GOODBYE, peer.shutdown()).await;
        }
        self.pipe.reset(None);
        self.data.clear();
        (self.fresh, self.com, self.flushed) = (None, None, false);
        self.echoes = Echoes::default();
        self.health.change(|status| status.peer = None);
    }

    /// The number of the newest peer.
    pub(super) const fn served(&self) -> u64 {
        self.number
    }

    /// Bytes that came before there was a peer.
    pub(super) const fn waiting(&self) -> usize {
        self.data.len()
    }

    /// They are too old.
    pub(super) fn drop_waiting(&mut self) {
        self.data.clear();
        self.fresh = None;
        self.health.change(|status| status.dropped_answers += 1);
    }

    /// Without the line, waits until the peer wants something of it; else says why it will not.
    pub(super) async fn wait(&mut self) -> Option<Why> {
        loop {
            if self.hung_up {
                return Some(Why::Left);
            }
            let wake = self.wake(None);
            tokio::select! {
                biased;
                () = evicted(&mut self.evicted, self.number) => return Some(Why::TakenOver),
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, None),
                    None => return Some(Why::Closed),
                },
                moved = self.pipe.moved(None, 0, true) => match moved {
                    Moved::FromPeer(Ok(count)) if count > 0 => {
                        (self.asked, self.last) = (Instant::now(), Instant::now());
                        self.unheard.extend_from_slice(self.pipe.read(count));
                        return None;
                    }
                    moved => if let Some(why) = self.of_the_peer(moved) {
                        return Some(why);
                    },
                },
                () = sleep_until(wake) => if let Some(Ended::Over(why)) = self.overdue(None) {
                    return Some(why);
                },
            }
        }
    }

    /// Carries while the line is lent, and leaves it as it was.
    pub(super) async fn carry(&mut self, line: &mut Line) -> Ended {
        self.health.change(|status| (status.holds_line, status.sessions) = (true, status.sessions + 1));
        let own = line.speed();
        let ended = self.relay(line).await;
        if let Some(com) = &self.com {
            com.leave(line);
        }
        if !matches!(ended, Ended::Over(Why::NoLine(_))) {
            settle(line, &mut Vec::new(), self.busy_until).await;
        }
        if line.speed() != own
            && let Err(error) = line.set_speed(own)
        {
            tracing::debug!(%error, "the port's own speed could not be set again");
        }
        self.health.change(|status| status.holds_line = false);
        ended
    }

    async fn relay(&mut self, line: &mut Line) -> Ended {
        if let Err(error) = self.prepare(line).await {
            return Ended::Over(Why::NoLine(error.to_string()));
        }
        self.hear_what_waited(line).await;
        self.forget_who_gave_up();
        let mut busy = Instant::now();
        let mut look = Instant::now();
        loop {
            let held = self.hear_tagged(line.speed());
            self.release(line.speed());
            if self.hung_up && self.pipe.to_line.is_empty() {
                return Ended::Over(Why::Left);
            }
            if let Some(com) = self.com.as_mut().filter(|_| look <= Instant::now()) {
                look = Instant::now() + com_port::LOOK;
                if let Some(told) = com.look(line) {
                    self.say(&told);
                }
            }
            let quiet = self.pipe.to_line.is_empty() && self.data.is_empty();
            let gap = self.terms.gather.max(line.speed().time_of(7) / 2);
            let yields = self.yields_to_command(quiet, busy.max(self.busy_until) + gap);
            if yields.is_some_and(|at| at <= Instant::now()) {
                self.give_way();
                return Ended::Yielded;
            }
            let wake = self.wake(Some((line.speed(), busy)));
            let wake = yields.map_or(wake, |yields| yields.min(wake));
            let wake = if self.com.is_some() { wake.min(look) } else { wake };
            let wake = held.map_or(wake, |held| held.min(wake));
            let from_line = self.terms.largest.saturating_sub(self.data.len());
            let from_peer =
                !self.hung_up && yields.is_none() && self.pipe.to_line.len() < MOST && self.pipe.to_peer.len() < MOST;
            tokio::select! {
                biased;
                () = evicted(&mut self.evicted, self.number) => return Ended::Over(Why::TakenOver),
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, Some(&mut *line)),
                    None => return Ended::Over(Why::Closed),
                },
                moved = self.pipe.moved(Some(&mut *line), from_line, from_peer) => {
                    if let Some(why) = self.took(moved, line, &mut busy).await {
                        return Ended::Over(why);
                    }
                }
                answer = tagged::answer(&mut self.tagged) => self.pipe.to_line.extend(answer),
                () = sleep_until(wake) => if let Some(ended) = self.overdue(Some(busy)) {
                    return ended;
                },
            }
        }
    }

    /// Without a peer: listens to the line until it says something; or longer, while `until` is on its way.
    pub(super) async fn listen(&mut self, line: &mut Line) -> Result<(), Why> {
        let known = self.data.len();
        loop {
            let (from_line, now) = (MOST.saturating_sub(self.data.len()), Instant::now());
            let held = self.hear_tagged(line.speed());
            if self.tagged.is_some() && self.data.len() > known {
                return Ok(());
            }
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, Some(&mut *line)),
                    None => return Err(Why::Closed),
                },
                () = std::future::ready(()), if self.wanted.is_some() => {
                    self.give_way();
                    return Err(Why::GivenAway);
                }
                moved = self.pipe.moved(Some(&mut *line), from_line, false) => {
                    let before = self.data.len();
                    let mut busy = Instant::now();
                    if let Some(why) = self.took(moved, line, &mut busy).await {
                        return Err(why);
                    }
                    if self.data.len() > before {
                        return Ok(());
                    }
                }
                answer = tagged::answer(&mut self.tagged) => self.pipe.to_line.extend(answer),
                () = sleep_until(held.unwrap_or(now)), if held.is_some() => {}
            }
        }
    }

    /// Sets the line as it was ordered and chosen; once a peer, what came before is thrown away.
    pub(super) async fn prepare(&mut self, line: &mut Line) -> Result<(), crate::os::line::LineError> {
        if let Some(speed) = self.chosen.or(self.ordered) {
            line.set_speed(speed)?;
        }
        if self.terms.flush && !self.flushed && self.data.is_empty() {
            let dropped = line.discard_waiting().await?;
            tracing::debug!(dropped, "what the port had sent before is thrown away");
        }
        self.flushed = true;
        if let Some(com) = &self.com {
            com.rejoin(line);
        }
        Ok(())
    }

    async fn hear_what_waited(&mut self, line: &mut Line) {
        let bytes = std::mem::take(&mut self.unheard);
        if !bytes.is_empty() {
            let fresh = self.asked.elapsed() <= self.terms.max_age;
            if !fresh {
                self.health.dropped_request();
                tracing::debug!(bytes = bytes.len(), "a request waited too long for the line and is dropped");
            }
            self.hear(&bytes, fresh, line).await;
        }
    }

    /// Takes what the peer sent.
    async fn hear(&mut self, bytes: &[u8], fresh: bool, line: &mut Line) {
        if fresh {
            self.health.change(|status| status.requests += 1);
        }
        let Some(com) = &mut self.com else {
            if fresh {
                self.pipe.to_line.extend_from_slice(bytes);
            }
            return;
        };
        let asked = com.hear((bytes, fresh), line, &mut self.pipe.to_line, self.busy_until).await;
        if asked.drop_received {
            self.data.clear();
            self.fresh = None;
        }
        self.chosen = asked.speed.or(self.chosen);
        self.wrote(&asked.written);
        self.pipe.to_line.extend(asked.data);
        self.say(&asked.reply);
    }

    /// Puts bytes before the peer that are not the line's.
    fn say(&mut self, bytes: &[u8]) {
        if self.pipe.to_peer.is_empty() {
            self.progress = Instant::now();
        }
        self.pipe.to_peer.extend_from_slice(bytes);
    }

    fn wrote(&mut self, bytes: &[u8]) {
        if self.terms.remove_echo {
            self.echoes.sent(bytes);
        }
        self.health.change(|status| status.to_port += bytes.len() as u64);
    }

    /// What became of a move; why the peer is served no more, if so.
    async fn took(&mut self, moved: Moved, line: &mut Line, busy: &mut Instant) -> Option<Why> {
        let now = Instant::now();
        match moved {
            Moved::FromLine(Ok(0)) => return Some(Why::NoLine("the other side closed it".to_owned())),
            Moved::FromLine(Err(error)) | Moved::ToLine(Err(error)) => return Some(Why::NoLine(error.to_string())),
            Moved::FromLine(Ok(count)) => {
                (*busy, self.last) = (now, now);
                let came = self.pipe.read(count);
                let echoed = if self.terms.remove_echo { self.echoes.strip(came) } else { 0 };
                let came = came.get(echoed..).unwrap_or_default();
                if let Some(tagged) = &mut self.tagged {
                    tagged.hear(came, now);
                    let _ = self.hear_tagged(line.speed());
                } else if !came.is_empty() {
                    self.data.extend_from_slice(came);
                    self.fresh = Some((self.fresh.map_or(now, |(first, _)| first), now));
                }
            }
            Moved::ToLine(Ok(bytes)) => {
                (*busy, self.last) = (now, now);
                if !line.is_tcp() {
                    // More than the kernel holds has left already.
                    let (more, most) = (line.speed().time_of(bytes.len()), line.speed().time_of(KERNEL_HOLDS));
                    self.busy_until = (self.busy_until.max(now) + more).min(now + most);
                }
                self.wrote(&bytes);
            }
            Moved::FromPeer(Ok(count)) if count > 0 => {
                (*busy, self.last) = (now, now);
                let bytes = self.pipe.read(count).to_vec();
                self.hear(&bytes, true, line).await;
            }
            moved => return self.of_the_peer(moved),
        }
        None
    }

    /// What the peer's side says when it says no bytes.
    fn of_the_peer(&mut self, moved: Moved) -> Option<Why> {
        match moved {
            Moved::FromPeer(Ok(_)) => self.hung_up = true,
            // TLS without its goodbye: what came before was whole.
            Moved::FromPeer(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => self.hung_up = true,
            Moved::FromPeer(Err(error)) | Moved::ToPeer(Err(error)) => return Some(Why::Lost(error.to_string())),
            Moved::ToPeer(Ok(_)) => (self.last, self.progress) = (Instant::now(), Instant::now()),
            Moved::Flushed | Moved::FromLine(_) | Moved::ToLine(_) => {}
        }
        None
    }

    /// When what came from the line goes to the peer: after 3.5 characters of silence, when it is much, or when its first byte
    /// has waited for `gather`.
    fn due(&self, speed: Speed) -> Option<Instant> {
        let suspended = self.com.as_ref().is_some_and(|com| com.suspended);
        let (first, last) = self.fresh.filter(|_| !suspended && self.pipe.to_peer.len() < MOST)?;
        let gap = speed.time_of(7) / 2;
        let full = self.data.len() >= self.terms.largest;
        Some(if full { last } else { (last + gap).min(first + self.terms.gather.max(gap)) })
    }

    fn release(&mut self, speed: Speed) {
        if self.due(speed).is_none_or(|due| due > Instant::now()) {
            return;
        }
        if self.pipe.to_peer.is_empty() {
            self.progress = Instant::now();
        }
        match &self.com {
            Some(_) => rfc2217::escape(&self.data, &mut self.pipe.to_peer),
            None => self.pipe.to_peer.extend_from_slice(&self.data),
        }
        let bytes = self.data.len() as u64;
        self.health
            .change(|status| (status.answers, status.from_port) = (status.answers + 1, status.from_port + bytes));
        self.data.clear();
        self.fresh = None;
    }

    /// When something is due next.
    fn wake(&self, line: Option<(Speed, Instant)>) -> Instant {
        let due = line.and_then(|(speed, _)| self.due(speed));
        let yields = line.and_then(|(_, busy)| self.yields_at(busy));
        let limits = [due, yields, self.idle_at(), self.until, self.stuck_at(), self.left_at()];
        limits.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + LONG)
    }

    fn idle_at(&self) -> Option<Instant> {
        self.terms.idle.map(|idle| self.last + idle)
    }

    fn stuck_at(&self) -> Option<Instant> {
        (!self.pipe.to_peer.is_empty()).then(|| self.progress + STUCK)
    }

    /// When a line that does not take what a peer left behind is given up.
    fn left_at(&self) -> Option<Instant> {
        self.hung_up.then(|| self.last + STUCK)
    }

    fn yields_at(&self, busy: Instant) -> Option<Instant> {
        let idle = self.pipe.to_line.is_empty() && self.data.is_empty();
        self.terms.hold.filter(|_| idle).map(|hold| busy.max(self.busy_until) + hold)
    }

    /// What a limit that has passed means.
    fn overdue(&mut self, busy: Option<Instant>) -> Option<Ended> {
        let now = Instant::now();
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.until) {
            Some(Ended::Over(Why::TimeIsOver))
        } else if passed(self.idle_at()) {
            Some(Ended::Over(Why::Idle))
        } else if passed(self.left_at()) {
            Some(Ended::Over(Why::Left))
        } else if passed(self.stuck_at()) {
            self.health.change(|status| status.dropped_answers += 1);
            Some(Ended::Over(Why::Stuck))
        } else {
            passed(busy.and_then(|busy| self.yields_at(busy))).then_some(Ended::Yielded)
        }
    }
}

/// Waits until this peer must go.
async fn evicted(evicted: &mut watch::Receiver<u64>, number: u64) {
    if evicted.wait_for(|upto| *upto >= number).await.is_err() {
        std::future::pending::<()>().await;
    }
}
