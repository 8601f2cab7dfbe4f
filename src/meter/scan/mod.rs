//! Finds the meters on a line that nobody has described yet, for `weir scan`.
//!
//! Invariants: nothing leaves the line that could change a meter: Modbus reads (3, 4, 43/14),
//! IEC 62056-21 sign-ons with the choice of the readout or of HDLC, DLMS associations of the public client and
//! GET, M-Bus SND_NKE, selections and REQ_UD2
//! (tests/scan.rs records every byte); every wait has an end, and what a scan takes at most is
//! known before it begins. To add a protocol: one file here with its probe, one row in
//! [`PROBES`]. Start with [`plan`] and [`run`]; [`configuration`] makes the text to paste.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::meter::Address;
use crate::os::line::{Direction, Endpoint, Framing, Line, LineError, Speed};

mod dlms;
mod dlms_push;
mod found;
#[expect(unreachable_pub, reason = "settings! makes public structs; fingerprints are read in here only")]
mod identify;
mod iec62056;
mod mbus;
mod modbus;
mod proposal;
mod push;

pub use found::{Found, Who};
pub use proposal::{Known, Place, Proposal, configuration};

/// Every way to find meters, in the order in which they are tried.
pub const PROBES: &[Probe] =
    &[push::PROBE, modbus::TCP, modbus::RTU, modbus::ASCII, iec62056::PROBE, dlms::PROBE, mbus::PROBE];

/// A way to find the meters of one protocol.
pub struct Probe {
    /// The word for it, as in `protocol = "..."`; `push` stands for all that send by themselves.
    pub name: &'static str,
    /// The protocols of [`crate::meter::PROTOCOLS`] that it finds.
    pub protocols: &'static [&'static str],
    /// What it would do for a wish, at this place.
    steps: fn(&Wish, &Endpoint) -> Vec<Step>,
    /// Does one step.
    run: for<'a> fn(&'a Step, &'a mut Bench<'_>) -> Work<'a>,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<(), LineError>> + Send + 'a>>;

/// How much time to spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The usual speeds and the first addresses.
    Quick,
    /// The usual speeds; every address at those that are most used, or where a meter answered.
    Usual,
    /// Every speed, every address, slow meters.
    Thorough,
}

/// What to look for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Names of probes or of protocols; empty for all.
    pub protocols: Vec<String>,
    /// Bits per second; empty for the usual ones.
    pub bauds: Vec<u32>,
    /// Character framing; `None` for the usual ones.
    pub framing: Option<Framing>,
    /// Addresses; empty for all.
    pub addresses: Vec<Address>,
    /// How much time to spend.
    pub depth: Depth,
}

impl Wish {
    /// Everything, as thoroughly as `depth` says.
    pub const fn new(depth: Depth) -> Self {
        Self { protocols: Vec::new(), bauds: Vec::new(), framing: None, addresses: Vec::new(), depth }
    }

    fn wants(&self, probe: &Probe) -> bool {
        let named = |word: &String| word == probe.name || probe.protocols.contains(&word.as_str());
        self.protocols.is_empty() || self.protocols.iter().any(named)
    }

    /// Whether it names speeds itself.
    const fn has_speed(&self) -> bool {
        !self.bauds.is_empty() || self.framing.is_some()
    }

    /// The speeds to try: those wished for, else `usual`.
    fn speeds(&self, usual: &[(u32, &str)]) -> Vec<Speed> {
        let usual = usual.iter().filter_map(|(baud, text)| Some((*baud, Framing::parse(text)?)));
        let mut speeds: Vec<Speed> = Vec::new();
        // At a speed that is not usual: the framings of the two commonest ones.
        let mut commonest: Vec<Framing> = usual.clone().take(2).map(|(_, framing)| framing).collect();
        commonest.dedup();
        let framings = |baud: u32| -> Vec<Framing> {
            let of_usual: Vec<Framing> = usual.clone().filter(|(b, _)| *b == baud).map(|(_, f)| f).collect();
            match self.framing {
                Some(framing) => vec![framing],
                None if of_usual.is_empty() => commonest.clone(),
                None => of_usual,
            }
        };
        let bauds: Vec<u32> =
            if self.bauds.is_empty() { usual.clone().map(|(baud, _)| baud).collect() } else { self.bauds.clone() };
        if self.bauds.is_empty() && self.framing.is_none() {
            return usual.map(|(baud, framing)| Speed { baud, framing }).collect();
        }
        for baud in bauds {
            for framing in framings(baud) {
                let speed = Speed { baud, framing };
                if !speeds.contains(&speed) {
                    speeds.push(speed);
                }
            }
        }
        speeds
    }

