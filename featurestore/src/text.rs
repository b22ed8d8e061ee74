//! Values of the hash layout: text that anybody can read.
//!
//! Numbers are decimal, booleans `1` and `0`, times microseconds since the Unix epoch, vectors the bytes of their floats,
//! little-endian, so that a search index can read them.
//! An empty field is null; texts and bytes that are empty or begin with `"` have one `"` put in front.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::schema::{DataType, Group};
use crate::value::{Value, micros, time};

/// The field that holds the time of the event; no feature begins with `_`.
pub(crate) const TIME: &str = "_time";

/// The text of a value that was brought to its type.
pub(crate) fn encode(value: &Value, data_type: DataType, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let quoted = |bytes: &[u8], out: &mut Vec<u8>| {
        if bytes.first().is_none_or(|first| *first == b'"') {
            out.push(b'"');
        }
        out.extend_from_slice(bytes);
    };
    // Writing to a vector cannot fail.
    let _ = match (value, data_type) {
        (Value::Null, _) => Ok(()),
        (Value::Bool(value), _) => write!(out, "{}", u8::from(*value)),
        (Value::Int(value), _) => write!(out, "{value}"),
        #[expect(clippy::cast_possible_truncation, reason = "the value was brought to the type")]
        (Value::Float(value), DataType::F32) => write!(out, "{:?}", *value as f32),
        (Value::Float(value), _) => write!(out, "{value:?}"),
        (Value::Time(value), _) => write!(out, "{}", micros(*value).unwrap_or_default()),
        (Value::Str(text), _) => {
            quoted(text.as_bytes(), out);
            Ok(())
        }
        (Value::Bytes(bytes), _) => {
            quoted(bytes, out);
            Ok(())
        }
        (Value::Vector(values), _) => {
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            Ok(())
        }
    };
}

/// Reads the text of a feature.
pub(crate) fn decode(group: &Group, position: usize, stored: &[u8]) -> Result<Value> {
    let Some(feature) = group.features().get(position) else { return Ok(Value::Null) };
    let corrupt = || {
        let problem = format!("field {} is no {}", feature.name, feature.data_type);
        Error::corrupt(group.label_str(), problem)
    };
    if stored.is_empty() {
        return Ok(Value::Null);
    }
    let text = || str::from_utf8(stored).map_err(|_| corrupt());
    Ok(match feature.data_type {
        DataType::F32 | DataType::F64 => {
            let value: f64 = match feature.data_type {
                DataType::F32 => f64::from(text()?.parse::<f32>().map_err(|_| corrupt())?),
                _ => text()?.parse().map_err(|_| corrupt())?,
            };
            Value::Float(value)
        }
        DataType::I32 => Value::Int(text()?.parse::<i32>().map_err(|_| corrupt())?.into()),
        DataType::I64 => Value::Int(text()?.parse().map_err(|_| corrupt())?),
        DataType::Bool => match stored {
            b"1" | b"true" => Value::Bool(true),
            b"0" | b"false" => Value::Bool(false),
            _ => return Err(corrupt()),
        },
        DataType::Time => {
            let micros = text()?.parse().map_err(|_| corrupt())?;
            Value::Time(time(micros).ok_or_else(corrupt)?)
        }
        DataType::Str => Value::Str(
            str::from_utf8(stored.strip_prefix(b"\"").unwrap_or(stored))
                .map_err(|_| corrupt())?
                .to_owned(),
        ),
        DataType::Bytes => {
            Value::Bytes(Bytes::copy_from_slice(stored.strip_prefix(b"\"").unwrap_or(stored)))
        }
        DataType::Vector(length) => {
            let (values, rest) = stored.as_chunks::<4>();
            if !rest.is_empty() || values.len() != usize::from(length) {
                return Err(corrupt());
            }
            Value::Vector(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        }
    })
}
