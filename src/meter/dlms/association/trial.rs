//! Opens an association without showing a meter a wrong password or key more often than it bears.
//!
//! What the meter refuses clearly is shown once, what it leaves without a clear answer twice in a row; then it is left
//! alone ([`super::memory`]). An answer that has nothing to do with the password or key is not counted.

use tracing::warn;

use super::material::{Mark, Material, unasked};
use super::memory::Barred;
use super::{Association, JUMPS, Stumble};
use crate::meter::MeterError;
use crate::os::clock;
use crate::os::line::Line;
use crate::wire::dlms::protect::SystemTitle;

/// Under which title an association is opened.
struct Named {
    title: SystemTitle,
    mark: Mark,
    /// No counter of this title and key was ever used here.
    fresh: bool,
}

impl Association {
    /// Opens link and association.
    ///
    /// # Errors
    /// When a key's file is missing, the meter does not answer, or it refuses this client
    /// ([`MeterError::Refused`]); the link is closed then.
    pub(in crate::meter::dlms) async fn open(&mut self, line: &mut Line) -> Result<(), MeterError> {
        self.agreed = None;
        self.held = true;
        self.memory.load().await?;
        let material = Material::read(&self.settings, &self.dlms)?;
        let Named { title, mark, fresh } = self.named(&material).await?;
        let shown = material.secret_mark(&self.memory.title(), &self.settings, &self.dlms);
        if let Some(barred) = self.memory.bars(shown, clock::now()) {
            return Err(MeterError::Refused(words(&barred)));
        }
        self.held = false;
        if fresh {
            self.first_counter(line, mark).await?;
        }
        if material.keys.is_some() {
            self.memory.note_used(mark).await?;
        }
        self.showing = Some(shown);
        let mut material = Some(material);
        for jump in 0..=JUMPS {
            let now = match material.take() {
                Some(material) => material,
                None => Material::read(&self.settings, &self.dlms)?,
            };
            let stumble = match self.attempt(line, now, title, mark).await {
                Ok(agreed) => {
                    self.agreed = Some(agreed);
                    return if self.has_shown() { self.memory.welcome(shown).await } else { Ok(()) };
                }
                Err(stumble) => stumble,
            };
            self.link.close(line).await;
            let next = match stumble {
                Stumble::Counter(expected) if jump < JUMPS => self.jump(line, mark, expected, jump).await,
                Stumble::Undeciphered { why, clear } => {
                    self.catch_up(line, mark, jump).await.map_err(|lost| lost.unwrap_or_else(|| doubt(why, clear)))
                }
                other => Err(other),
            };
            if let Err(stumble) = next {
                return Err(self.give_up(shown, stumble).await);
            }
        }
        Err(self.give_up(shown, Stumble::Counter(None)).await)
    }

    /// Whether the password or key was shown since it was begun to open the association.
    pub(super) const fn has_shown(&self) -> bool {
        self.showing.is_none()
    }

