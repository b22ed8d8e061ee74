//! The bytes of Feast's values: `feast.types.Value` in protobuf, one field of a oneof.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::schema::DataType;
use crate::value::{Value, micros, time};

/// A value as Feast knows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FeastValue {
    /// No value: stored as nothing at all.
    Null,
    /// `bytes_val`.
    Bytes(Bytes),
    /// `string_val`.
    Str(String),
    /// `int32_val`.
    Int32(i32),
    /// `int64_val`.
    Int64(i64),
    /// `double_val`.
    Double(f64),
    /// `float_val`.
    Float(f32),
    /// `bool_val`.
    Bool(bool),
    /// `unix_timestamp_val`, in seconds.
    Time(i64),
    /// `bytes_list_val`.
    BytesList(Vec<Bytes>),
    /// `string_list_val`.
    StrList(Vec<String>),
    /// `int32_list_val`.
    Int32List(Vec<i32>),
    /// `int64_list_val`.
    Int64List(Vec<i64>),
    /// `double_list_val`.
    DoubleList(Vec<f64>),
    /// `float_list_val`.
    FloatList(Vec<f32>),
    /// `bool_list_val`.
    BoolList(Vec<bool>),
    /// `unix_timestamp_list_val`, in seconds.
    TimeList(Vec<i64>),
}

// The numbers of the fields in `feast.types.Value`.
const BYTES: u64 = 1;
const STR: u64 = 2;
const INT32: u64 = 3;
const INT64: u64 = 4;
const DOUBLE: u64 = 5;
const FLOAT: u64 = 6;
const BOOL: u64 = 7;
const TIME: u64 = 8;
/// What is added for the list of a type.
const LIST: u64 = 10;
const NULL: u64 = 19;

// The wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BLOCK: u64 = 2;
const FIXED32: u64 = 5;

impl FeastValue {
    /// Returns the stored bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Null => {}
            Self::Bytes(bytes) => block(BYTES, bytes, &mut out),
            Self::Str(text) => block(STR, text.as_bytes(), &mut out),
            Self::Int32(value) => number(INT32, (*value).into(), &mut out),
            Self::Int64(value) => number(INT64, *value, &mut out),
            Self::Double(value) => fixed(DOUBLE, FIXED64, &value.to_le_bytes(), &mut out),
            Self::Float(value) => fixed(FLOAT, FIXED32, &value.to_le_bytes(), &mut out),
            Self::Bool(value) => number(BOOL, (*value).into(), &mut out),
            Self::Time(value) => number(TIME, *value, &mut out),
            Self::BytesList(values) => {
                list(BYTES, &blocks(values.iter().map(AsRef::as_ref)), &mut out);
            }
            Self::StrList(values) => {
                list(STR, &blocks(values.iter().map(AsRef::as_ref)), &mut out);
            }
            Self::Int32List(values) => {
                list(INT32, &packed_numbers(values.iter().map(|value| (*value).into())), &mut out);
            }
            Self::Int64List(values) => {
                list(INT64, &packed_numbers(values.iter().copied()), &mut out);
            }
            Self::BoolList(values) => {
                list(BOOL, &packed_numbers(values.iter().map(|value| (*value).into())), &mut out);
            }
            Self::TimeList(values) => {
                list(TIME, &packed_numbers(values.iter().copied()), &mut out);
            }
            Self::DoubleList(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                list(DOUBLE, &packed(&bytes), &mut out);
            }
            Self::FloatList(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                list(FLOAT, &packed(&bytes), &mut out);
            }
        }
        out
    }

    /// Reads stored bytes; `None` if they are no value that this release knows.
    #[must_use]
    pub fn decode(stored: &[u8]) -> Option<Self> {
        let Some((field, content)) = only_field(stored)? else { return Some(Self::Null) };
        Some(match (field, content) {
            (NULL, _) => Self::Null,
            (BYTES, Content::Block(bytes)) => Self::Bytes(Bytes::copy_from_slice(bytes)),
            (STR, Content::Block(bytes)) => Self::Str(str::from_utf8(bytes).ok()?.to_owned()),
            (INT32, Content::Number(value)) => Self::Int32(int32(value)),
            (INT64, Content::Number(value)) => Self::Int64(value),
            (DOUBLE, Content::Fixed64(bytes)) => Self::Double(f64::from_le_bytes(bytes)),
            (FLOAT, Content::Fixed32(bytes)) => Self::Float(f32::from_le_bytes(bytes)),
            (BOOL, Content::Number(value)) => Self::Bool(value != 0),
            // What the file offline store makes of a null.
            (TIME, Content::Number(i64::MIN)) => Self::Null,
            (TIME, Content::Number(value)) => Self::Time(value),
            (field, Content::Block(message)) => decode_list(field.checked_sub(LIST)?, message)?,
            _ => return None,
        })
    }

    /// Makes Feast's value of a value that was brought to its type.
    pub(crate) fn of(value: &Value, data_type: DataType) -> Self {
        match (value, data_type) {
            (Value::Null, _) => Self::Null,
            (Value::Bool(value), _) => Self::Bool(*value),
            (Value::Int(value), DataType::I32) => Self::Int32(int32(*value)),
            (Value::Int(value), _) => Self::Int64(*value),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the value was brought to the type"
            )]
            (Value::Float(value), DataType::F32) => Self::Float(*value as f32),
            (Value::Float(value), _) => Self::Double(*value),
            (Value::Str(text), _) => Self::Str(text.clone()),
            (Value::Bytes(bytes), _) => Self::Bytes(bytes.clone()),
            (Value::Time(value), _) => {
                Self::Time(micros(*value).unwrap_or_default().div_euclid(1_000_000))
            }
            (Value::Vector(values), _) => Self::FloatList(values.clone()),
        }
    }

    /// The value as this crate knows it; lists other than of floats are none.
    pub(crate) fn into_value(self) -> Option<Value> {
        Some(match self {
            Self::Null => Value::Null,
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Str(text) => Value::Str(text),
            Self::Int32(value) => Value::Int(value.into()),
            Self::Int64(value) => Value::Int(value),
            Self::Double(value) => Value::Float(value),
            Self::Float(value) => Value::Float(value.into()),
            Self::Bool(value) => Value::Bool(value),
            Self::Time(seconds) => Value::Time(time(seconds.checked_mul(1_000_000)?)?),
            Self::FloatList(values) => Value::Vector(values),
            _ => return None,
        })
    }
}

