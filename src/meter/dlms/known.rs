//! What is known of a meter: its objects, their classes, scalers and units. Read once, and again when it may have changed.
//!
//! Invariants: what is known is of the meter whose name and serial number these are: they are read along with every
//! reading, and with other ones nothing is known. A scaler that the meter refuses, and whatever it refuses for now, is asked
//! for again at the next reading. The list of objects is kept over a restart with the name of the firmware
//! it was read from; that name is asked for once a day, and when an object is not what the list says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::object::{CANDIDATES, Objects, Scaler, Scales, Target, scales, shown, watches};
use super::service::{Answer, Content, Services};
use crate::meter::{Kept, MeterError};
use crate::wire::dlms::{AttributeDescriptor, Data, DataAccessResult, LogicalName};

/// The association that is in use, whatever its own name.
const ASSOCIATION: AttributeDescriptor = AttributeDescriptor::new(15, LogicalName::new(0, 0, 40, 0, 0, 255), 2);
/// The active firmware's identifier.
const FIRMWARE: AttributeDescriptor = AttributeDescriptor::new(1, LogicalName::new(1, 0, 0, 2, 0, 255), 2);
/// What tells one meter from another: the logical device name and the serial number.
const MARKS: [AttributeDescriptor; 2] = [
    AttributeDescriptor::new(1, LogicalName::new(0, 0, 42, 0, 0, 255), 2),
    AttributeDescriptor::new(1, LogicalName::new(0, 0, 96, 1, 0, 255), 2),
];
/// How long what is known is believed without asking for the firmware again.
const BELIEVED: Duration = Duration::from_hours(24);
/// How long scalers are believed of a meter that says who it is: somebody may set it up anew.
const SCALED: Duration = Duration::from_hours(1);
/// An object that is not what the list says makes it asked for no more often than this.
const DOUBTED: Duration = Duration::from_hours(1);

type Key = (u16, [u8; 6]);

/// What is known of one meter.
pub(super) struct Known {
    meter: String,
    file: String,
    kept: Option<Kept>,
    loaded: bool,
    objects: Option<Objects>,
    firmware: String,
    checked: Option<Instant>,
    doubted: Option<Instant>,
    /// Who the meter is, of [`MARKS`] what it tells.
    marks: Vec<(AttributeDescriptor, Content)>,
    /// That was looked at in this association.
    met: bool,
    /// When asking who it is spoilt an association.
    shy: Option<Instant>,
    /// Classes that were found by trying; `None` for an object that is of no class that was tried.
    tried: BTreeMap<[u8; 6], Option<u16>>,
    scalers: BTreeMap<Key, Scaler>,
    scaled: Option<Instant>,
    /// Registers whose scaler the meter refuses in this association.
    unscaled: BTreeSet<Key>,
}

impl Known {
    /// Knows nothing; what one client sees of one logical device is kept under a name of its own.
    pub(super) fn new(meter: &str, client: u32, server: u32) -> Self {
        Self {
            meter: meter.to_owned(),
            file: format!("dlms-objects {meter} {client} {server}"),
            kept: None,
            loaded: false,
            objects: None,
            firmware: String::new(),
            checked: None,
            doubted: None,
            marks: Vec::new(),
            met: false,
            shy: None,
            tried: BTreeMap::new(),
            scalers: BTreeMap::new(),
            scaled: None,
            unscaled: BTreeSet::new(),
        }
    }

    /// Where the list outlives a restart.
    pub(super) fn keep_in(&mut self, kept: Kept) {
        self.kept = Some(kept);
    }

    /// Where things outlive a restart, if anywhere.
    pub(super) const fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The objects, when the meter shows them.
    pub(super) const fn objects(&self) -> Option<&Objects> {
        self.objects.as_ref()
    }

