use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::schema::DataType;

/// The value of one feature.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Known to be without a value.
    Null,
    /// For [`DataType::Bool`].
    Bool(bool),
    /// For [`DataType::I32`] and [`DataType::I64`]; also for floats that hold it exactly, and for times, in microseconds
    /// since the Unix epoch.
    Int(i64),
    /// For [`DataType::F32`] (rounded) and [`DataType::F64`].
    Float(f64),
    /// For [`DataType::Str`].
    Str(String),
    /// For [`DataType::Bytes`].
    Bytes(Bytes),
    /// For [`DataType::Time`], to the microsecond.
    Time(SystemTime),
    /// For [`DataType::Vector`] of the same length.
    Vector(Vec<f32>),
}

impl Value {
    /// Tells whether this is [`Value::Null`].
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Brings the value to the form that `data_type` stores: the same for whoever wrote it, whichever way.
    ///
    /// The error says what the value is.
    pub(crate) fn of_type(&self, data_type: DataType) -> Result<Self, String> {
        Ok(match (data_type, self) {
            (_, Self::Null) => Self::Null,
            (DataType::Bool, Self::Bool(value)) => Self::Bool(*value),
            (DataType::I32, Self::Int(value)) if i32::try_from(*value).is_ok() => Self::Int(*value),
            (DataType::I64, Self::Int(value)) => Self::Int(*value),
            (DataType::F64, Self::Float(value)) => Self::Float(*value),
            (DataType::F32, Self::Float(value)) => match narrow(*value) {
                Some(narrow) => Self::Float(f64::from(narrow)),
                None => return Err("a float beyond the range of 32 bits".to_owned()),
            },
            (DataType::F32, Self::Int(value)) if value.unsigned_abs() <= 1 << 24 => {
                Self::Float(exact(*value))
            }
            (DataType::F64, Self::Int(value)) if value.unsigned_abs() <= 1 << 53 => {
                Self::Float(exact(*value))
            }
            (DataType::Str, Self::Str(value)) => Self::Str(value.clone()),
            (DataType::Bytes, Self::Bytes(value)) => Self::Bytes(value.clone()),
            (DataType::Time, Self::Time(value)) => Self::Time(
                time(micros(*value).ok_or_else(|| "a time out of range".to_owned())?)
                    .ok_or_else(|| "a time out of range".to_owned())?,
            ),
            (DataType::Time, Self::Int(value)) => {
                Self::Time(time(*value).ok_or_else(|| "a time out of range".to_owned())?)
            }
            (DataType::Vector(length), Self::Vector(values))
                if values.len() == usize::from(length) =>
            {
                Self::Vector(values.clone())
            }
            (_, other) => return Err(other.kind()),
        })
    }

    /// Whether [`of_type`](Self::of_type) succeeds; nothing is copied.
    #[inline]
    pub(crate) fn fits(&self, data_type: DataType) -> Result<(), String> {
        match (data_type, self) {
            (_, Self::Null)
            | (DataType::Bool, Self::Bool(_))
            | (DataType::I64, Self::Int(_))
            | (DataType::F64, Self::Float(_))
            | (DataType::Str, Self::Str(_))
            | (DataType::Bytes, Self::Bytes(_)) => Ok(()),
            (DataType::F32, Self::Float(value)) if narrow(*value).is_some() => Ok(()),
            (DataType::Vector(length), Self::Vector(values))
                if values.len() == usize::from(length) =>
            {
                Ok(())
            }
            _ => self.of_type(data_type).map(|_| ()),
        }
    }

    /// What kind of value this is, for messages.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(_) => "a bool".to_owned(),
            Self::Int(_) => "an integer that does not fit it".to_owned(),
            Self::Float(_) => "a float".to_owned(),
            Self::Str(_) => "text".to_owned(),
            Self::Bytes(_) => "bytes".to_owned(),
            Self::Time(_) => "a time".to_owned(),
            Self::Vector(values) => format!("a vector of {}", values.len()),
        }
    }

    /// How many bytes the value takes beside its fixed cell.
    pub(crate) fn variable(&self) -> &[u8] {
        match self {
            Self::Str(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// The nearest 32-bit float, unless that is infinite where the value is not.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
#[inline]
pub(crate) fn narrow(value: f64) -> Option<f32> {
    let narrow = value as f32;
    (narrow.is_infinite() == value.is_infinite()).then_some(narrow)
}

#[expect(clippy::cast_precision_loss, reason = "the caller checked that none is lost")]
fn exact(value: i64) -> f64 {
    value as f64
}

/// Microseconds since the Unix epoch, negative before it.
pub(crate) fn micros(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).ok(),
        Err(before) => i64::try_from(before.duration().as_micros()).ok().map(|micros| -micros),
    }
}

pub(crate) fn time(micros: i64) -> Option<SystemTime> {
    let span = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) }
}

/// The last moment of an event: 2^53 microseconds, in the year 2255. Scripts count exactly up to there.
const LAST_EVENT: i64 = 1 << 53;

/// The time of an event in microseconds since the Unix epoch.
pub(crate) fn event_micros(at: SystemTime) -> Result<u64> {
    match micros(at) {
        Some(micros @ 0..LAST_EVENT) => Ok(micros.unsigned_abs()),
        _ => Err(Error::invalid(
            "the time of an event",
            "it lies before 1970 or after 2255: events carry the time at which they happened",
        )),
    }
}

/// The answer to a server's `TIME`, in microseconds.
pub(crate) fn server_micros(time: &[u64]) -> u64 {
    let part = |place: usize| time.get(place).copied().unwrap_or(0);
    part(0).saturating_mul(1_000_000).saturating_add(part(1))
}

macro_rules! from {
    ($($type:ty => $variant:ident),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}
from! {
    bool => Bool, i8 => Int, i16 => Int, i32 => Int, u8 => Int, u16 => Int, u32 => Int, i64 => Int, f32 => Float, f64 => Float, &str => Str, String => Str,
    Bytes => Bytes, Vec<u8> => Bytes, SystemTime => Time, Vec<f32> => Vector,
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