/// The floats of a `float_list_val`, without copying them.
pub(crate) fn floats(stored: &[u8]) -> Option<&[u8]> {
    let (field, Content::Block(message)) = only_field(stored)?? else { return None };
    if field != FLOAT + LIST {
        return None;
    }
    match only_field(message)? {
        None => Some(&[]),
        Some((1, Content::Block(bytes))) => Some(bytes),
        Some(_) => None,
    }
}

/// A `google.protobuf.Timestamp`, to the microsecond.
pub(crate) fn encode_time(micros: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, part) in [(1, micros / 1_000_000), (2, micros % 1_000_000 * 1_000)] {
        // Parts that are zero are left out.
        if part != 0 {
            number(field, i64::try_from(part).unwrap_or(i64::MAX), &mut out);
        }
    }
    out
}

/// Reads a `google.protobuf.Timestamp`; `None` if it is none, or before 1970.
pub(crate) fn decode_time(stored: &[u8]) -> Option<SystemTime> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut rest = stored;
    while !rest.is_empty() {
        let (field, content, after) = next_field(rest)?;
        match (field, content) {
            (1, Content::Number(value)) => seconds = value,
            (2, Content::Number(value)) => nanos = value,
            _ => {}
        }
        rest = after;
    }
    let after = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
    UNIX_EPOCH.checked_add(after)
}

enum Content<'b> {
    Number(i64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Block(&'b [u8]),
}

/// The one field of a message; `Some(None)` if it is empty, and the last one if there are several, as protobuf says.
fn only_field(message: &[u8]) -> Option<Option<(u64, Content<'_>)>> {
    let (mut rest, mut last) = (message, None);
    while !rest.is_empty() {
        let (field, content, after) = next_field(rest)?;
        last = Some((field, content));
        rest = after;
    }
    Some(last)
}

fn next_field(bytes: &[u8]) -> Option<(u64, Content<'_>, &[u8])> {
    let (key, rest) = varint(bytes)?;
    let (content, rest) = match key & 7 {
        VARINT => {
            let (value, rest) = varint(rest)?;
            (Content::Number(value.cast_signed()), rest)
        }
        FIXED64 => {
            let (bytes, rest) = rest.split_first_chunk::<8>()?;
            (Content::Fixed64(*bytes), rest)
        }
        FIXED32 => {
            let (bytes, rest) = rest.split_first_chunk::<4>()?;
            (Content::Fixed32(*bytes), rest)
        }
        BLOCK => {
            let (length, rest) = varint(rest)?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Content::Block(bytes), rest)
        }
        _ => return None,
    };
    Some((key >> 3, content, rest))
}

