//! Packed rows: one string holds the values of a group for one entity.
//!
//! ```text
//! 0      format, 1
//! 1      kind, `F`
//! 2..4   lineage of the group's registration, little-endian
//! 4..6   number of features, little-endian
//! 6..13  time of the event in microseconds since the Unix epoch, big-endian: a script compares it
//! 13..   a bit for each feature, set where it is null; then zeros up to a multiple of four bytes
//!        cells of fixed width in the order of the features, little-endian; a null cell is zero
//!        texts and bytes; their cells hold where they begin and end in the row, 32 bits each
//! ```
//!
//! Features are only appended within a lineage, so a reader finds its own in rows of older and of newer writers.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::schema::{DataType, Feature, Group, MAX_FEATURES};
use crate::value::{Value, narrow, time};

const FORMAT: u8 = 1;
const KIND: u8 = b'F';
/// The bytes before the bitmap.
const HEADER: usize = 13;

/// Encodes a row; the values are one for each feature.
pub(crate) fn encode(group: &Group, at: u64, values: &[Value]) -> Result<Vec<u8>> {
    let features = group.features();
    group.check_length(values.len())?;
    let cells = cells_at(features.len());
    let fixed = cells + group.offsets().last().copied().unwrap_or_default();
    let variable: usize = if group.has_variable() {
        values.iter().map(|value| value.variable().len()).sum()
    } else {
        0
    };
    let mut row = Vec::with_capacity(fixed + variable);
    write_header(&mut row, group, at);
    row.resize(cells, 0);
    for (position, (feature, value)) in features.iter().zip(values).enumerate() {
        if let (DataType::F32, Value::Float(value)) = (feature.data_type, value)
            && let Some(value) = narrow(*value)
        {
            // What fills most rows goes the short way.
            row.extend_from_slice(&value.to_le_bytes());
        } else if value.is_null() {
            set_null(&mut row, position);
            row.resize(row.len() + feature.data_type.width(), 0);
        } else if matches!(feature.data_type, DataType::Str | DataType::Bytes) {
            // Where it will lie is filled in below.
            value.fits(feature.data_type).map_err(|got| group.mismatch(feature, got))?;
            row.extend_from_slice(&[0; 8]);
        } else {
            write_cell(group, feature, value, &mut row)?;
        }
    }
    if !group.has_variable() {
        return Ok(row);
    }
    for (position, value) in values.iter().enumerate() {
        let is_variable = matches!(value, Value::Str(_) | Value::Bytes(_));
        if let (true, Some(offset)) = (is_variable, group.offsets().get(position)) {
            let begin = row.len();
            row.extend_from_slice(value.variable());
            let place = [begin, row.len()].map(|end| u32::try_from(end).ok());
            let [Some(begin), Some(end)] = place else {
                return Err(Error::invalid(
                    format!("a row of group {}", group.label_str()),
                    "it is longer than 4 GiB: keep large values elsewhere",
                ));
            };
            let cell = row.get_mut(cells + offset..cells + offset + 8).unwrap_or_default();
            let ends = begin.to_le_bytes().into_iter().chain(end.to_le_bytes());
            cell.iter_mut().zip(ends).for_each(|(cell, byte)| *cell = byte);
        }
    }
    Ok(row)
}

/// Writes the header of a row of the group's own features.
fn write_header(row: &mut Vec<u8>, group: &Group, at: u64) {
    let count = u16::try_from(group.features().len()).unwrap_or(u16::MAX);
    row.extend_from_slice(&[FORMAT, KIND]);
    row.extend_from_slice(&group.lineage().to_le_bytes());
    row.extend_from_slice(&count.to_le_bytes());
    row.extend(at.to_be_bytes().into_iter().skip(1));
}

/// Sets a bit of the bitmap; the row reaches beyond it.
fn set_null(row: &mut [u8], position: usize) {
    if let Some(byte) = row.get_mut(HEADER + position / 8) {
        *byte |= 1 << (position % 8);
    }
}

fn write_cell(group: &Group, feature: &Feature, value: &Value, row: &mut Vec<u8>) -> Result<()> {
    if let (DataType::Vector(length), Value::Vector(values)) = (feature.data_type, value)
        && values.len() == usize::from(length)
    {
        for value in values {
            row.extend_from_slice(&value.to_le_bytes());
        }
        return Ok(());
    }
    let value = value.of_type(feature.data_type).map_err(|got| group.mismatch(feature, got))?;
    match (feature.data_type, value) {
        #[expect(clippy::cast_possible_truncation, reason = "the value was brought to the type")]
        (DataType::F32, Value::Float(value)) => {
            row.extend_from_slice(&(value as f32).to_le_bytes());
        }
        #[expect(clippy::cast_possible_truncation, reason = "the value was brought to the type")]
        (DataType::I32, Value::Int(value)) => row.extend_from_slice(&(value as i32).to_le_bytes()),
        (_, Value::Float(value)) => row.extend_from_slice(&value.to_le_bytes()),
        (_, Value::Int(value)) => row.extend_from_slice(&value.to_le_bytes()),
        (_, Value::Bool(value)) => row.push(value.into()),
        (_, Value::Time(value)) => {
            let micros = crate::value::micros(value).unwrap_or_default();
            row.extend_from_slice(&micros.to_le_bytes());
        }
        _ => row.resize(row.len() + feature.data_type.width(), 0),
    }
    Ok(())
}

