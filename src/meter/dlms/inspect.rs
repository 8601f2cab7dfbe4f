//! `weir dlms`: one object with all its attributes explained, changed, or had done something with.

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::clock::Place;
use super::image::Image;
use super::object::{Object, Scales, Target, attribute_name, class_name, is_long, method_name, scales, value_word};
use super::rekey::Rekey;
use super::service::{Services, is_secret, words};
use super::session::{Client, QUICK};
use super::table;
use crate::meter::{InspectReply, Inspector, MeterError, WriteOutcome, Written};
use crate::model::{Quality, Value};
use crate::os::line::Line;
use crate::wire::dlms::{AttributeDescriptor, Data};

/// What is wanted of an object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// `[class/]id[:attribute]`, or "clock".
    object: String,
    /// A new value, as text.
    #[serde(default)]
    set: Option<String>,
    /// A method to call.
    #[serde(default)]
    action: Option<i8>,
    /// The method's parameter, `TYPE:VALUE`.
    #[serde(default)]
    parameter: Option<String>,
    /// Set the meter's clock to the gateway's time.
    #[serde(default)]
    set_clock: bool,
    /// Transfer an image of the meter's firmware.
    #[serde(default)]
    image: Option<Image>,
    /// Give the meter new keys, or another security policy.
    #[serde(default)]
    rekey: Option<Rekey>,
    /// The first invocation counter of a title whose counters are not known.
    #[serde(default)]
    first_counter: Option<u32>,
}

impl Client {
    async fn answer(&mut self, line: &mut Line, order: &Json) -> Result<Json, MeterError> {
        let order: Order = Order::deserialize(order).map_err(|error| MeterError::Order(error.to_string()))?;
        let object = if order.object == "clock" { "8/0-0:1.0.0*255" } else { &order.object };
        let target = Target::parse(object).map_err(MeterError::Order)?;
        if let Some(image) = &order.image {
            return self.transfer(line, &target, image).await;
        }
        if let Some(rekey) = &order.rekey {
            return self.rekey(line, &target, rekey).await;
        }
        if let Some(first) = order.first_counter {
            self.association.begin_counter(first).await?;
            let words = "the next association goes on behind this counter";
            return Ok(json!({ "object": target.name.to_string(), "outcome": "done", "words": words }));
        }
        if let Some(method) = order.action {
            let name = format!("{object}!{method}");
            let written = self.change(line, &name, order.parameter.as_deref().unwrap_or_default()).await?;
            return Ok(told(&target, &written));
        }
        if let Some(text) = &order.set {
            let written = self.change(line, object, text).await?;
            return Ok(told(&target, &written));
        }
        self.open(line).await?;
        let until = self.until();
        let work = async {
            if order.set_clock { self.set_clock(line, until).await } else { self.explain(line, &target).await }
        };
        let result = timeout_at(until, work).await;
        let advice = "raise it, or ask for one attribute only";
        let result = result.unwrap_or_else(|_| Err(self.overrun("it was not done", advice)));
        self.leave(line, result.as_ref().err()).await;
        result
    }

    async fn explain(&mut self, line: &mut Line, target: &Target) -> Result<Json, MeterError> {
        let (mut services, known) = self.open_services(line);
        known.meet(&mut services).await?;
        known.refresh(&mut services).await?;
        let class = known.class(&mut services, target).await?;
        let class = class
            .ok_or_else(|| MeterError::Refused(format!("it has no object {} that this client sees", target.name)))?;
        let listed = known.objects().and_then(|objects| objects.find(target.name)).filter(|o| o.class == class);
        let object = listed.cloned().unwrap_or_else(|| Object::bare(class, target.name));
        let of = |number| AttributeDescriptor::new(class, target.name, number);
        let numbers: Vec<i8> = match target.attribute {
            Some(number) if is_secret(of(number)) => {
                return Err(MeterError::Order("this attribute holds a password, which is never shown".to_owned()));
            }
            Some(number) => vec![number],
            None => object
                .attributes()
                .into_iter()
                .filter(|n| object.may_read(*n) && !is_long(class, *n) && !is_secret(of(*n)))
                .collect(),
        };
        known.learn_scalers(&mut services, numbers.iter().map(|number| of(*number))).await?;
        let mut attributes = Vec::with_capacity(numbers.len());
        for number in numbers {
            attributes.push(self.attribute(line, &object, of(number)).await?);
        }
        let method = |number: &i8| json!({ "number": number, "name": method_name(class, object.version, *number) });
        Ok(json!({
            "object": target.name.to_string(),
            "class": class,
            "class_name": class_name(class, object.version),
            "version": object.version,
            "attributes": attributes,
            "methods": object.methods().iter().map(method).collect::<Vec<_>>(),
        }))
    }