    /// Counts that the password or key is shown now, once for each opening.
    ///
    /// # Errors
    /// When it can't be stored; it must not be shown then.
    pub(super) async fn show(&mut self) -> Result<(), MeterError> {
        match self.showing {
            Some(mark) => {
                self.memory.count(mark, clock::now()).await?;
                self.showing = None;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A fault behind the showing may be a meter's way to refuse a password.
    pub(super) fn suspect(&self, stumble: Stumble) -> Stumble {
        match stumble {
            Stumble::Final(MeterError::Unasked(_) | MeterError::Order(_)) => stumble,
            Stumble::Final(error) if self.has_shown() => Stumble::Unclear(error),
            other => other,
        }
    }

    /// The title, and whether counters were used with it; one whose counters are lost is given up.
    async fn named(&mut self, material: &Material) -> Result<Named, MeterError> {
        let title = self.title.unwrap_or_else(|| self.memory.title());
        let mark = material.counter_mark(title);
        if material.keys.is_none() || self.memory.counters.look(mark).await? {
            return Ok(Named { title, mark, fresh: false });
        }
        if self.title.is_some() || !self.memory.has_used(mark) {
            return Ok(Named { title, mark, fresh: true });
        }
        warn!(meter = %*self.settings.name, "the kept invocation counter is lost; a new system title is taken");
        self.memory.renew_title().await?;
        let title = self.memory.title();
        Ok(Named { title, mark: material.counter_mark(title), fresh: true })
    }

    /// Goes on with the counter that the public client reads, if ours is behind it: some meters can't decipher then.
    /// `Err(None)` when it is not.
    async fn catch_up(&mut self, line: &mut Line, mark: Mark, jump: u32) -> Result<(), Option<Stumble>> {
        if jump > 0 {
            return Err(None);
        }
        // A meter that could not decipher is not asked again at once, whatever the line does then.
        let newer = self.read_counter(line).await.map_err(|error| match error.must_reopen() {
            true => Some(Stumble::Unclear(MeterError::HungUp(error.to_string()))),
            false => Some(Stumble::Unclear(error)),
        })?;
        let Some(newer) = newer.filter(|counter| self.memory.counters.is_behind(mark, *counter)) else {
            return Err(None);
        };
        self.jump(line, mark, newer.checked_add(1), jump).await.map_err(Some)
    }

    /// Remembers how the attempt ended, and says it.
    async fn give_up(&mut self, shown: Mark, stumble: Stumble) -> MeterError {
        let told = match stumble {
            Stumble::Final(error) => match self.has_shown() {
                true => self.memory.uncount(shown).await.map(|()| error),
                false => Ok(error),
            },
            Stumble::Unclear(error) => Ok(self.unclear(shown, error)),
            Stumble::Counter(_) => {
                let message = "every invocation counter is stale to it, also the one that it asks for";
                Ok(self.unclear(shown, MeterError::Refused(message.to_owned())))
            }
            Stumble::Secret(why) | Stumble::Undeciphered { why, .. } => self.refused(shown, why).await,
        };
        told.unwrap_or_else(|error| error)
    }

    /// Remembers that a secret was refused, and says so.
    async fn refused(&mut self, shown: Mark, why: String) -> Result<MeterError, MeterError> {
        warn!(meter = %*self.settings.name, why, "the meter refused the password or key; it is not tried again for a day");
        self.memory.refuse(shown, clock::now()).await?;
        Ok(MeterError::Refused(format!("{why}; it is not tried again until its file changes or a day passed")))
    }

    /// What the meter did when it was shown the password or key may have been its refusal.
    fn unclear(&mut self, shown: Mark, error: MeterError) -> MeterError {
        if !self.has_shown() || self.memory.may_be_chance(shown) {
            return error;
        }
        self.held = true;
        // Whoever asks at once again shows it once more.
        let held = |why: String, error: &MeterError| {
            if error.must_reopen() { MeterError::HungUp(why) } else { MeterError::Refused(why) }
        };
        match self.memory.bars(shown, clock::now()) {
            Some(barred) => {
                let meter = self.settings.name.as_str();
                warn!(meter, tries = barred.tries, %error, "the meter gives no clear answer to the password or key");
                held(format!("{}; the last time: {error}", words(&barred)), &error)
            }
            None if error.must_reopen() && !error.is_silence() => held(error.to_string(), &error),
            None => error,
        }
    }

    /// Begins the counters of a title that the settings name, where nothing tells how far they were used.
    ///
    /// # Errors
    /// When counters are kept already, or can't be stored.
    pub(in crate::meter::dlms) async fn begin_counter(&mut self, first: u32) -> Result<(), MeterError> {
        self.memory.load().await?;
        let material = Material::read(&self.settings, &self.dlms)?;
        if material.keys.is_none() {
            return Err(MeterError::Order("this client has no key whose counter could be set".to_owned()));
        }
        let Named { mark, fresh, .. } = self.named(&material).await?;
        if !fresh {
            let message = "an invocation counter is kept for this system title and key already; it is never set back";
            return Err(MeterError::Order(message.to_owned()));
        }
        if !self.memory.counters.raise(mark, first) {
            return Err(unasked("the invocation counter is near its end; give the meter a new key".to_owned()));
        }
        self.memory.note_used(mark).await?;
        self.memory.counters.take(mark).await.map(|_| ())
    }
}

/// A refusal of a key, or what only may be one.
fn doubt(why: String, clear: bool) -> Stumble {
    if clear { Stumble::Secret(why) } else { Stumble::Unclear(MeterError::Refused(why)) }
}

fn words(barred: &Barred) -> String {
    let Barred { until, tries } = barred;
    let why = match tries {
        0 => "its password or key is wrong".to_owned(),
        tries => format!("it gave no clear answer to its password or key {tries} times, as some do when it is wrong"),
    };
    format!(
        "{why}; it is not sent again before {until} unless its file or the settings change, so that the meter does not \
         lock itself"
    )
}
