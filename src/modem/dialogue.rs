//! One command and its answer, with a time limit; what comes unasked is kept for whoever listens.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use crate::os::line::{Line, LineError};
use crate::wire::modem::{Decoder, Ending, Event, Fault, Kind, Notice};

/// Notices that may wait; the oldest are lost beyond it, which polling makes good.
const NOTICES: usize = 64;
/// No answer has more lines or characters; a babbler must not hold us or fill the memory.
const MOST_LINES: usize = 2000;
const MOST_BYTES: usize = 256 * 1024;

/// The time that an ordinary answer may take.
const USUAL: Duration = Duration::from_secs(10);

/// The end of a message's text, and of a prompt.
const CTRL_Z: u8 = 0x1A;
const ESCAPE: u8 = 0x1B;

/// Why a dialogue can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The line failed.
    #[error("{0}")]
    Line(#[from] LineError),
    /// No answer came in time.
    #[error("no answer to {0}")]
    Silent(String),
    /// What comes is no answer and does not end.
    #[error("the port tells garbage without end; is it the modem's AT port?")]
    Babble,
    /// The modem said that it started anew.
    #[error("the modem has started anew")]
    Restarted,
    /// It was told to.
    #[error("the modem was told to start anew")]
    Reset,
}

/// An answer: its lines and how it ended.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) lines: Vec<String>,
    pub(super) end: Ending,
}

impl Answer {
    /// The first line that `read` understands.
    pub(super) fn find<T>(&self, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.lines.iter().find_map(|line| read(line))
    }

    pub(super) const fn is_ok(&self) -> bool {
        matches!(self.end, Ending::Ok)
    }

    /// Why it was refused.
    pub(super) const fn fault(&self) -> Option<&Fault> {
        match &self.end {
            Ending::Ok => None,
            Ending::Refused(fault) => Some(fault),
        }
    }
}

/// The open port.
pub(super) struct Dialogue {
    line: Line,
    decoder: Decoder,
    notices: VecDeque<Notice>,
    /// The time that an ordinary answer may take.
    usual: Duration,
    /// Answers that did not come, not counted by anybody yet.
    pub(super) silences: u64,
    /// It was lost again and again of late: what it does is told once only.
    pub(super) flapping: bool,
    /// So many times in a row the SIM was too busy for its PIN.
    pub(super) busy: u32,
}

impl Dialogue {
    pub(super) fn new(line: Line) -> Self {
        Self {
            line,
            decoder: Decoder::new(),
            notices: VecDeque::new(),
            usual: USUAL,
            silences: 0,
            flapping: false,
            busy: 0,
        }
    }

    /// Finds out whether a modem answers: ends what may be open, then asks `AT` a few times.
    pub(super) async fn meet(&mut self) -> Result<(), Broken> {
        self.line.send(&[ESCAPE, b'\r']).await?;
        self.quiet().await?;
        self.decoder = Decoder::new();
        let mut last = Broken::Silent("AT".to_owned());
        for limit in [1, 2, 4] {
            match self.ask_once("AT", Duration::from_secs(limit)).await {
                Ok(answer) if answer.is_ok() => return Ok(()),
                // The rest of something else was refused.
                Ok(_) => {}
                Err(broken @ (Broken::Silent(_) | Broken::Restarted)) => last = broken,
                Err(broken) => return Err(broken),
            }
        }
        Err(last)
    }