    async fn attribute(
        &mut self,
        line: &mut Line,
        object: &Object,
        attribute: AttributeDescriptor,
    ) -> Result<Json, MeterError> {
        let mut services = Services::new(&mut self.association, line, &mut self.talk);
        let answer = services.get(attribute).await?;
        let (class, number) = (attribute.class_id, attribute.attribute_id);
        let name = attribute_name(class, object.version, number);
        let content = match answer {
            Ok(content) => content,
            Err(refusal) => {
                let quality = super::service::quality(refusal).word();
                return Ok(
                    json!({ "number": number, "name": name, "value": null, "unit": "", "quality": quality, "words": words(refusal) }),
                );
            }
        };
        let data = content.data();
        let Value { value, unit, mut quality, .. } = self.value(String::new(), &attribute, &data);
        let value = match (number, data.as_obis()) {
            (1, Some(name)) => Some(name.to_string()),
            _ => value,
        };
        let words = match scaler_unit(class, number, &data) {
            Some(words) => words,
            None if (class, number) == (7, 3) => super::profile::captured(&data),
            None => data
                .as_i64()
                .or_else(|| data.as_bool().map(i64::from))
                .map_or("", |n| value_word(class, number, n))
                .to_owned(),
        };
        let heads = if (class, number) == (7, 2) { self.heads(line, attribute).await? } else { Vec::new() };
        let rows = table::of(class, number, &data, heads);
        if rows.is_some() {
            // A long table has no text of its own.
            quality = Quality::Good;
        }
        let mut told = json!({
            "number": number, "name": name, "value": value, "unit": unit, "quality": quality.word(),
            "type": type_name(&data), "words": words,
        });
        if let (Some(found), Some(told)) = (rows, told.as_object_mut()) {
            told.insert("columns".to_owned(), json!(found.columns));
            told.insert("rows".to_owned(), json!(found.rows));
            told.insert("further_rows".to_owned(), json!(found.more));
        }
        Ok(told)
    }

    /// The columns of a buffer; none when the meter does not tell them.
    async fn heads(&mut self, line: &mut Line, buffer: AttributeDescriptor) -> Result<Vec<table::Head>, MeterError> {
        let (mut services, known) = self.open_services(line);
        match services.get(AttributeDescriptor { attribute_id: 3, ..buffer }).await? {
            Ok(list) => super::profile::heads(&mut services, known, &list).await,
            Err(_) => Ok(Vec::new()),
        }
    }

    async fn set_clock(&mut self, line: &mut Line, until: Instant) -> Result<Json, MeterError> {
        let (mut services, known) = self.open_services(line);
        // Its profiles tell where their periods end.
        known.refresh(&mut services).await?;
        let profiles = self.profiles();
        let place = Place { east: self.east, profiles: &profiles, until: until - QUICK };
        let mut services = Services::new(&mut self.association, line, &mut self.talk);
        let (before, after) = self.watch.set_now(&mut services, &place).await?;
        Ok(
            json!({ "object": "0-0:1.0.0*255", "outcome": "done", "was_ahead_by_seconds": before, "is_ahead_by_seconds": after }),
        )
    }
}

/// What came of a write.
fn told(target: &Target, written: &Written) -> Json {
    let value = |v: &Value| json!({ "value": v.value, "unit": v.unit, "quality": v.quality.word() });
    let (outcome, why) = match &written.outcome {
        WriteOutcome::Done => ("done", ""),
        WriteOutcome::Refused(why) => ("refused", why.as_str()),
        WriteOutcome::Different => ("different", ""),
        WriteOutcome::Unverified => ("unverified", ""),
    };
    let object = target.name.to_string();
    json!({ "object": object, "outcome": outcome, "words": why, "before": value(&written.before), "now": value(&written.now) })
}

/// A scaler and unit in words.
fn scaler_unit(class: u16, number: i8, data: &Data<'_>) -> Option<String> {
    let is_scaler = scales(class, 2) == Scales::Own(number);
    let scaler = super::object::Scaler::of(data).filter(|_| is_scaler)?;
    Some(format!("times {} {}", scaler.factor(), scaler.unit()).trim_end().to_owned())
}

/// The standard's name of a value's type.
const fn type_name(data: &Data<'_>) -> &'static str {
    match data {
        Data::Null => "null-data",
        Data::Array(_) => "array",
        Data::Structure(_) => "structure",
        Data::Boolean(_) => "boolean",
        Data::BitString(_) => "bit-string",
        Data::DoubleLong(_) => "double-long",
        Data::DoubleLongUnsigned(_) => "double-long-unsigned",
        Data::OctetString(_) => "octet-string",
        Data::VisibleString(_) => "visible-string",
        Data::Utf8String(_) => "utf8-string",
        Data::Bcd(_) => "bcd",
        Data::Integer(_) => "integer",
        Data::Long(_) => "long",
        Data::Unsigned(_) => "unsigned",
        Data::LongUnsigned(_) => "long-unsigned",
        Data::CompactArray(_) => "compact-array",
        Data::Long64(_) => "long64",
        Data::Long64Unsigned(_) => "long64-unsigned",
        Data::Enum(_) => "enum",
        Data::Float32(_) => "float32",
        Data::Float64(_) => "float64",
        Data::DateTime(_) => "date-time",
        Data::Date(_) => "date",
        Data::Time(_) => "time",
        Data::DontCare => "dont-care",
        _ => "delta",
    }
}

impl Inspector for Client {
    fn inspect<'a>(&'a mut self, line: &'a mut Line, order: &'a Json) -> InspectReply<'a> {
        Box::pin(self.answer(line, order))
    }

    fn progress(&self) -> Option<watch::Receiver<(u32, u32)>> {
        Some(self.progress.subscribe())
    }
}