    /// The addresses wished for that are numbers up to `most`.
    fn numbers(&self, most: u8) -> Vec<u8> {
        let number = |address: &Address| match address {
            Address::Number(number) => u8::try_from(*number).ok().filter(|n| *n <= most),
            Address::Text(_) => None,
        };
        self.addresses.iter().filter_map(number).collect()
    }
}

/// When a step comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pass {
    /// Only listens.
    Listen,
    /// The addresses and speeds at which meters are delivered.
    Common,
    /// Protocols that need one request only.
    SignOn,
    /// The same by rarer ways; left out where that has found a meter.
    Rarer,
    /// All the rest; left out where a speed is known that meters answer at.
    Sweep,
}

/// One protocol at one speed.
#[derive(Debug, Clone)]
pub struct Step {
    probe: &'static Probe,
    speed: Speed,
    addresses: Vec<Address>,
    /// The wait for an answer.
    wait: Duration,
    pass: Pass,
    /// What it does besides.
    more: More,
    /// What it takes when nobody answers.
    pub estimate: Duration,
}

/// What a step does besides asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Nothing,
    /// It ends with a search by secondary addresses.
    Secondary,
    /// It begins with a wake-up.
    WakeUp,
    /// It begins with an opening by mode E; true when a sign-on must have announced that.
    ModeE(bool),
    /// It uses the wrapper of DLMS.
    Wrapper,
}

impl Step {
    /// How it asks, in a few words.
    fn how(&self) -> String {
        let Speed { baud, framing } = self.speed;
        match (self.probe.name, self.more) {
            (name, _) if name == push::PROBE.name => "by listening".to_owned(),
            (name, _) if name == modbus::TCP.name => format!("{} units", self.addresses.len()),
            (name, More::WakeUp) if name == iec62056::NAME => format!("{baud} after a wake-up"),
            (name, _) if name == iec62056::NAME => baud.to_string(),
            (_, More::ModeE(_)) => "after a sign-on by mode E".to_owned(),
            (_, More::Wrapper) => "over the wrapper".to_owned(),
            _ if self.pass == Pass::Sweep => format!("{baud} {framing} (all addresses)"),
            _ => format!("{baud} {framing}"),
        }
    }
}

