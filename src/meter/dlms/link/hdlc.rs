//! HDLC over a serial line or a serial server (IEC 62056-46), also behind an opening by mode E.
//!
//! The dialogue is [`Station`]'s; here are the line and its times. A meter has the response time for the first byte
//! of a frame; a frame that has begun may last as long as its bytes come one after the other.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::address;
use super::station::{Failure, Heard, Station, Wait};
use crate::meter::dlms::{DlmsLink, dlms};
use crate::meter::iec62056::{Opening, open_mode_e};
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::{Framing, Line, LineError, Speed};
use crate::wire::dlms::hdlc::{Decoder, Event, LLC_REQUEST, LONGEST, OVERHEAD, Parameters};

/// The least that is asked for of an APDU.
const SHORTEST_APDU: u16 = 64;
/// So many bytes that are no frame are what is left of one.
const REMAINS: usize = 7;
/// So long no byte must have come before something is sent again.
const QUIET: Duration = Duration::from_millis(30);

/// A connection to one logical device.
pub(in crate::meter::dlms) struct Hdlc {
    station: Station,
    decoder: Decoder,
    timeout: Duration,
    octet_timeout: Duration,
    /// The silence before each request.
    pause: Duration,
    mode_e: Option<ModeE>,
    /// Until when a frame must begin.
    deadline: Instant,
    /// Something damaged came since the last request.
    damaged: bool,
    dropped: bool,
    /// What is sent now shows a password.
    secret: bool,
    /// What is sent next is sent once.
    once: bool,
}

/// What an opening by mode E needs to know.
struct ModeE {
    settings: MeterSettings,
    pause: Duration,
    /// The rate of the last connection.
    baud: Option<u32>,
}

impl Hdlc {
    pub(super) fn new(settings: &MeterSettings) -> Result<Self, String> {
        let dlms = dlms(settings)?;
        let client = address::client(u16::try_from(dlms.client.value()).unwrap_or(u16::MAX))?;
        let size = u16::try_from(dlms.information_field.value()).unwrap_or(128);
        let window = u8::try_from(dlms.window.value()).unwrap_or(1);
        let proposal = Parameters { transmit: size, receive: size, window_transmit: window, window_receive: window };
        let meter = address::meter(settings, &dlms)?;
        // The address of the sign-on is a text of its own: the meter's number, not its place on the bus.
        let sign_on = MeterSettings { address: None, ..settings.clone() };
        let mode_e = (dlms.link == DlmsLink::HdlcModeE).then_some(ModeE {
            settings: sign_on,
            pause: dlms.mode_e_pause,
            baud: None,
        });
        Ok(Self {
            station: Station::new(client, meter, proposal, settings.retries.value(), settings.timeout),
            decoder: Decoder::new(),
            timeout: settings.timeout,
            octet_timeout: dlms.octet_timeout,
            pause: settings.pause,
            mode_e,
            deadline: Instant::now(),
            damaged: false,
            dropped: false,
            secret: false,
            once: false,
        })
    }

    pub(super) async fn open(&mut self, line: &mut Line, client: u16) -> Result<(), MeterError> {
        self.dropped = false;
        let client = address::client(client).map_err(MeterError::Order)?;
        if self.mode_e.is_some() {
            self.sign_on(line).await?;
        }
        self.clear(line).await?;
        (self.damaged, self.dropped, self.secret, self.once) = (false, false, false, false);
        self.station.open(client);
        self.drive(line, Station::result).await
    }

    /// The longest APDU, at most of `longest` bytes, that fills the meter's frames.
    pub(super) fn fitting(&self, longest: u16) -> u16 {
        let frame = self.station.receives().max(1);
        let whole = (usize::from(longest) + LLC_REQUEST.len()) / frame * frame;
        // Frames that are longer than any APDU hold it all the same.
        match whole.checked_sub(LLC_REQUEST.len()) {
            Some(fits) => u16::try_from(fits).map_or(longest, |fits| fits.max(SHORTEST_APDU).min(longest)),
            None => longest,
        }
    }