    /// Waits until nothing more comes; what was said unasked is kept.
    async fn quiet(&mut self) -> Result<(), Broken> {
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            match self.hear((Instant::now() + Duration::from_millis(100)).min(end)).await {
                Ok(_) => self.settle(),
                Err(LineError::Silent(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Forgets what came unasked.
    pub(super) fn forget(&mut self) {
        self.settle();
        self.notices.clear();
    }

    /// Asks and takes the answer within the usual time.
    pub(super) async fn ask(&mut self, command: &str) -> Result<Answer, Broken> {
        self.ask_within(command, self.usual).await
    }

    /// Asks; a modem that is silent to this only, but answers `AT`, has refused it.
    pub(super) async fn ask_within(&mut self, command: &str, limit: Duration) -> Result<Answer, Broken> {
        match self.ask_once(command, limit).await {
            Err(Broken::Silent(what)) => {
                self.silences += 1;
                match Box::pin(self.meet()).await {
                    Ok(()) => {
                        Ok(Answer { lines: Vec::new(), end: Ending::Refused(Fault::of(Kind::Equipment, "no answer")) })
                    }
                    Err(Broken::Silent(_)) => Err(Broken::Silent(what)),
                    Err(broken) => Err(broken),
                }
            }
            answered => answered,
        }
    }

    async fn ask_once(&mut self, command: &str, limit: Duration) -> Result<Answer, Broken> {
        self.settle_all().await?;
        let sent = format!("{command}\r");
        // The PIN is in no trace.
        if command.starts_with("AT+CPIN=") {
            self.line.send_secret(sent.as_bytes()).await?;
        } else {
            self.line.send(sent.as_bytes()).await?;
        }
        let answer = self.answer(command, limit).await;
        match &answer {
            Ok(answer) => {
                debug!(command = name(command), end = ?answer.end, lines = answer.lines.len(), "asked the modem")
            }
            Err(broken) => debug!(command = name(command), %broken, "asked the modem in vain"),
        }
        answer
    }

    /// Gives a message's text or PDU after the prompt. `Ok` with a refusal when there is no prompt.
    pub(super) async fn ask_with_text(&mut self, command: &str, text: &str, limit: Duration) -> Result<Answer, Broken> {
        self.settle_all().await?;
        self.decoder.await_prompt(true);
        self.line.send(format!("{command}\r").as_bytes()).await?;
        let deadline = Instant::now() + self.usual;
        let refused = loop {
            match self.event(command, deadline).await {
                Ok(Event::Prompt) => break None,
                Ok(Event::End(end)) => break Some(Answer { lines: Vec::new(), end }),
                Ok(_) => {}
                Err(broken) => {
                    // Whatever is typed next must not become a message.
                    let _ = self.line.send(&[ESCAPE]).await;
                    return Err(broken);
                }
            }
        };
        self.decoder.await_prompt(false);
        if let Some(refused) = refused {
            return Ok(refused);
        }
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(CTRL_Z);
        self.line.send(&bytes).await?;
        self.answer(text, limit).await
    }

    async fn answer(&mut self, command: &str, limit: Duration) -> Result<Answer, Broken> {
        let deadline = Instant::now() + limit;
        let (mut lines, mut bytes) = (Vec::new(), 0);
        loop {
            match self.event(command, deadline).await? {
                Event::End(end) => return Ok(Answer { lines, end }),
                Event::Text(line) => {
                    bytes += line.len();
                    if lines.len() == MOST_LINES || bytes > MOST_BYTES {
                        return Err(Broken::Babble);
                    }
                    // An echo.
                    if line.trim_end_matches(char::from(CTRL_Z)) != command {
                        lines.push(line);
                    }
                }
                Event::Skipped { bytes: skipped } => {
                    bytes += skipped;
                    if bytes > MOST_BYTES {
                        return Err(Broken::Babble);
                    }
                }
                Event::Prompt | Event::Notice(_) => {}
            }
        }
    }

    /// The next event; notices are kept and passed over.
    async fn event(&mut self, command: &str, deadline: Instant) -> Result<Event, Broken> {
        let mut came = 0;
        loop {
            while let Some(event) = self.decoder.next() {
                match event {
                    Event::Notice(notice) => self.keep(notice),
                    event => return Ok(event),
                }
            }
            let silent = |error| match error {
                LineError::Silent(_) => Broken::Silent(name(command).to_owned()),
                error => Broken::Line(error),
            };
            came += self.hear(deadline).await.map_err(silent)?;
            if came > MOST_BYTES {
                return Err(Broken::Babble);
            }
        }
    }

    async fn hear(&mut self, deadline: Instant) -> Result<usize, LineError> {
        let mut buffer = [0; 1024];
        let count = self.line.receive(&mut buffer, deadline).await?;
        self.decoder.push(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// What waits in the kernel before the question is no answer to it either.
    async fn settle_all(&mut self) -> Result<(), Broken> {
        for _ in 0..MOST_BYTES / 1024 {
            match self.hear(Instant::now()).await {
                Ok(_) => self.settle(),
                Err(LineError::Silent(_)) => {
                    self.settle();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Broken::Babble)
    }

    /// What came before the question is no answer to it.
    fn settle(&mut self) {
        while let Some(event) = self.decoder.next() {
            if let Event::Notice(notice) = event {
                self.keep(notice);
            }
        }
    }

    fn keep(&mut self, notice: Notice) {
        if self.notices.len() == NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }

    /// What came unasked, the oldest first.
    pub(super) fn notice(&mut self) -> Option<Notice> {
        self.settle();
        self.notices.pop_front()
    }

    /// Waits until something comes unasked. May be dropped at any moment.
    pub(super) async fn listen(&mut self) -> Result<(), LineError> {
        while self.notices.is_empty() {
            let deadline = Instant::now() + Duration::from_secs(3600);
            match self.hear(deadline).await {
                Ok(_) | Err(LineError::Silent(_)) => self.settle(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A command without its parameters: they may be numbers or secrets.
pub(super) fn name(command: &str) -> &str {
    let end = command.find(['=', '"', ' ']).unwrap_or(command.len()).min(20);
    command.get(..end).filter(|name| name.starts_with("AT")).unwrap_or("a message")
}