    /// An association has begun: what can't be believed over its end is forgotten.
    pub(super) fn begin(&mut self) {
        self.met = false;
        self.unscaled.clear();
        let unknown = self.marks.is_empty() || self.is_shy();
        if unknown || self.scaled.is_none_or(|at| at.elapsed() >= SCALED) {
            self.scalers.clear();
            self.scaled = Some(Instant::now());
        }
        if unknown {
            self.tried.clear();
        }
        // What they watch may be set.
        self.scalers.retain(|(class, _), _| !watches(*class));
    }

    /// What to ask for along with values, for [`recognise`](Self::recognise); nothing when that was done already.
    pub(super) fn marks(&self) -> Vec<AttributeDescriptor> {
        match &self.marks[..] {
            _ if self.met || self.is_shy() => Vec::new(),
            [] => MARKS.to_vec(),
            known => known.iter().map(|(mark, _)| *mark).collect(),
        }
    }

    /// Takes the answers to what [`marks`](Self::marks) asked for. Whether it is another meter than before: then
    /// nothing is known any more, and what was asked for along with them is to be asked again.
    pub(super) fn recognise(&mut self, answers: &[Answer]) -> bool {
        let asked = self.marks();
        if asked.is_empty() {
            return false;
        }
        let tells = |(mark, answer): (&AttributeDescriptor, &Answer)| {
            let content = answer.as_ref().ok().filter(|content| !matches!(content.data(), Data::Null))?;
            Some((*mark, content.clone()))
        };
        let marks: Vec<_> = asked.iter().zip(answers).filter_map(tells).collect();
        // One that keeps a part of it back for now is still the same by the other part.
        let same = !marks.is_empty() && marks.iter().all(|mark| self.marks.contains(mark));
        let keeps_back = |answer: &Answer| answer.as_ref().is_err_and(|refusal| !is_lasting(*refusal));
        if marks.is_empty() && answers.iter().any(keeps_back) {
            // It tells nothing for now: it may be the same, but what could be wrong of another one is read anew.
            self.scalers.clear();
            self.unscaled.clear();
            self.met = true;
            return false;
        }
        let other = !self.marks.is_empty() && !same;
        if other {
            info!(meter = %self.meter, "the meter does not show the name and serial number that it had; what was known of it is read anew");
            self.forget();
        }
        if self.marks.is_empty() {
            self.marks = marks;
        }
        self.met = !other;
        other
    }

    fn is_shy(&self) -> bool {
        self.shy.is_some_and(|at| at.elapsed() < BELIEVED)
    }

    /// Takes that the meter did not answer who it is: it is not asked again for a day.
    pub(super) fn keep_quiet(&mut self) {
        self.shy = Some(Instant::now());
    }

    fn forget(&mut self) {
        self.objects = None;
        self.firmware.clear();
        (self.checked, self.doubted) = (None, None);
        self.tried.clear();
        self.scalers.clear();
        self.unscaled.clear();
        self.marks.clear();
    }

    /// Looks whether it is still the same meter, for what is done besides readings.
    ///
    /// # Errors
    /// When the line fails or an answer can't be believed.
    pub(super) async fn meet(&mut self, services: &mut Services<'_>) -> Result<(), MeterError> {
        self.begin();
        for _ in 0..2 {
            let (answers, outcome) = services.get_all(&self.marks()).await;
            outcome?;
            if !self.recognise(&answers) {
                break;
            }
            services.forget();
        }
        Ok(())
    }

    /// Reads the list of objects, unless it is known and the firmware is still the same.
    ///
    /// # Errors
    /// When the line fails or an answer can't be believed; a meter that does not show its list is none.
    pub(super) async fn refresh(&mut self, services: &mut Services<'_>) -> Result<(), MeterError> {
        if self.checked.is_some_and(|at| at.elapsed() < BELIEVED) {
            return Ok(());
        }
        self.load().await;
        let marks = self.marks();
        let (answers, outcome) = services.get_all(&[&[FIRMWARE][..], &marks].concat()).await;
        outcome?;
        if let Some(marks) = answers.get(1..)
            && self.recognise(marks)
        {
            services.forget();
        }
        let version = answers.first().and_then(|answer| Some(answer.as_ref().ok()?.clone()));
        let contents = version.iter().chain(self.marks.iter().map(|(_, content)| content));
        let firmware = contents.filter_map(|content| shown(&content.data())).collect::<Vec<_>>().join(" ");
        self.scalers.clear();
        self.unscaled.clear();
        self.tried.clear();
        let known = self.objects.is_some() && firmware == self.firmware;
        if known || self.read_list(services, firmware).await? {
            self.checked = Some(Instant::now());
        }
        Ok(())
    }