    /// Sends a request; what goes wrong then is told by [`Hdlc::receive`].
    pub(super) async fn send(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        self.secret = false;
        self.begin(line, apdu).await
    }

    /// As [`Hdlc::send`], for a request that no trace may show.
    pub(super) async fn send_secret(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        self.secret = true;
        self.begin(line, apdu).await
    }

    /// See [`super::Link::only_once`].
    pub(super) const fn only_once(&mut self) {
        self.once = true;
    }

    async fn begin(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        self.damaged = false;
        if self.station.awaits_answer() {
            // Several requests in a row: the meter takes each before the next one is sent.
            self.station.relay();
            self.drive(line, |station| {
                station.has_turn().then_some(Ok(())).or_else(|| station.result().and_then(|r| r.err().map(Err)))
            })
            .await?;
        } else if self.station.has_turn() {
            self.clear(line).await?;
        }
        self.station.request(apdu);
        if std::mem::take(&mut self.once) {
            self.station.only_once();
        }
        self.transmit(line).await
    }

    pub(super) async fn receive(&mut self, line: &mut Line) -> Result<Vec<u8>, MeterError> {
        if let Some(answer) = self.station.answer() {
            return Ok(answer);
        }
        self.station.listen();
        self.drive(line, |station| match station.answer() {
            Some(answer) => Some(Ok(answer)),
            None => station.result().and_then(|failed| failed.err().map(Err)),
        })
        .await
    }

    /// Tells the meter that this client is still there, before its inactivity time ends the connection.
    pub(super) async fn keep_alive(&mut self, line: &mut Line) -> Result<(), MeterError> {
        if !self.station.is_open() {
            return Ok(());
        }
        self.station.keep();
        self.drive(line, |station| {
            station.has_turn().then_some(Ok(())).or_else(|| station.result().and_then(|r| r.err().map(Err)))
        })
        .await
    }

    pub(super) async fn close(&mut self, line: &mut Line) {
        self.secret = false;
        self.station.close();
        let _ = self.drive(line, Station::result).await;
    }

    /// Whether the meter ended the connection by itself: opening it anew may help.
    pub(super) const fn was_dropped(&self) -> bool {
        self.dropped
    }

    /// Opens mode E, after a connection that broke off was ended at its rate.
    async fn sign_on(&mut self, line: &mut Line) -> Result<(), MeterError> {
        let Some(mode_e) = &self.mode_e else { return Ok(()) };
        if let Some(baud) = mode_e.baud.filter(|_| self.station.is_dirty()) {
            line.set_speed(Speed { baud, framing: Framing::EIGHT_N_ONE })?;
            self.close(line).await;
        }
        let Some(mode_e) = &mut self.mode_e else { return Ok(()) };
        let mut left = mode_e.settings.retries.value();
        let opening = loop {
            match open_mode_e(line, &mode_e.settings).await {
                Err(MeterError::Line(LineError::Silent(_))) if left > 0 => left -= 1,
                other => break other?,
            }
        };
        match opening {
            Opening::Hdlc { identification, baud } => {
                tracing::debug!(manufacturer = %identification.manufacturer, baud, "mode E was opened");
                mode_e.baud = Some(baud);
                sleep(mode_e.pause).await;
                Ok(())
            }
            Opening::Readout { identification, .. } => Err(MeterError::Refused(format!(
                "mode E: {}{} sends its readout instead; it is read with protocol = \"iec62056-21\"",
                identification.manufacturer, identification.model
            ))),
        }
    }

    /// Reads away what nobody waits for.
    async fn clear(&mut self, line: &mut Line) -> Result<(), MeterError> {
        let held = std::iter::from_fn(|| self.decoder.next()).any(|event| matches!(event, Event::Frame(_)));
        self.decoder = Decoder::new();
        if line.discard_waiting().await? >= REMAINS || held {
            line.note_damage();
        }
        Ok(())
    }

