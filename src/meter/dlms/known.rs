//! What is known of a meter: its objects, their classes, scalers and units. Read once, and again when it may have changed.
//!
//! The list of objects is kept over a restart with the name of the firmware it was read from; that name is asked for
//! once a day, and when an object is not what the list says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::object::{CANDIDATES, Objects, Scaler, Target, scaler_attribute, shown};
use super::service::{Answer, Services};
use crate::meter::{Kept, MeterError};
use crate::wire::dlms::{AttributeDescriptor, DataAccessResult, LogicalName};

/// The association that is in use, whatever its own name.
const ASSOCIATION: AttributeDescriptor = AttributeDescriptor::new(15, LogicalName::new(0, 0, 40, 0, 0, 255), 2);
/// The active firmware's identifier and the logical device name.
const IDENTITY: [AttributeDescriptor; 2] = [
    AttributeDescriptor::new(1, LogicalName::new(1, 0, 0, 2, 0, 255), 2),
    AttributeDescriptor::new(1, LogicalName::new(0, 0, 42, 0, 0, 255), 2),
];
/// How long what is known is believed without asking for the firmware again.
const BELIEVED: Duration = Duration::from_hours(24);
/// An object that is not what the list says makes it asked for no more often than this.
const DOUBTED: Duration = Duration::from_hours(1);

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
    /// Classes that were found by trying; `None` for an object that is of no class that was tried.
    tried: BTreeMap<[u8; 6], Option<u16>>,
    scalers: BTreeMap<(u16, [u8; 6]), Scaler>,
    /// Registers whose scaler the meter refuses.
    unscaled: BTreeSet<(u16, [u8; 6])>,
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
            tried: BTreeMap::new(),
            scalers: BTreeMap::new(),
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

    /// Reads the list of objects, unless it is known and the firmware is still the same.
    ///
    /// # Errors
    /// When the line fails or an answer can't be believed; a meter that does not show its list is none.
    pub(super) async fn refresh(&mut self, services: &mut Services<'_>) -> Result<(), MeterError> {
        if self.checked.is_some_and(|at| at.elapsed() < BELIEVED) {
            return Ok(());
        }
        self.load().await;
        let (answers, outcome) = services.get_all(&IDENTITY).await;
        outcome?;
        let text = |answer: &Answer| answer.as_ref().ok().and_then(|c| shown(&c.data())).unwrap_or_default();
        let firmware = answers.iter().map(text).collect::<Vec<_>>().join(" ");
        self.scalers.clear();
        self.unscaled.clear();
        self.tried.clear();
        if self.objects.is_none() || firmware != self.firmware {
            self.read_list(services, firmware).await?;
        }
        self.checked = Some(Instant::now());
        Ok(())
    }

    async fn read_list(&mut self, services: &mut Services<'_>, firmware: String) -> Result<(), MeterError> {
        self.objects = match services.short_objects().await? {
            Some(objects) => Some(Objects::bare(objects)),
            None => services.get(ASSOCIATION).await?.ok().and_then(|list| Objects::of(&list.data())),
        };
        self.firmware = firmware;
        let Some(objects) = &self.objects else {
            debug!(meter = %self.meter, "the meter does not show a list of its objects; classes are found by trying");
            return Ok(());
        };
        info!(meter = %self.meter, objects = objects.len(), firmware = %self.firmware, "the list of the meter's objects was read");
        if let Some(kept) = &self.kept
            && let Err(error) = kept.store(&self.file, objects.keep(&self.firmware)).await
        {
            warn!(meter = %self.meter, %error, "the list of the meter's objects can't be kept; it is read again after a restart");
        }
        Ok(())
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
        let mut found = None;
        for class in CANDIDATES {
            let attribute = AttributeDescriptor::new(*class, target.name, 1);
            match services.get(attribute).await? {
                Ok(_) => found = Some(*class),
                Err(DataAccessResult::ReadWriteDenied | DataAccessResult::ObjectUnavailable) => found = Some(*class),
                Err(_) => continue,
            }
            break;
        }
        self.tried.insert(name, found);
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
        let mut unknown: Vec<AttributeDescriptor> = Vec::new();
        for attribute in attributes {
            let Some(number) = scaler_attribute(attribute.class_id, attribute.attribute_id) else { continue };
            let scaler = AttributeDescriptor { attribute_id: number, ..attribute };
            let key = key(&attribute);
            if !self.scalers.contains_key(&key) && !self.unscaled.contains(&key) && !unknown.contains(&scaler) {
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

    /// The scaler of an attribute: [`Scaler::PLAIN`] when it has none, `None` when it has one that is not known.
    pub(super) fn scaler(&self, attribute: &AttributeDescriptor) -> Option<Scaler> {
        match scaler_attribute(attribute.class_id, attribute.attribute_id) {
            None => Some(Scaler::PLAIN),
            Some(_) => self.scalers.get(&key(attribute)).copied(),
        }
    }
}

const fn key(attribute: &AttributeDescriptor) -> (u16, [u8; 6]) {
    (attribute.class_id, *attribute.instance_id.as_bytes())
}
