//! One reading: what was got of it so far, and what is left to ask for.
//!
//! Invariants: a value that was got stays, whatever happens to the rest; an object that spoilt an association is not
//! asked again in the same reading; a reading that ended early is taken up by the next one where it stopped; in each association
//! the first answers tell whether it is still the same meter, and nothing is kept of another one.

use super::object::Target;
use super::service::{Answer, Services, damage};
use super::session::Client;
use crate::meter::MeterError;
use crate::model::{Quality, Value};
use crate::os::line::Line;
use crate::wire::dlms::AttributeDescriptor;

/// So often a reading tries to have the list of objects.
const LISTINGS: u32 = 2;
/// The most attributes that are asked for in a row before the time is looked at.
const ROW: usize = 16;

/// A value to read.
struct Item {
    name: String,
    target: Target,
    place: Place,
    got: Option<Result<Answer, Quality>>,
    /// What was got, with the scaler that was known then.
    shown: Option<Value>,
}

/// Where a value is in the meter.
#[derive(Clone, Copy)]
enum Place {
    /// The class of its object is not known yet.
    Unknown,
    /// The meter has no such object.
    Nowhere,
    At(AttributeDescriptor),
}

/// What is got and what is left.
#[derive(Default)]
pub(super) struct Reading {
    items: Vec<Item>,
    begun: bool,
    /// It was begun anew, because it is another meter.
    other: bool,
    /// Asking who the meter is ended an association.
    unmarked: bool,
    /// How often the list of the meter's objects could not be had now.
    unlisted: u32,
    /// One by one: an answer to several did not come.
    careful: bool,
    /// How many of the answers that come first tell who the meter is.
    marks: usize,
    /// What is being asked for, and the answers so far.
    asked: Vec<usize>,
    coming: Vec<Answer>,
    /// Where the last reading stopped.
    first: usize,
    /// The item at which a connection ended.
    spoilt: Option<usize>,
}

impl Reading {
    /// A reading that begins where the last one stopped.
    pub(super) fn from(first: usize) -> Self {
        Self { first, ..Self::default() }
    }

    /// It is another meter than before: nothing of it is believed, and all is asked anew.
    fn restart(&mut self) {
        *self = Self { careful: self.careful, unmarked: self.unmarked, other: true, ..Self::default() };
    }

    /// Takes the answers that tell who the meter is.
    fn take_marks(&mut self) -> Vec<Answer> {
        let marks = std::mem::take(&mut self.marks);
        self.coming.drain(..marks.min(self.coming.len())).collect()
    }

    /// Takes the answers that came to what was asked for; gives what stayed without one.
    fn settle(&mut self) -> Vec<usize> {
        if std::mem::take(&mut self.marks) > 0 {
            // Nobody looked whose they are.
            self.coming.clear();
        }
        let mut asked = std::mem::take(&mut self.asked).into_iter();
        // In this order: a question without an answer is not taken.
        for (answer, index) in self.coming.drain(..).zip(asked.by_ref()) {
            if let Some(item) = self.items.get_mut(index) {
                item.got = Some(Ok(answer));
            }
        }
        asked.collect()
    }

    /// What is left, in the order in which it is asked for.
    fn left(&self) -> impl Iterator<Item = (usize, &Item)> {
        let count = self.items.len();
        let first = if self.first < count { self.first } else { 0 };
        let order = (first..count).chain(0..first);
        order.filter_map(|index| self.items.get(index).map(|item| (index, item))).filter(|(_, item)| item.got.is_none())
    }

    /// Whether it is known what there is to read.
    pub(super) const fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether anything was got of it.
    pub(super) fn has_any(&self) -> bool {
        self.items.iter().any(|item| matches!(item.got, Some(Ok(_))))
    }

    /// Whether something is left that another association may give.
    pub(super) fn goes_on(&mut self) -> bool {
        !self.begun || self.stopped_at().is_some()
    }

    /// Where it must go on, when something is left.
    pub(super) fn stopped_at(&mut self) -> Option<usize> {
        self.settle();
        self.left().next().map(|(index, _)| index)
    }

    /// An item whose asking ended in an error; one at which a connection was lost is asked once more.
    fn spoil(&mut self, index: usize, error: &MeterError, lost: bool) {
        if lost && self.spoilt != Some(index) {
            self.spoilt = Some(index);
        } else if let Some(item) = self.items.get_mut(index) {
            item.got = Some(Err(error.quality()));
        }
    }
}

