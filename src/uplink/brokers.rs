//! `[broker]` or `[[broker]]`: one broker, or several in the order of preference.

use std::ops::Deref;

use toml::de::DeValue;

use super::settings::BrokerSettings;
use crate::setting::{Node, Printed, Problems, Setting, Shape};

/// More sessions than these would not fit a small gateway.
const MOST: usize = 8;

/// The brokers, at least one, the preferred one first.
#[derive(Debug, Clone)]
pub struct Brokers(Vec<BrokerSettings>);

impl Deref for Brokers {
    type Target = [BrokerSettings];

    fn deref(&self) -> &[BrokerSettings] {
        &self.0
    }
}

impl From<BrokerSettings> for Brokers {
    fn from(only: BrokerSettings) -> Self {
        Self(vec![only])
    }
}

impl Setting for Brokers {
    fn shape() -> Shape {
        Shape::List(Box::new(BrokerSettings::shape()))
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        if !matches!(node.value(), DeValue::Array(_)) {
            return BrokerSettings::read(node, problems).map(Self::from);
        }
        let tables = node.elements(problems)?;
        if tables.is_empty() || tables.len() > MOST {
            return node.refused(&format!("must name from 1 to {MOST} brokers"), problems);
        }
        let read: Vec<_> = tables.iter().filter_map(|table| BrokerSettings::read(table, problems)).collect();
        (read.len() == tables.len()).then_some(Self(read))
    }

    fn stand_in() -> Option<Self> {
        BrokerSettings::stand_in().map(Self::from)
    }

    fn printed(&self) -> Printed {
        match self.0.as_slice() {
            [only] => only.printed(),
            several => Printed::List(several.iter().map(Setting::printed).collect()),
        }
    }
}