    /// Whether the meter's answer is one for longer than now.
    async fn read_list(&mut self, services: &mut Services<'_>, firmware: String) -> Result<bool, MeterError> {
        let mut refusal = None;
        self.objects = match services.short_objects().await? {
            Some(objects) => Some(Objects::bare(objects)),
            None => match services.get(ASSOCIATION).await? {
                Ok(list) => Objects::of(&list.data()),
                Err(why) => {
                    refusal = Some(why);
                    None
                }
            },
        };
        self.firmware = firmware;
        let Some(objects) = &self.objects else {
            debug!(meter = %self.meter, ?refusal, "the meter does not show a list of its objects; classes are found by trying");
            return Ok(refusal.is_none_or(is_lasting));
        };
        info!(meter = %self.meter, objects = objects.len(), firmware = %self.firmware, "the list of the meter's objects was read");
        if let Some(kept) = &self.kept
            && let Err(error) = kept.store(&self.file, objects.keep(&self.firmware)).await
        {
            warn!(meter = %self.meter, %error, "the list of the meter's objects can't be kept; it is read again after a restart");
        }
        Ok(true)
    }

    async fn load(&mut self) {
        if std::mem::replace(&mut self.loaded, true) {
            return;
        }
        let Some(kept) = &self.kept else { return };
        match kept.load(&self.file).await {
            Ok(Some(bytes)) => {
                if let Some((objects, firmware)) = Objects::kept(&bytes) {
                    (self.objects, self.firmware) = (Some(objects), firmware);
                }
            }
            Ok(None) => {}
            Err(error) => debug!(meter = %self.meter, %error, "the kept list of the meter's objects can't be read"),
        }
    }

    /// Takes that the meter refused an object that the list has: the list may be old.
    pub(super) fn doubt(&mut self, refusal: DataAccessResult) {
        let old = matches!(refusal, DataAccessResult::ObjectUndefined | DataAccessResult::ObjectClassInconsistent);
        if old && self.doubted.is_none_or(|at| at.elapsed() >= DOUBTED) {
            self.doubted = Some(Instant::now());
            self.checked = None;
            self.firmware.clear();
        }
    }

