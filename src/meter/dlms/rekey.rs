//! Gives a meter new keys or another security policy through its security setup (IEC 62056-6-2, class 64).
//!
//! Invariants: keys come from files that nobody else may read, go out wrapped by the master key (RFC 3394) and are
//! never shown; all keys of one order go in one request, so that the meter takes all or none; it is sent once.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::time::timeout_at;

use super::association::new_key;
use super::object::Target;
use super::service::{Content, action_words};
use super::session::Client;
use crate::meter::MeterError;
use crate::os::line::Line;
use crate::wire::dlms::wrap::KeyEncryptionKey;
use crate::wire::dlms::{DataBuf, MethodDescriptor};

/// The class of a security setup.
const CLASS: u16 = 64;
/// Its methods.
const ACTIVATE: i8 = 1;
const TRANSFER: i8 = 2;

/// What is to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rekey {
    /// New keys.
    #[serde(default)]
    keys: Vec<NewKey>,
    /// The file with the meter's master key of now, which wraps them.
    #[serde(default)]
    master: Option<String>,
    /// A new security policy; meters take stronger ones only.
    #[serde(default)]
    policy: Option<u8>,
}

/// A new key and the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    key: Kind,
    file: String,
}

/// What a key is for, in the order of the standard's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Encryption,
    Broadcast,
    Authentication,
    Master,
}

impl Client {
    /// Transfers keys, or activates a policy.
    ///
    /// # Errors
    /// [`MeterError::Order`] when a file can't be used; what the line said, when it is not known whether the meter took them.
    pub(super) async fn rekey(&mut self, line: &mut Line, target: &Target, rekey: &Rekey) -> Result<Json, MeterError> {
        if target.class.is_some_and(|class| class != CLASS) {
            return Err(MeterError::Order("keys go to a security setup, such as 0-0:43.0.0*255".to_owned()));
        }
        let (method, parameter) = match rekey.policy {
            Some(policy) => (ACTIVATE, DataBuf::Enum(policy)),
            None => (TRANSFER, self.wrapped(rekey)?),
        };
        let parameter = Content::of(&parameter)?;
        self.open(line).await?;
        let until = self.until();
        let work = async {
            let (mut services, _) = self.open_services(line);
            services.action(MethodDescriptor::new(CLASS, target.name, method), Some(&parameter)).await
        };
        let done = timeout_at(until, work).await;
        let done = done.unwrap_or_else(|_| Err(self.overrun("there was no answer", "look why the meter is so slow")));
        if method == TRANSFER && !matches!(done, Ok(Err(_))) {
            // It goes by the new keys now: a release under the old ones would look like somebody else's.
            self.association.forget(line).await;
            if line.is_tcp() {
                // Only the end of the connection tells the meter that this association is over.
                self.mend(line).await;
            }
        } else {
            self.leave(line, done.as_ref().err()).await;
        }
        let done = done.map_err(|error| match error {
            MeterError::Order(_) | MeterError::Unasked(_) => error,
            other => MeterError::Damaged(format!("it is not known whether the meter took the change: {other}")),
        })?;
        let (outcome, words) = match (done, method) {
            (Err(why), _) => ("refused", action_words(why)),
            (Ok(_), TRANSFER) => (
                "done",
                "the meter took the keys; put them into the files that weir.toml names, before it is read again"
                    .to_owned(),
            ),
            (Ok(_), _) => ("done", "the meter took the policy; dlms.security must meet it from now on".to_owned()),
        };
        Ok(json!({ "object": target.name.to_string(), "outcome": outcome, "words": words }))
    }

    /// The new keys as the method wants them: an array of number and wrapped key.
    fn wrapped(&self, rekey: &Rekey) -> Result<DataBuf, MeterError> {
        let length = if self.settings.suite.value() == 2 { 32 } else { 16 };
        let master = rekey.master.as_deref();
        let master =
            master.ok_or_else(|| MeterError::Order("new keys need the master key that wraps them".to_owned()))?;
        let master = KeyEncryptionKey::new(&new_key(Path::new(master), length)?)
            .ok_or_else(|| MeterError::Order("the master key has the wrong length".to_owned()))?;
        if rekey.keys.is_empty() {
            return Err(MeterError::Order("there is no key to transfer".to_owned()));
        }
        let each = rekey.keys.iter().map(|NewKey { key, file }| {
            let wrapped = master.wrap(&new_key(Path::new(file), length)?);
            let wrapped = wrapped.ok_or_else(|| MeterError::Order(format!("{file} holds no key")))?;
            Ok(DataBuf::Structure(vec![DataBuf::Enum(*key as u8), DataBuf::OctetString(wrapped)]))
        });
        each.collect::<Result<_, _>>().map(DataBuf::Array)
    }
}