/// Where the cells begin in a row of so many features.
fn cells_at(features: usize) -> usize {
    (HEADER + features.div_ceil(8)).next_multiple_of(4)
}

/// A stored row whose header makes sense.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedRow<'r> {
    bytes: &'r [u8],
    /// Features that the row and the reader have in common, from the first on.
    pub(crate) common: usize,
    cells: usize,
    /// Microseconds since the Unix epoch.
    pub(crate) at: u64,
}

impl<'r> PackedRow<'r> {
    pub(crate) fn read(group: &Group, bytes: &'r [u8]) -> Result<Self> {
        let corrupt = |problem: &str| Err(Error::corrupt(group.label_str(), problem));
        let [format, kind, l0, l1, c0, c1, t0, t1, t2, t3, t4, t5, t6, ..] = *bytes else {
            return corrupt("it is shorter than a header");
        };
        if kind != KIND {
            return corrupt("it is no row of features");
        }
        if format != FORMAT {
            return Err(Error::corrupt(
                group.label_str(),
                format!(
                    "its format is {format}, and this release reads {FORMAT}: update this service"
                ),
            ));
        }
        if u16::from_le_bytes([l0, l1]) != group.lineage() {
            return Err(Error::OtherLineage { group: group.label() });
        }
        let count = usize::from(u16::from_le_bytes([c0, c1]));
        if count == 0 || MAX_FEATURES < count {
            return corrupt("it has no features or too many");
        }
        let common = count.min(group.features().len());
        let cells = cells_at(count);
        let fixed = group.offsets().get(common).copied().unwrap_or_default();
        let is_whole = if count == common {
            bytes.len() >= cells + fixed
        } else {
            bytes.len() > cells + fixed
        };
        if !is_whole {
            return corrupt("it ends before its last cell");
        }
        let at = u64::from_be_bytes([0, t0, t1, t2, t3, t4, t5, t6]);
        Ok(Self { bytes, common, cells, at })
    }

    pub(crate) fn is_null(&self, position: usize) -> bool {
        let byte = self.bytes.get(HEADER + position / 8).copied().unwrap_or_default();
        byte & (1 << (position % 8)) != 0
    }

