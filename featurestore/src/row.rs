use std::time::SystemTime;

use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer, Visitor};
use serde::{Deserializer, Serialize, forward_to_deserialize_any};

use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::fields;
use crate::schema::Group;
use crate::value::{Value, event_micros, micros};

/// What is written of one entity: the values of all features of a group, and when they came about.
///
/// A write replaces the whole row, if its event is not older than the stored one.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub(crate) entity: Entity,
    pub(crate) at: SystemTime,
    pub(crate) values: Vec<Value>,
}

impl Row {
    /// Makes a row of the values in the order of the group's features.
    pub fn new<V: Into<Value>>(
        entity: impl Into<Entity>,
        at: SystemTime,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        Self { entity: entity.into(), at, values: values.into_iter().map(Into::into).collect() }
    }

    /// Makes a row of named values; features that are not named are null.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFeature`].
    pub fn named<'n>(
        group: &Group,
        entity: impl Into<Entity>,
        at: SystemTime,
        values: impl IntoIterator<Item = (&'n str, Value)>,
    ) -> Result<Self> {
        let mut row = vec![Value::Null; group.features().len()];
        for (name, value) in values {
            let position = group.position(name)?;
            if let Some(place) = row.get_mut(position) {
                *place = value;
            }
        }
        Ok(Self { entity: entity.into(), at, values: row })
    }

    /// Makes a row of a struct or a map whose fields are named like the features; fields that are not there are null.
    ///
    /// A time is an integer of microseconds since the Unix epoch, a vector a sequence of floats.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFeature`] for a field that the group does not have;
    /// [`Error::Invalid`] for what is no value.
    pub fn of<T: Serialize + ?Sized>(
        group: &Group,
        entity: impl Into<Entity>,
        at: SystemTime,
        values: &T,
    ) -> Result<Self> {
        let fields = fields::of(values).map_err(|problem| {
            Error::invalid(format!("a row of group {}", group.label()), problem.0)
        })?;
        Self::named(group, entity, at, fields.iter().map(|(name, value)| (&**name, value.clone())))
    }

    /// Checks the row without copying anything.
    pub(crate) fn check(&self, group: &Group) -> Result<()> {
        self.entity.check(group.entity_type(), group.keys().len())?;
        event_micros(self.at)?;
        group.check_length(self.values.len())?;
        for (feature, value) in group.features().iter().zip(&self.values) {
            value.fits(feature.data_type).map_err(|got| group.mismatch(feature, got))?;
        }
        Ok(())
    }

    /// Returns the values, each brought to the type of its feature.
    pub(crate) fn typed(&self, group: &Group) -> Result<Vec<Value>> {
        group.check_length(self.values.len())?;
        let both = group.features().iter().zip(&self.values);
        both.map(|(feature, value)| {
            value.of_type(feature.data_type).map_err(|got| group.mismatch(feature, got))
        })
        .collect()
    }

    /// Returns the entity.
    #[must_use]
    pub fn entity(&self) -> &Entity {
        &self.entity
    }

    /// Returns the time of the event.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        self.at
    }

    /// Returns the values.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

/// What is stored of one entity in a group, with its types.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub(crate) at: SystemTime,
    pub(crate) values: Vec<(String, Option<Value>)>,
}

impl Record {
    /// Makes a record, for an implementor of [`FeatureStore`](crate::FeatureStore); `None` is a feature that the row's
    /// writer did not know.
    #[must_use]
    pub fn new(at: SystemTime, values: Vec<(String, Option<Value>)>) -> Self {
        Self { at, values }
    }

    /// Returns the time of the event.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        self.at
    }

    /// Returns a value; `None` if there is no such feature, or the row was written before it was appended.
    #[must_use]
    pub fn get(&self, feature: &str) -> Option<&Value> {
        self.values.iter().find(|(name, _)| name == feature)?.1.as_ref()
    }

    /// Returns the features and their values, in the group's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<&Value>)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_ref()))
    }

    /// Reads the record into a struct whose fields are named like the features.
    ///
    /// Null and missing are `None`; a time is microseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a value does not fit its field.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T> {
        let present = self.values.iter().filter_map(|(name, value)| {
            Some((name.as_str(), Plain(value.as_ref().filter(|value| !value.is_null())?)))
        });
        T::deserialize(MapDeserializer::new(present)).map_err(|problem: serde::de::value::Error| {
            Error::invalid("a record", problem.to_string())
        })
    }
}

struct Plain<'v>(&'v Value);

impl<'de> IntoDeserializer<'de> for Plain<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Plain<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Str(text) => visitor.visit_str(text),
            Value::Bytes(bytes) => visitor.visit_bytes(bytes),
            Value::Time(value) => visitor.visit_i64(micros(*value).unwrap_or_default()),
            Value::Vector(values) => {
                visitor.visit_seq(serde::de::value::SeqDeserializer::new(values.iter().copied()))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
