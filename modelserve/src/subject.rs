use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The attribute by which experiments assign unless they name another.
pub const ID: &str = "id";

/// For whom a decision is made: a user, a session, a device, with what is known of them.
///
/// For a conversation use the session as the unit, so that no turn changes the model in its middle.
/// `Debug` prints the names of attributes only.
#[derive(Clone, Default, PartialEq)]
pub struct Subject {
    attributes: BTreeMap<String, Attribute>,
}

/// The value of an attribute.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Attribute {
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

impl Subject {
    /// Makes a subject with an id.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self::default().with(ID, id.into())
    }

    /// Sets an attribute.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Attribute>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Returns an attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.attributes.get(name)
    }

    /// Returns the text by which an experiment assigns: only texts can be units, so that all languages write them alike.
    #[must_use]
    pub fn unit(&self, attribute: &str) -> Option<&str> {
        match self.attributes.get(attribute) {
            Some(Attribute::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.attributes.keys()).finish()
    }
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Attribute {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Attribute {
    fn from(number: i32) -> Self {
        Self::Number(f64::from(number))
    }
}

impl From<bool> for Attribute {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