/// What happens during a scan.
#[derive(Debug)]
pub enum Event {
    /// So much of the estimate is over, in thousandths, and this is tried now.
    Progress(u32, String),
    /// A meter.
    Found(Box<Found>),
    /// Something that a person should know.
    Warning(String),
    /// A probe was tried to its end in this way.
    Tried(&'static str, String),
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything was tried.
    Finished,
    /// The time was over first.
    OutOfTime,
}

/// What would be done, in order.
pub fn plan(wish: &Wish, endpoint: &Endpoint) -> Vec<Step> {
    let wanted = PROBES.iter().filter(|probe| wish.wants(probe));
    let mut steps: Vec<Step> = wanted.flat_map(|probe| (probe.steps)(wish, endpoint)).collect();
    steps.sort_by_key(|step| step.pass);
    steps
}

/// What the steps take at most when nobody answers.
pub fn estimate(steps: &[Step]) -> Duration {
    steps.iter().map(|step| step.estimate).sum()
}

/// Does the steps, for `limit` at most, and tells what happens. It may be dropped at any moment.
///
/// # Errors
/// When the line can't be opened, or not be opened again.
pub async fn run(
    endpoint: &Endpoint,
    direction: Direction,
    wish: &Wish,
    steps: &[Step],
    limit: Duration,
    tell: &mut (dyn FnMut(Event) + Send),
) -> Result<End, LineError> {
    let work = async {
        let Some(first) = steps.first() else { return Ok(()) };
        let line = Line::open(endpoint, first.speed, direction).await?;
        let mut bench = Bench {
            line,
            endpoint,
            direction,
            depth: wish.depth,
            found: Vec::new(),
            warned: Vec::new(),
            tell,
            over: Duration::ZERO,
            total: estimate(steps).max(Duration::from_millis(1)),
            present: Duration::ZERO,
            mode_e: false,
        };
        for step in steps {
            bench.present = step.estimate;
            if !bench.is_needless(step) && !modbus::is_for_nothing(step, &bench) {
                // A server of another protocol may have lost its place in the stream.
                if bench.line.is_tcp() && bench.over > Duration::ZERO {
                    bench.reopen().await?;
                }
                match (step.probe.run)(step, &mut bench).await {
                    Ok(()) | Err(LineError::Silent(_)) => {}
                    Err(error) => bench.survive(error).await?,
                }
                (bench.tell)(Event::Tried(step.probe.name, step.how()));
            }
            bench.over += step.estimate;
        }
        Ok(())
    };
    match timeout(limit, work).await {
        Ok(result) => result.map(|()| End::Finished),
        Err(_) => Ok(End::OutOfTime),
    }
}

/// The line, and what is known so far.
struct Bench<'a> {
    line: Line,
    endpoint: &'a Endpoint,
    direction: Direction,
    depth: Depth,
    found: Vec<Found>,
    warned: Vec<String>,
    tell: &'a mut (dyn FnMut(Event) + Send),
    /// The estimates of the steps that are over.
    over: Duration,
    total: Duration,
    present: Duration,
    /// A sign-on was answered by a meter that announces mode E.
    mode_e: bool,
}