    /// Goes on until `end` says how it ends.
    async fn drive<T>(
        &mut self,
        line: &mut Line,
        end: impl Fn(&mut Station) -> Option<Result<T, Failure>>,
    ) -> Result<T, MeterError> {
        loop {
            self.transmit(line).await?;
            if let Some(ended) = end(&mut self.station) {
                return ended.map_err(|failure| self.error(failure));
            }
            if !self.take_event(line) {
                self.hear(line).await?;
            }
        }
    }

    async fn transmit(&mut self, line: &mut Line) -> Result<(), MeterError> {
        let Some(bytes) = self.station.transmit() else { return Ok(()) };
        if !self.pause.is_zero() {
            line.pause_until(line.last_byte() + self.pause).await;
        }
        if self.secret {
            tracing::trace!(count = bytes.len(), "sent a secret");
            line.send_secret(&bytes).await?;
        } else {
            tracing::trace!(?bytes, "sent");
            line.send(&bytes).await?;
        }
        // A serial server sends while we wait, and may give an answer only when it has it whole.
        let longest = usize::from(self.station.proposal().receive) + OVERHEAD;
        let wire = if line.is_tcp() { line.speed().time_of(bytes.len() + longest) } else { Duration::ZERO };
        self.deadline = Instant::now() + wire + self.wait();
        Ok(())
    }

    fn wait(&self) -> Duration {
        match self.station.wait() {
            Wait::Answer => self.timeout,
            Wait::Pause(pause) => pause,
        }
    }

    /// Gives one thing of what came to the station; tells whether there was any.
    fn take_event(&mut self, line: &mut Line) -> bool {
        let Some(event) = self.decoder.next() else { return false };
        let broken = self.decoder.take_broken();
        let soon = match event {
            Event::Frame(frame) => match self.station.take(frame) {
                Heard::Used => {
                    self.deadline = Instant::now() + self.wait();
                    return true;
                }
                Heard::Passed => return true,
                Heard::Stray => true,
            },
            Event::Noise(count) if broken || count >= REMAINS => {
                self.station.take_damaged();
                true
            }
            Event::Noise(_) => false,
        };
        if soon {
            line.note_damage();
            self.damaged = true;
            self.deadline = self.deadline.min(Instant::now() + self.wait());
        }
        true
    }

    /// Waits for bytes; tells the station when it waited in vain.
    async fn hear(&mut self, line: &mut Line) -> Result<(), MeterError> {
        let in_frame = self.decoder.in_frame();
        let latest = self.deadline + self.timeout + line.speed().time_of(LONGEST);
        let until = match in_frame {
            true => line.last_byte() + self.octet_timeout,
            // Nothing is sent into the remains of a frame.
            false => self.deadline.max(line.last_byte() + QUIET).min(latest),
        };
        let mut buffer = [0; 2048];
        match line.receive(&mut buffer, until).await {
            // Noise without end is silence.
            Ok(_) if !in_frame && Instant::now() > latest => self.expire(),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                tracing::trace!(?bytes, "received");
                self.decoder.push(bytes);
            }
            Err(LineError::Silent(_)) if in_frame => self.decoder.silence(),
            Err(LineError::Silent(_)) => {
                self.decoder.silence();
                self.expire();
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn expire(&mut self) {
        self.station.expire();
        self.deadline = Instant::now() + self.wait();
    }

    fn error(&mut self, failure: Failure) -> MeterError {
        match failure {
            Failure::Silent if self.damaged => {
                MeterError::Damaged("frames came, but none that is the answer, repetitions included".to_owned())
            }
            Failure::Silent => MeterError::Line(LineError::Silent(self.timeout)),
            Failure::Refused(why) => MeterError::Refused(format!("the connection: {why}")),
            Failure::Dropped(why) => {
                self.dropped = true;
                MeterError::Damaged(format!("the HDLC connection ended: {why}"))
            }
            Failure::Closed => MeterError::Damaged("the HDLC connection is closed".to_owned()),
            Failure::TooLong => MeterError::Damaged("an answer of more than 65,535 bytes".to_owned()),
        }
    }
}