fn decode_list(of: u64, message: &[u8]) -> Option<FeastValue> {
    let (mut blocks, mut numbers) = (Vec::new(), Vec::new());
    let (mut doubles, mut floats) = (Vec::new(), Vec::new());
    let mut rest = message;
    while !rest.is_empty() {
        let (field, content, after) = next_field(rest)?;
        rest = after;
        if field != 1 {
            continue;
        }
        match (of, content) {
            (BYTES | STR, Content::Block(bytes)) => blocks.push(bytes),
            (DOUBLE, Content::Block(bytes)) => {
                let (values, odd) = bytes.as_chunks::<8>();
                doubles.extend(values.iter().map(|value| f64::from_le_bytes(*value)));
                odd.is_empty().then_some(())?;
            }
            (FLOAT, Content::Block(bytes)) => {
                let (values, odd) = bytes.as_chunks::<4>();
                floats.extend(values.iter().map(|value| f32::from_le_bytes(*value)));
                odd.is_empty().then_some(())?;
            }
            (DOUBLE, Content::Fixed64(bytes)) => doubles.push(f64::from_le_bytes(bytes)),
            (FLOAT, Content::Fixed32(bytes)) => floats.push(f32::from_le_bytes(bytes)),
            (INT32 | INT64 | BOOL | TIME, Content::Number(value)) => numbers.push(value),
            (INT32 | INT64 | BOOL | TIME, Content::Block(mut bytes)) => {
                while !bytes.is_empty() {
                    let (value, after) = varint(bytes)?;
                    numbers.push(value.cast_signed());
                    bytes = after;
                }
            }
            _ => return None,
        }
    }
    Some(match of {
        BYTES => FeastValue::BytesList(
            blocks.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect(),
        ),
        STR => {
            let texts = blocks.iter().map(|bytes| str::from_utf8(bytes).map(str::to_owned));
            FeastValue::StrList(texts.collect::<Result<_, _>>().ok()?)
        }
        INT32 => FeastValue::Int32List(numbers.into_iter().map(int32).collect()),
        INT64 => FeastValue::Int64List(numbers),
        DOUBLE => FeastValue::DoubleList(doubles),
        FLOAT => FeastValue::FloatList(floats),
        BOOL => FeastValue::BoolList(numbers.into_iter().map(|value| value != 0).collect()),
        TIME => FeastValue::TimeList(numbers),
        _ => return None,
    })
}

/// The low half, as protobuf reads an `int32`.
#[expect(clippy::cast_possible_truncation, reason = "protobuf says so")]
fn int32(value: i64) -> i32 {
    value as i32
}

fn key(field: u64, wire: u64, out: &mut Vec<u8>) {
    write_varint(field << 3 | wire, out);
}

fn number(field: u64, value: i64, out: &mut Vec<u8>) {
    key(field, VARINT, out);
    write_varint(value.cast_unsigned(), out);
}

fn fixed(field: u64, wire: u64, bytes: &[u8], out: &mut Vec<u8>) {
    key(field, wire, out);
    out.extend_from_slice(bytes);
}

fn block(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    key(field, BLOCK, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn list(of: u64, message: &[u8], out: &mut Vec<u8>) {
    block(of + LIST, message, out);
}

fn blocks<'b>(values: impl Iterator<Item = &'b [u8]>) -> Vec<u8> {
    let mut message = Vec::new();
    for value in values {
        block(1, value, &mut message);
    }
    message
}

/// A packed field 1; left out where there is nothing.
fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    if !bytes.is_empty() {
        block(1, bytes, &mut message);
    }
    message
}

fn packed_numbers(values: impl Iterator<Item = i64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        write_varint(value.cast_unsigned(), &mut bytes);
    }
    packed(&bytes)
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}