impl Bench<'_> {
    /// Whether what was found makes the step a waste of time.
    fn is_needless(&self, step: &Step) -> bool {
        if self.depth == Depth::Thorough || step.pass == Pass::Listen {
            return false;
        }
        // A line on which a meter talks by itself speaks nothing else.
        let pushed = self.found.iter().any(|f| push::PROBE.protocols.contains(&f.protocol));
        let of_probe = |f: &&Found| step.probe.protocols.contains(&f.protocol);
        let elsewhere = self.found.iter().filter(of_probe).any(|f| f.speed != step.speed);
        let here = self.found.iter().filter(of_probe).any(|f| f.speed == step.speed);
        // Nor has a Modbus TCP server.
        let server = modbus::TCP.protocols;
        // Nor does a bus of RTU meters carry ASCII.
        let in_hex = step.probe.protocols == modbus::ASCII.protocols;
        let in_bytes = in_hex && self.found.iter().any(|f| modbus::RTU.protocols.contains(&f.protocol));
        let served = step.probe.protocols != server && self.found.iter().any(|f| server.contains(&f.protocol));
        // Nor does one that speaks the wrapper of DLMS speak anything else.
        let wrapped = self.found.iter().any(dlms::has_wrapper);
        let seldom = step.pass == Pass::Rarer && (here || elsewhere);
        pushed || served || wrapped || in_bytes || seldom || (step.pass == Pass::Sweep && elsewhere && !here)
    }

    /// Whether this meter was found before; two framings of one speed are one.
    fn knows(&self, protocol: &str, address: &Address, speed: Speed) -> bool {
        let same =
            |f: &Found| f.protocol == protocol && f.address.as_ref() == Some(address) && f.speed.baud == speed.baud;
        self.found.iter().any(same)
    }

    /// Whether a meter with this address said the same of itself at another speed.
    fn has_elsewhere(&self, found: &Found) -> bool {
        let same = |f: &Found| f.protocol == found.protocol && f.address == found.address && f.who == found.who;
        !found.who.is_nobody() && self.found.iter().any(same)
    }

    async fn reopen(&mut self) -> Result<(), LineError> {
        self.line = Line::open(self.endpoint, self.line.speed(), self.direction).await?;
        Ok(())
    }

    /// Goes on after a server has hung up, as many do when they do not understand something.
    async fn survive(&mut self, error: LineError) -> Result<(), LineError> {
        match error.must_reopen() {
            true if self.line.is_tcp() => self.reopen().await,
            true => Err(error),
            false => Ok(()),
        }
    }

    fn add(&mut self, found: Found) {
        self.found.push(found.clone());
        (self.tell)(Event::Found(Box::new(found)));
    }

    /// Tells a person something, once.
    fn warn(&mut self, sentence: String) {
        if !self.warned.contains(&sentence) {
            self.warned.push(sentence.clone());
            (self.tell)(Event::Warning(sentence));
        }
    }

    /// Tells that `part` of `whole` of the present step is over.
    fn progress(&mut self, part: usize, whole: usize, what: String) {
        let share = u32::try_from(part.saturating_mul(1000) / whole.max(1)).unwrap_or(1000);
        let over = self.over + self.present * share / 1000;
        let thousandths = over.as_millis().saturating_mul(1000) / self.total.as_millis().max(1);
        (self.tell)(Event::Progress(u32::try_from(thousandths).unwrap_or(1000).min(1000), what));
    }

    /// Receives into `buffer` until the line was silent for `silence` or `limit` is over.
    async fn gather(
        &mut self,
        buffer: &mut Vec<u8>,
        begin: Duration,
        silence: Duration,
        limit: Duration,
    ) -> Result<(), LineError> {
        const MOST: usize = 16 * 1024;
        let end = Instant::now() + limit;
        let mut until = Instant::now() + begin;
        let mut piece = [0; 512];
        while buffer.len() < MOST {
            match self.line.receive(&mut piece, until.min(end)).await {
                Ok(count) => buffer.extend(piece.iter().take(count)),
                Err(LineError::Silent(_)) => break,
                Err(error) => return Err(error),
            }
            until = Instant::now() + silence;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Endpoint {
        Endpoint::parse("/dev/ttyS1")
    }

    #[test]
    fn a_plan_listens_first_and_sweeps_last_and_is_bounded() {
        for (depth, most) in [(Depth::Quick, 120), (Depth::Usual, 600), (Depth::Thorough, 7200)] {
            let steps = plan(&Wish::new(depth), &device());
            assert!(steps.windows(2).all(|pair| pair[0].pass <= pair[1].pass));
            assert_eq!(steps[0].pass, Pass::Listen);
            let total = estimate(&steps).as_secs();
            assert!(total > 0 && total <= most, "{depth:?} takes {total} s");
        }
    }

    #[test]
    fn a_wish_names_protocols_speeds_and_addresses() {
        let wish = Wish {
            protocols: vec!["modbus-rtu".into()],
            bauds: vec![1200],
            addresses: vec![Address::Number(7), Address::Number(300)],
            ..Wish::new(Depth::Usual)
        };
        let steps = plan(&wish, &device());
        let speeds: Vec<_> = steps.iter().map(|s| format!("{} {}", s.speed.baud, s.speed.framing)).collect();
        assert_eq!(speeds, ["1200 8N1", "1200 8E1"]);
        assert!(steps.iter().all(|s| s.addresses == [Address::Number(7)]));
        let exact = Wish { framing: Framing::parse("8O1"), ..wish };
        assert_eq!(plan(&exact, &device()).len(), 1);
        let sml = Wish { protocols: vec!["sml".into()], ..Wish::new(Depth::Quick) };
        assert!(plan(&sml, &device()).iter().all(|s| s.probe.name == "push"));
    }

    #[test]
    fn every_probe_names_protocols_of_its_own() {
        let mut names: Vec<_> = PROBES.iter().flat_map(|p| p.protocols).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
