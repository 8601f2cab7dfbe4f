//! Changes an attribute or has a method done, and looks what is there afterwards.
//!
//! Invariants: a thing is ordered once, whatever comes of it; what is there now is read, never concluded from the
//! confirmation.

use super::object::{Scaler, Target, like, typed};
use super::service::{Content, action_words, is_secret, takes_secret, words};
use super::session::Client;
use crate::meter::{MeterError, WriteOutcome, WriteReply, Writer, Written};
use crate::model::{Quality, Value};
use crate::os::line::Line;
use crate::wire::dlms::{AttributeDescriptor, DataBuf, MethodDescriptor};

/// What is ordered.
enum Order {
    /// A new value of an attribute, as text.
    Set(String),
    /// A method, and its parameter.
    Act(i8, Content),
}

/// The classes whose methods have words of their own: class, word, method, attribute that shows what came of it.
const WORDS: &[(u16, &str, i8, i8)] =
    &[(70, "disconnect", 1, 3), (70, "reconnect", 2, 3), (3, "reset", 1, 2), (4, "reset", 1, 2)];

/// What is wrong with a password or key, without showing it.
const UNTYPED: &str = "the secret can't be read; write it like octet-string:00ff or visible-string:...";

impl Client {
    /// Orders one thing and looks what came of it.
    ///
    /// # Errors
    /// What the line or the meter said.
    pub(super) async fn change(&mut self, line: &mut Line, name: &str, text: &str) -> Result<Written, MeterError> {
        self.open(line).await?;
        let result = tokio::time::timeout_at(self.until(), self.change_open(line, name, text)).await;
        let advice = "whether the meter did it is not known; read it before trying again, and raise longest_session";
        let result = result.unwrap_or_else(|_| Err(self.overrun("the write was not done", advice)));
        self.leave(line, result.as_ref().err()).await;
        result
    }

    async fn change_open(&mut self, line: &mut Line, name: &str, text: &str) -> Result<Written, MeterError> {
        let (target, method) = parse(name)?;
        let (mut services, known) = self.open_services(line);
        known.meet(&mut services).await?;
        if target.class.is_none() {
            known.refresh(&mut services).await?;
        }
        let class = known.class(&mut services, &target).await?;
        let class = class.ok_or_else(|| order(format!("the meter has no object {}", target.name)))?;
        let word = WORDS.iter().find(|(c, word, ..)| *c == class && *word == text && method.is_none());
        let (attribute, order) = match (word, method) {
            (Some((_, _, method, shows)), _) => (
                AttributeDescriptor::new(class, target.name, *shows),
                Order::Act(*method, Content::of(&DataBuf::Integer(0))?),
            ),
            (None, Some(method)) => {
                let secret = takes_secret(MethodDescriptor::new(class, target.name, method));
                let fault = |told: String| order(if secret { UNTYPED.to_owned() } else { told });
                let parameter = if text.is_empty() { DataBuf::Integer(0) } else { typed(text).map_err(fault)? };
                (target.of_class(class), Order::Act(method, Content::of(&parameter)?))
            }
            (None, None) => (target.of_class(class), Order::Set(text.to_owned())),
        };
        let secret = match &order {
            Order::Set(_) => is_secret(attribute),
            Order::Act(method, _) => takes_secret(MethodDescriptor::new(class, target.name, *method)),
        };
        if secret {
            return self.change_secret(line, name, attribute, order).await;
        }
        known.learn_scalers(&mut services, [attribute].into_iter()).await?;
        let scaler = known.scaler(&attribute);
        let before = services.get(attribute).await?;
        let (outcome, wanted) = match order {
            Order::Act(method, parameter) => {
                let method = MethodDescriptor::new(class, target.name, method);
                let done = services.action(method, Some(&parameter)).await?;
                (done.err().map(action_words), None)
            }
            Order::Set(text) => {
                let value = match &before {
                    Ok(now) => like(&now.data(), scaler.unwrap_or(Scaler::PLAIN), &text),
                    Err(_) => typed(&text),
                };
                let value = Content::of(&value.map_err(self::order)?)?;
                (services.set(attribute, &value).await?.err().map(words), Some(value))
            }
        };
        let now = services.get(attribute).await?;
        let outcome = match (outcome, &now, wanted) {
            (Some(why), ..) => WriteOutcome::Refused(why),
            (None, Ok(now), Some(wanted)) if *now != wanted => WriteOutcome::Different,
            (None, Err(_), _) => WriteOutcome::Unverified,
            (None, Ok(_), _) => WriteOutcome::Done,
        };
        let shown = |answer: &Result<Content, _>| match answer {
            Ok(content) => self.value(name.to_owned(), &attribute, &content.data()),
            Err(refusal) => Value {
                name: name.to_owned(),
                value: None,
                unit: String::new(),
                quality: super::service::quality(*refusal),
            },
        };
        Ok(Written { outcome, before: shown(&before), now: shown(&now) })
    }
}

impl Client {
    /// Sets a password or key: what is there is neither read nor shown, nor what goes there.
    async fn change_secret(
        &mut self,
        line: &mut Line,
        name: &str,
        attribute: AttributeDescriptor,
        order: Order,
    ) -> Result<Written, MeterError> {
        let (mut services, _) = self.open_services(line);
        let refused = match order {
            Order::Act(method, parameter) => {
                let method = MethodDescriptor::new(attribute.class_id, attribute.instance_id, method);
                services.action(method, Some(&parameter)).await?.err().map(action_words)
            }
            Order::Set(text) => {
                let value = typed(&text).map_err(|_| self::order(UNTYPED.to_owned()))?;
                services.set(attribute, &Content::of(&value)?).await?.err().map(words)
            }
        };
        let hidden = Value { name: name.to_owned(), value: None, unit: String::new(), quality: Quality::Unavailable };
        let outcome = refused.map_or(WriteOutcome::Unverified, WriteOutcome::Refused);
        Ok(Written { outcome, before: hidden.clone(), now: hidden })
    }
}

/// An attribute, or with `!N` behind it a method.
fn parse(name: &str) -> Result<(Target, Option<i8>), MeterError> {
    let (name, method) = match name.split_once('!') {
        Some((name, method)) => {
            let method = method.trim().parse().ok().filter(|method| *method > 0);
            (name, Some(method.ok_or_else(|| order("a method is a number such as !1".to_owned()))?))
        }
        None => (name, None),
    };
    Ok((Target::parse(name).map_err(order)?, method))
}

fn order(sentence: String) -> MeterError {
    MeterError::Order(sentence)
}

impl Writer for Client {
    fn write<'a>(&'a mut self, line: &'a mut Line, name: &'a str, text: &'a str) -> WriteReply<'a> {
        Box::pin(self.change(line, name, text))
    }
}