    /// The class of an object: told, by the list, or the first that the meter accepts; `None` when there is none.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(super) async fn class(
        &mut self,
        services: &mut Services<'_>,
        target: &Target,
    ) -> Result<Option<u16>, MeterError> {
        if target.class.is_some() {
            return Ok(target.class);
        }
        if let Some(object) = self.objects.as_ref().and_then(|objects| objects.find(target.name)) {
            return Ok(Some(object.class));
        }
        let name = *target.name.as_bytes();
        if let Some(class) = self.tried.get(&name) {
            return Ok(*class);
        }
        // The list does not have it, but lists of some clients are shorter than what they may read.
        let (mut found, mut lasting) = (None, true);
        for class in CANDIDATES {
            let attribute = AttributeDescriptor::new(*class, target.name, 1);
            match services.get(attribute).await? {
                Ok(_) => found = Some(*class),
                Err(DataAccessResult::ReadWriteDenied | DataAccessResult::ObjectUnavailable) => found = Some(*class),
                Err(refusal) => {
                    lasting &= is_lasting(refusal);
                    continue;
                }
            }
            break;
        }
        if found.is_some() || lasting {
            self.tried.insert(name, found);
        }
        Ok(found)
    }

    /// Reads the scalers of these attributes that are not known.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(super) async fn learn_scalers(
        &mut self,
        services: &mut Services<'_>,
        attributes: impl Iterator<Item = AttributeDescriptor>,
    ) -> Result<(), MeterError> {
        let (mut own, mut watching) = (Vec::new(), Vec::new());
        for attribute in attributes {
            match scales(attribute.class_id, attribute.attribute_id) {
                Scales::Plain => {}
                Scales::Own(_) => own.push(attribute),
                Scales::Watched(number) => {
                    let watch = AttributeDescriptor { attribute_id: number, ..attribute };
                    if self.is_unknown(&attribute) && !watching.contains(&watch) {
                        watching.push(watch);
                    }
                }
            }
        }
        let (answers, outcome) = services.get_all(&watching).await;
        outcome?;
        let watched = |answer: &Answer| answer.as_ref().ok().and_then(|content| reference(&content.data()));
        let watched: Vec<_> = watching.into_iter().zip(answers.iter().map(watched)).collect();
        own.extend(watched.iter().filter_map(|(_, target)| *target));
        self.learn_own(services, &own).await?;
        for (watch, target) in watched {
            match target.and_then(|target| self.scaler(&target)) {
                Some(scaler) => drop(self.scalers.insert(key(&watch), scaler)),
                None => drop(self.unscaled.insert(key(&watch))),
            }
        }
        Ok(())
    }

    async fn learn_own(
        &mut self,
        services: &mut Services<'_>,
        attributes: &[AttributeDescriptor],
    ) -> Result<(), MeterError> {
        let mut unknown: Vec<AttributeDescriptor> = Vec::new();
        for attribute in attributes {
            let Scales::Own(number) = scales(attribute.class_id, attribute.attribute_id) else { continue };
            let scaler = AttributeDescriptor { attribute_id: number, ..*attribute };
            if self.is_unknown(attribute) && !unknown.contains(&scaler) {
                unknown.push(scaler);
            }
        }
        let (answers, outcome) = services.get_all(&unknown).await;
        for (attribute, answer) in unknown.iter().zip(&answers) {
            match answer.as_ref().ok().and_then(|content| Scaler::of(&content.data())) {
                Some(scaler) => drop(self.scalers.insert(key(attribute), scaler)),
                None => drop(self.unscaled.insert(key(attribute))),
            }
        }
        outcome
    }

    fn is_unknown(&self, attribute: &AttributeDescriptor) -> bool {
        let key = key(attribute);
        !self.scalers.contains_key(&key) && !self.unscaled.contains(&key)
    }

    /// The scaler of an attribute: [`Scaler::PLAIN`] when it has none, `None` when it has one that is not known.
    pub(super) fn scaler(&self, attribute: &AttributeDescriptor) -> Option<Scaler> {
        match scales(attribute.class_id, attribute.attribute_id) {
            Scales::Plain => Some(Scaler::PLAIN),
            Scales::Own(_) | Scales::Watched(_) => self.scalers.get(&key(attribute)).copied(),
        }
    }
}

const fn key(attribute: &AttributeDescriptor) -> Key {
    (attribute.class_id, *attribute.instance_id.as_bytes())
}

/// Whether a refusal is one for longer than now.
const fn is_lasting(refusal: DataAccessResult) -> bool {
    matches!(
        refusal,
        DataAccessResult::ObjectUndefined
            | DataAccessResult::ObjectClassInconsistent
            | DataAccessResult::ReadWriteDenied
            | DataAccessResult::ScopeOfAccessViolated
            | DataAccessResult::TypeUnmatched
    )
}

/// The attribute that a value of class, name and number stands for.
fn reference(data: &Data<'_>) -> Option<AttributeDescriptor> {
    let fields = data.as_structure()?;
    let number = |n| fields.get(n).ok().and_then(|field: Data<'_>| field.as_i64());
    let name = fields.get(1).ok()?.as_obis()?;
    Some(AttributeDescriptor::new(number(0)?.try_into().ok()?, name, number(2)?.try_into().ok()?))
}