impl Client {
    /// Reads what is left, in an association that is open.
    ///
    /// # Errors
    /// What the line or the meter said; what was read before it is kept, and the rest may be read in another association.
    pub(super) async fn gather(&mut self, line: &mut Line, reading: &mut Reading) -> Result<(), MeterError> {
        self.known.begin();
        self.find(line, reading).await?;
        loop {
            let row = if reading.careful { 1 } else { ROW };
            let place = |(index, item): (usize, &Item)| match item.place {
                Place::At(attribute) => Some((index, attribute)),
                Place::Unknown | Place::Nowhere => None,
            };
            let (asked, attributes): (Vec<_>, Vec<_>) = reading.left().filter_map(place).take(row).unzip();
            if asked.is_empty() {
                return Ok(());
            }
            let mut services = Services::new(&mut self.association, line, &mut self.talk);
            if let Err(error) = self.known.learn_scalers(&mut services, attributes.iter().copied()).await {
                if let [index] = *asked {
                    reading.spoil(index, &error, self.lost(&error));
                }
                reading.careful = true;
                return Err(error);
            }
            let marks = self.known.marks();
            let all = [&marks[..], &attributes].concat();
            let together = !reading.careful && services.asks_together(&all);
            if !together && !marks.is_empty() {
                let mut marked = Vec::with_capacity(marks.len());
                for mark in marks.iter().copied() {
                    match services.get(mark).await {
                        Ok(answer) => marked.push(answer),
                        Err(error) => {
                            // Once it may be the line; a meter that is spoilt by the question is not asked again soon.
                            if std::mem::replace(&mut reading.unmarked, true) {
                                self.known.keep_quiet();
                            }
                            return Err(error);
                        }
                    }
                }
                if self.is_another(line, reading, &marked)? {
                    self.find(line, reading).await?;
                }
                continue;
            }
            reading.asked = asked;
            reading.marks = marks.len();
            let outcome = services.get_each(&all, &mut reading.coming).await;
            let marked = reading.take_marks();
            if marked.len() == marks.len() && self.is_another(line, reading, &marked)? {
                outcome?;
                self.find(line, reading).await?;
                continue;
            }
            let rest = reading.settle();
            self.show(reading);
            if let Err(error) = outcome {
                match rest.first() {
                    Some(index) if !together => reading.spoil(*index, &error, self.lost(&error)),
                    _ => reading.careful = true,
                }
                return Err(error);
            }
        }
    }

    /// Looks whether it is still the same meter; when it is not, the reading begins anew, and that is told.
    fn is_another(&mut self, line: &mut Line, reading: &mut Reading, marked: &[Answer]) -> Result<bool, MeterError> {
        if !self.known.recognise(marked) {
            return Ok(false);
        }
        Services::new(&mut self.association, line, &mut self.talk).forget();
        if let Some(plan) = &mut self.plan {
            plan.forget();
        }
        if reading.other {
            reading.restart();
            return Err(damage("the meter's name or serial number is another one with every answer"));
        }
        reading.restart();
        Ok(true)
    }

    /// Finds out what is to be read, and the class of each.
    async fn find(&mut self, line: &mut Line, reading: &mut Reading) -> Result<(), MeterError> {
        let mut services = Services::new(&mut self.association, line, &mut self.talk);
        let listless = self.wanted.is_empty() || self.wanted.iter().any(|(_, target)| target.class.is_none());
        if listless && reading.unlisted < LISTINGS && !reading.begun {
            // A list that spoils the association again is not asked for once more.
            reading.unlisted += 1;
            self.known.refresh(&mut services).await?;
            reading.unlisted = LISTINGS;
        }
        if !std::mem::replace(&mut reading.begun, true) {
            let all: Vec<(String, Target)> = match self.wanted.is_empty() {
                true => self.everything().into_iter().map(|target| (target.to_string(), target)).collect(),
                false => self.wanted.clone(),
            };
            if self.wanted.is_empty() && (self.known.objects().is_some() || self.seen.is_empty()) {
                self.seen = all.iter().map(|(name, _)| name.clone()).collect();
            }
            let item = |(name, target)| Item { name, target, place: Place::Unknown, got: None, shown: None };
            reading.items = all.into_iter().map(item).collect();
        }
        for index in 0..reading.items.len() {
            let Some(item) = reading.items.get_mut(index) else { break };
            if item.got.is_some() || !matches!(item.place, Place::Unknown) {
                continue;
            }
            let mut services = Services::new(&mut self.association, line, &mut self.talk);
            match self.known.class(&mut services, &item.target).await {
                Ok(Some(class)) => item.place = Place::At(item.target.of_class(class)),
                Ok(None) => (item.place, item.got) = (Place::Nowhere, Some(Err(Quality::Refused))),
                Err(error) => {
                    let lost = self.lost(&error);
                    reading.spoil(index, &error, lost);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Scales what came: in another association the scalers may not be known any more.
    fn show(&self, reading: &mut Reading) {
        for item in reading.items.iter_mut().filter(|item| item.shown.is_none()) {
            if let (Some(Ok(Ok(content))), Place::At(attribute)) = (&item.got, item.place) {
                item.shown = Some(self.value(item.name.clone(), &attribute, &content.data()));
            }
        }
    }

    /// What was read as values, scaled; what has no answer gets this quality.
    pub(super) fn values(&mut self, reading: Reading, rest: Quality) -> Vec<Value> {
        let null = |name, quality| Value { name, value: None, unit: String::new(), quality };
        let mut values = Vec::with_capacity(reading.items.len());
        for item in reading.items {
            if let Some(value) = item.shown {
                values.push(value);
                continue;
            }
            values.push(match (item.got, item.place) {
                (Some(Ok(Ok(content))), Place::At(attribute)) => self.value(item.name, &attribute, &content.data()),
                (Some(Ok(Err(refusal))), _) => {
                    self.known.doubt(refusal);
                    null(item.name, super::service::quality(refusal))
                }
                (Some(Err(quality)), _) => null(item.name, quality),
                _ => null(item.name, rest),
            });
        }
        values
    }
}
