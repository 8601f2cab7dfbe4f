//! The session with one meter.

use super::association::Association;
use super::service;
use crate::meter::{Kept, MeterError, MeterSettings, Reply, Session};
use crate::model::{Quality, Value};
use crate::os::line::Line;
use crate::wire::dlms::{AttributeDescriptor, DataBuf, LogicalName};

/// The logical device name (IEC 62056-6-1, clause 6.2.31).
const DEVICE_NAME: AttributeDescriptor = AttributeDescriptor::new(1, LogicalName::new(0, 0, 42, 0, 0, 255), 2);

/// Makes the session.
///
/// # Errors
/// One sentence that says what is wrong with the settings.
pub(super) fn session(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    Ok(Box::new(Client { association: Association::new(settings)? }))
}

struct Client {
    association: Association,
}

impl Client {
    async fn read_all(&mut self, line: &mut Line) -> Result<Vec<Value>, MeterError> {
        self.association.open(line).await?;
        let name = service::get(&mut self.association, line, DEVICE_NAME).await;
        self.association.close(line).await;
        let (value, quality) = match name? {
            Ok(DataBuf::OctetString(text) | DataBuf::VisibleString(text)) => {
                (Some(String::from_utf8_lossy(&text).into_owned()), Quality::Good)
            }
            Ok(other) => return Err(MeterError::Damaged(format!("the device's name is {other:?}"))),
            Err(_) => (None, Quality::Refused),
        };
        let name = DEVICE_NAME.instance_id.to_string();
        Ok(vec![Value { name, value, unit: String::new(), quality }])
    }
}

impl Session for Client {
    fn keep_in(&mut self, kept: Kept) {
        self.association.keep_in(kept);
    }

    fn read<'a>(&'a mut self, line: &'a mut Line) -> Reply<'a> {
        Box::pin(async move {
            match self.read_all(line).await {
                Err(error) if self.association.was_dropped() => {
                    tracing::debug!(%error, "the connection is opened once more");
                    self.read_all(line).await
                }
                other => other,
            }
        })
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        let name = DEVICE_NAME.instance_id.to_string();
        vec![Value { name, value: None, unit: String::new(), quality }]
    }
}
