//! Programming mode of the simulated meter: passwords, registers, profiles, writing.

use std::io;

use tokio::time::{sleep, timeout};

use super::{IecMeter, recorded};
use crate::os::clock;
use crate::wire::iec62056::{Command, Message, data};

/// Wrong passwords after which it ends the session.
const PATIENCE: u32 = 3;

/// What became of a session's parts so far.
#[derive(Default)]
struct Standing {
    unlocked: bool,
    wrong: u32,
    /// Data of a command that comes in parts.
    written: String,
}

impl IecMeter {
    /// Serves commands until a break, a silence or too many wrong passwords.
    pub(super) async fn programming(&mut self) -> io::Result<()> {
        self.control.state().sessions += 1;
        self.ended = false;
        self.decoder.expect_no_options(true);
        sleep(self.options.reaction).await;
        self.answer_with(Message::Command(Command::new('P', '0', "()"))).await?;
        let mut standing = Standing::default();
        let limit = self.options.session_timeout;
        loop {
            let Ok(message) = timeout(limit, self.message()).await else {
                self.control.state().timeouts += 1;
                return self.send(&Message::Command(Command::BREAK)).await;
            };
            let command = match message? {
                Message::Command(command) => command,
                Message::Repeat => {
                    self.control.state().repeats += 1;
                    sleep(self.options.reaction).await;
                    if let Some(last) = self.last.clone() {
                        self.answer_with(last).await?;
                    }
                    continue;
                }
                _ => continue,
            };
            if command.letter == 'B' {
                self.control.state().breaks += 1;
                return Ok(());
            }
            sleep(self.options.reaction).await;
            self.obey(&command, &mut standing).await?;
            if self.ended {
                return Ok(());
            }
            if standing.wrong >= PATIENCE {
                return self.send(&Message::Command(Command::BREAK)).await;
            }
        }
    }

    async fn obey(&mut self, command: &Command, standing: &mut Standing) -> io::Result<()> {
        let text = String::from_utf8_lossy(command.data.as_deref().unwrap_or_default()).into_owned();
        let (id, arguments) = text.split_at(text.find('(').unwrap_or(text.len()));
        if command.letter != 'P' {
            self.control.state().commands += 1;
        }
        match (command.letter, command.number) {
            ('P', '1') => {
                self.control.state().passwords += 1;
                standing.unlocked = text == format!("({})", self.options.password);
                if standing.unlocked {
                    return self.answer_with(Message::Acknowledge).await;
                }
                standing.wrong += 1;
                self.refuse("ER06").await
            }
            ('R', _) if self.options.guarded && !standing.unlocked => self.refuse("ER07").await,
            ('R', '5') if id == "P.01" => {
                let lines = recorded::profile(arguments, clock::now());
                self.answer_with(Message::Block(joined(&lines))).await
            }
            ('R', '6') if id == "P.01" => self.parts(arguments).await,
            ('R', '5') if id == "P.98" => {
                let lines = recorded::events(arguments, clock::now());
                self.answer_with(Message::Block(joined(&lines))).await
            }
            ('R', '1'..='6') => match self.register(id) {
                Some(line) => self.answer_with(Message::Block(line)).await,
                None => self.refuse("ER01").await,
            },
            ('W' | 'E', _) if standing.unlocked => {
                standing.written += &text;
                if !command.more {
                    let written = std::mem::take(&mut standing.written);
                    self.control.state().written.push(written);
                }
                self.answer_with(Message::Acknowledge).await
            }
            _ => self.answer_with(Message::Repeat).await,
        }
    }

    async fn refuse(&mut self, error: &str) -> io::Result<()> {
        self.answer_with(Message::Block(format!("({error})").into_bytes())).await
    }

    /// The line of a register, as the readout has it.
    fn register(&mut self, id: &str) -> Option<Vec<u8>> {
        let state = self.control.state();
        let lines = state.registers.lines(&self.options.address, &clock::now().to_string());
        let line = lines.into_iter().find(|line| line.iter().any(|set| set.id == id))?;
        let mut body = Vec::new();
        data::encode(&[line], &mut body);
        body.strip_suffix(b"\r\n!\r\n").map(<[u8]>::to_vec)
    }

    /// Sends a profile in parts, each after the acknowledgement of the one before.
    async fn parts(&mut self, arguments: &str) -> io::Result<()> {
        let lines = recorded::profile(arguments, clock::now());
        let mut parts = lines.chunks(recorded::rows_per_part(arguments)).peekable();
        if parts.peek().is_none() {
            return self.answer_with(Message::Block(Vec::new())).await;
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return self.answer_with(Message::Block(joined(part))).await;
            }
            self.answer_with(Message::Part(joined(part))).await?;
            loop {
                let Ok(answer) = timeout(self.options.session_timeout, self.message()).await else { return Ok(()) };
                match answer? {
                    Message::Acknowledge => break,
                    Message::Repeat => {
                        self.control.state().repeats += 1;
                        sleep(self.options.reaction).await;
                        self.answer_with(Message::Part(joined(part))).await?;
                    }
                    Message::Command(command) if command.letter == 'B' => {
                        self.control.state().breaks += 1;
                        self.ended = true;
                        return Ok(());
                    }
                    _ => {}
                }
            }
            sleep(self.options.reaction).await;
        }
        Ok(())
    }

    /// Sends an answer with the faults of the moment and keeps it for a repeat request.
    async fn answer_with(&mut self, message: Message) -> io::Result<()> {
        let (lost, doubled, damaged) = {
            let mut state = self.control.state();
            let faults = &mut state.faults;
            let now = (faults.lost_answers > 0, faults.doubled_answers > 0, faults.bad_checksums > 0);
            faults.lost_answers = faults.lost_answers.saturating_sub(1);
            faults.doubled_answers = faults.doubled_answers.saturating_sub(1);
            if matches!(message, Message::Block(_) | Message::Part(_)) {
                faults.bad_checksums = faults.bad_checksums.saturating_sub(1);
            }
            now
        };
        self.last = Some(message.clone());
        if lost {
            return Ok(());
        }
        if damaged && let Message::Block(body) | Message::Part(body) = &message {
            let mut bytes = Vec::new();
            super::encode(&message, &mut bytes);
            if let Some(character) = bytes.get_mut(body.len() / 2 + 1) {
                *character ^= 1;
            }
            self.options.parity.apply(&mut bytes);
            return self.send_raw(bytes).await;
        }
        self.send(&message).await?;
        if doubled { self.send(&message).await } else { Ok(()) }
    }
}

fn joined(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect::<String>().into_bytes()
}