    /// Whether no feature is null.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes
            .get(HEADER..self.cells)
            .is_some_and(|bitmap| bitmap.iter().all(|byte| *byte == 0))
    }

    /// The bytes of cells, from an offset that the group gave.
    pub(crate) fn cell(&self, offset: usize, width: usize) -> &'r [u8] {
        let begin = self.cells + offset;
        self.bytes.get(begin..begin + width).unwrap_or_default()
    }

    /// The value of a feature; `None` if the row's writer did not know the feature.
    pub(crate) fn value(&self, group: &Group, position: usize) -> Result<Option<Value>> {
        let (Some(feature), Some(offset)) =
            (group.features().get(position), group.offsets().get(position))
        else {
            return Ok(None);
        };
        if self.common <= position {
            return Ok(None);
        }
        if self.is_null(position) {
            return Ok(Some(Value::Null));
        }
        let cell = self.cell(*offset, feature.data_type.width());
        let corrupt = |problem: &str| {
            Error::corrupt(group.label_str(), format!("{}: {problem}", feature.name))
        };
        let value = match (feature.data_type, cell) {
            (DataType::F32, _) => Value::Float(f64::from(f32::from_le_bytes(array(cell)))),
            (DataType::F64, _) => Value::Float(f64::from_le_bytes(array(cell))),
            (DataType::I32, _) => Value::Int(i32::from_le_bytes(array(cell)).into()),
            (DataType::I64, _) => Value::Int(i64::from_le_bytes(array(cell))),
            (DataType::Bool, [0]) => Value::Bool(false),
            (DataType::Bool, [1]) => Value::Bool(true),
            (DataType::Bool, _) => return Err(corrupt("it is neither true nor false")),
            (DataType::Time, _) => {
                let micros = i64::from_le_bytes(array(cell));
                Value::Time(time(micros).ok_or_else(|| corrupt("the time is out of range"))?)
            }
            (DataType::Vector(_), _) => {
                let (values, _) = cell.as_chunks::<4>();
                Value::Vector(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
            (DataType::Str | DataType::Bytes, _) => {
                let place: [u8; 8] = array(cell);
                let [b0, b1, b2, b3, e0, e1, e2, e3] = place;
                let begin = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
                let end = u32::from_le_bytes([e0, e1, e2, e3]) as usize;
                let bytes = self.bytes.get(begin..end).filter(|_| self.cells <= begin);
                let bytes = bytes.ok_or_else(|| corrupt("it lies outside of the row"))?;
                if feature.data_type == DataType::Bytes {
                    Value::Bytes(Bytes::copy_from_slice(bytes))
                } else {
                    let text = str::from_utf8(bytes).map_err(|_| corrupt("it is no UTF-8"))?;
                    Value::Str(text.to_owned())
                }
            }
        };
        Ok(Some(value))
    }
}

/// The bytes of a cell of this width; shorter ones do not come out of a checked row.
pub(crate) fn array<const N: usize>(cell: &[u8]) -> [u8; N] {
    cell.try_into().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::FeatureGroup;

    fn group(count: usize, lineage: u16) -> Group {
        let types = [
            DataType::F32,
            DataType::Str,
            DataType::Bool,
            DataType::I64,
            DataType::Vector(3),
            DataType::F64,
            DataType::Bytes,
            DataType::Time,
            DataType::I32,
        ];
        let builder = FeatureGroup::builder("t", "g");
        let builder = (0..count).fold(builder, |group, position| {
            group.feature(format!("f{position}"), types[position % types.len()])
        });
        Group::new(builder.build().unwrap(), 1, lineage)
    }

    fn any_value(data_type: DataType) -> BoxedStrategy<Value> {
        let value = match data_type {
            DataType::F32 => any::<f32>().prop_map(Value::from).boxed(),
            DataType::F64 => any::<f64>().prop_map(Value::from).boxed(),
            DataType::I32 => any::<i32>().prop_map(Value::from).boxed(),
            DataType::I64 => any::<i64>().prop_map(Value::from).boxed(),
            DataType::Bool => any::<bool>().prop_map(Value::from).boxed(),
            DataType::Str => any::<String>().prop_map(Value::from).boxed(),
            DataType::Bytes => {
                prop::collection::vec(any::<u8>(), 0..30).prop_map(Value::from).boxed()
            }
            DataType::Time => (0..u32::MAX)
                .prop_map(|micros| (UNIX_EPOCH + Duration::from_micros(micros.into())).into())
                .boxed(),
            DataType::Vector(length) => prop::collection::vec(any::<f32>(), usize::from(length))
                .prop_map(Value::from)
                .boxed(),
        };
        prop_oneof![4 => value, 1 => Just(Value::Null)].boxed()
    }

    fn any_values(count: usize) -> impl Strategy<Value = Vec<Value>> {
        let group = group(count, 1);
        group.features().iter().map(|feature| any_value(feature.data_type)).collect::<Vec<_>>()
    }

    fn same(a: &Value, b: &Value) -> bool {
        // Not-a-numbers are alike by their bits.
        format!("{a:?}") == format!("{b:?}")
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn rows_come_back_whole_for_older_and_newer_readers(
            values in (1_usize..40).prop_flat_map(any_values),
            readers in 1_usize..40,
            at in 0_u64..1 << 53,
        ) {
            let row = encode(&group(values.len(), 7), at, &values).unwrap();
            let reader = group(readers, 7);
            let read = PackedRow::read(&reader, &row).unwrap();
            prop_assert_eq!(read.at, at);
            for position in 0..readers {
                let value = read.value(&reader, position).unwrap();
                match values.get(position) {
                    Some(written) => prop_assert!(same(&value.unwrap(), written)),
                    None => prop_assert!(value.is_none()),
                }
            }
            let other = PackedRow::read(&group(readers, 8), &row);
            let is_refused = matches!(other, Err(Error::OtherLineage { .. }));
            prop_assert!(is_refused);
        }

        #[test]
        fn any_bytes_are_rows_or_errors(
            values in (1_usize..20).prop_flat_map(any_values),
            cut in any::<prop::sample::Index>(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            random in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let reader = group(12, 7);
            let mut row = encode(&group(values.len(), 7), 5, &values).unwrap();
            for (place, byte) in flips {
                let place = place.index(row.len());
                row[place] = byte;
            }
            for bytes in [&row[..], &row[..cut.index(row.len())], &random] {
                if let Ok(read) = PackedRow::read(&reader, bytes) {
                    for position in 0..12 {
                        let _ = read.value(&reader, position);
                    }
                }
            }
        }
    }

    #[test]
    fn fifty_floats_take_220_bytes() {
        let group = FeatureGroup::builder("user", "profile")
            .features((0..50).map(|position| format!("f{position}")), DataType::F32)
            .build()
            .unwrap();
        let values = vec![Value::from(0.5_f32); 50];
        assert_eq!(encode(&Group::new(group, 1, 1), 1, &values).unwrap().len(), 220);
    }
}
