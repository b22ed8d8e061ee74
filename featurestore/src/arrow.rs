//! Rows from Arrow record batches and Parquet files (features `arrow` and `parquet`).

use std::sync::Arc;
use std::time::SystemTime;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType as ArrowType, Schema, TimeUnit};
use bytes::Bytes;

use crate::entity::{Entity, EntityKey};
use crate::error::{Error, Result};
use crate::row::Row;
use crate::schema::{DataType, FeatureGroup, Group, GroupBuilder};
use crate::value::{Value, time};

/// Which columns of a batch or file are what.
///
/// Features are taken from columns of their own names; a feature without a column is null.
#[derive(Clone, Debug)]
#[must_use]
pub struct Columns {
    entity: Vec<String>,
    time: Option<String>,
    at: Option<SystemTime>,
}

impl Columns {
    /// Names the columns of the entity's keys, in the order of the group's, and the column of the event's time.
    ///
    /// A time is an Arrow timestamp, or an integer of microseconds since the Unix epoch.
    pub fn new<N: Into<String>>(
        entity: impl IntoIterator<Item = N>,
        time: impl Into<String>,
    ) -> Self {
        Self {
            entity: entity.into_iter().map(Into::into).collect(),
            time: Some(time.into()),
            at: None,
        }
    }

    /// Names the columns of the entity's keys; all rows have the same event time.
    pub fn at<N: Into<String>>(entity: impl IntoIterator<Item = N>, at: SystemTime) -> Self {
        Self { entity: entity.into_iter().map(Into::into).collect(), time: None, at: Some(at) }
    }

    /// Starts the definition of a group with a feature for each column of a schema but those of the entity and the time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a column that no feature can hold, such as a list whose length is not fixed.
    pub fn group(&self, entity_type: &str, name: &str, schema: &Schema) -> Result<GroupBuilder> {
        let mut group = FeatureGroup::builder(entity_type, name).keyed_by(self.entity.clone());
        for field in schema.fields() {
            let column = field.name();
            if self.entity.contains(column) || self.time.as_ref() == Some(column) {
                continue;
            }
            let data_type = feature_type(field.data_type()).ok_or_else(|| {
                let what = format!("column {column}");
                Error::invalid(
                    what,
                    format!("no feature holds an Arrow {}: leave it out", field.data_type()),
                )
            })?;
            group = group.feature(column, data_type);
        }
        Ok(group)
    }

    /// Makes rows of a record batch.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a column of the entity or of the time is not there, has another type, or has a null;
    /// [`Error::TypeMismatch`] if a feature's column does not fit it.
    pub fn rows(&self, group: &Group, batch: &RecordBatch) -> Result<Vec<Row>> {
        let count = batch.num_rows();
        let invalid = |column: &str, problem: &str| {
            Error::invalid(format!("column {column} for group {}", group.label()), problem)
        };
        let mut entities: Vec<Vec<EntityKey>> = vec![Vec::new(); count];
        for name in &self.entity {
            let column =
                batch.column_by_name(name).ok_or_else(|| invalid(name, "it is not there"))?;
            for (row, keys) in entities.iter_mut().enumerate() {
                keys.push(match value(column, row) {
                    Some(Value::Int(key)) => EntityKey::from(key),
                    Some(Value::Str(key)) => EntityKey::from(key),
                    Some(Value::Bytes(key)) => EntityKey::from(&key[..]),
                    Some(Value::Null) => return Err(invalid(name, "an entity's key is null")),
                    _ => return Err(invalid(name, "keys are integers, texts or bytes")),
                });
            }
        }
        let mut times = vec![self.at; count];
        if let Some(name) = &self.time {
            let column =
                batch.column_by_name(name).ok_or_else(|| invalid(name, "it is not there"))?;
            for (row, at) in times.iter_mut().enumerate() {
                *at = match value(column, row) {
                    Some(Value::Time(at)) => Some(at),
                    Some(Value::Int(micros)) => time(micros),
                    Some(Value::Null) => return Err(invalid(name, "an event's time is null")),
                    _ => return Err(invalid(name, "times are timestamps or microseconds")),
                };
            }
        }
        let columns: Vec<Option<&Arc<dyn Array>>> =
            group.features().iter().map(|own| batch.column_by_name(own.name())).collect();
        let mut rows = Vec::with_capacity(count);
        for (row, (keys, at)) in entities.into_iter().zip(times).enumerate() {
            let at = at.ok_or_else(|| invalid("of the event's time", "a time is out of range"))?;
            let mut values = Vec::with_capacity(columns.len());
            for (column, feature) in columns.iter().zip(group.features()) {
                let Some(column) = column else {
                    values.push(Value::Null);
                    continue;
                };
                let value = value(column, row).ok_or_else(|| Error::TypeMismatch {
                    group: group.label(),
                    feature: feature.name().to_owned(),
                    expected: feature.data_type().to_string(),
                    got: format!("an Arrow {}", column.data_type()),
                })?;
                // Some writers know no booleans.
                values.push(match (value, feature.data_type()) {
                    (Value::Int(value), DataType::Bool) if value == 0 || value == 1 => {
                        Value::Bool(value == 1)
                    }
                    (value, _) => value,
                });
            }
            rows.push(Row::new(Entity::composite(keys), at, values));
        }
        Ok(rows)
    }
}

/// The type of a feature that holds a column of this type; `None` if there is none, or its length is not known.
fn feature_type(column: &ArrowType) -> Option<DataType> {
    Some(match column {
        ArrowType::Boolean => DataType::Bool,
        ArrowType::Int8
        | ArrowType::Int16
        | ArrowType::Int32
        | ArrowType::UInt8
        | ArrowType::UInt16 => DataType::I32,
        ArrowType::Int64 | ArrowType::UInt32 | ArrowType::UInt64 => DataType::I64,
        ArrowType::Float32 => DataType::F32,
        ArrowType::Float64 => DataType::F64,
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => DataType::Str,
        ArrowType::Binary | ArrowType::LargeBinary | ArrowType::BinaryView => DataType::Bytes,
        ArrowType::Timestamp(..) => DataType::Time,
        ArrowType::FixedSizeList(_, length) => DataType::Vector(u16::try_from(*length).ok()?),
        _ => return None,
    })
}

/// The value in a row of a column; `None` for types that no feature has.
fn value(column: &Arc<dyn Array>, row: usize) -> Option<Value> {
    macro_rules! number {
        ($type:ty) => {
            column.as_primitive::<$type>().value(row)
        };
    }
    if column.is_null(row) {
        return Some(Value::Null);
    }
    Some(match column.data_type() {
        ArrowType::Null => Value::Null,
        ArrowType::Boolean => Value::Bool(column.as_boolean().value(row)),
        ArrowType::Int8 => Value::Int(number!(Int8Type).into()),
        ArrowType::Int16 => Value::Int(number!(Int16Type).into()),
        ArrowType::Int32 => Value::Int(number!(Int32Type).into()),
        ArrowType::Int64 => Value::Int(number!(Int64Type)),
        ArrowType::UInt8 => Value::Int(number!(UInt8Type).into()),
        ArrowType::UInt16 => Value::Int(number!(UInt16Type).into()),
        ArrowType::UInt32 => Value::Int(number!(UInt32Type).into()),
        ArrowType::UInt64 => Value::Int(i64::try_from(number!(UInt64Type)).ok()?),
        ArrowType::Float32 => Value::from(number!(Float32Type)),
        ArrowType::Float64 => Value::Float(number!(Float64Type)),
        ArrowType::Utf8 => Value::from(column.as_string::<i32>().value(row)),
        ArrowType::LargeUtf8 => Value::from(column.as_string::<i64>().value(row)),
        ArrowType::Utf8View => Value::from(column.as_string_view().value(row)),
        ArrowType::Binary => bytes(column.as_binary::<i32>().value(row)),
        ArrowType::LargeBinary => bytes(column.as_binary::<i64>().value(row)),
        ArrowType::BinaryView => bytes(column.as_binary_view().value(row)),
        ArrowType::Timestamp(unit, _) => Value::Time(time(timestamp(column, *unit, row)?)?),
        ArrowType::List(_) => vector(&column.as_list::<i32>().value(row))?,
        ArrowType::LargeList(_) => vector(&column.as_list::<i64>().value(row))?,
        ArrowType::FixedSizeList(..) => vector(&column.as_fixed_size_list().value(row))?,
        _ => return None,
    })
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(Bytes::copy_from_slice(bytes))
}

fn timestamp(column: &Arc<dyn Array>, unit: TimeUnit, row: usize) -> Option<i64> {
    use arrow_array::types::{
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType,
    };
    match unit {
        TimeUnit::Second => {
            column.as_primitive::<TimestampSecondType>().value(row).checked_mul(1_000_000)
        }
        TimeUnit::Millisecond => {
            column.as_primitive::<TimestampMillisecondType>().value(row).checked_mul(1_000)
        }
        TimeUnit::Microsecond => Some(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        TimeUnit::Nanosecond => {
            Some(column.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000))
        }
    }
}

/// A list of floats without nulls.
fn vector(values: &Arc<dyn Array>) -> Option<Value> {
    if 0 < values.null_count() {
        return None;
    }
    match values.data_type() {
        ArrowType::Float32 => {
            Some(Value::Vector(values.as_primitive::<Float32Type>().values().to_vec()))
        }
        ArrowType::Float64 => {
            let values = values.as_primitive::<Float64Type>().values();
            values
                .iter()
                .map(|value| crate::value::narrow(*value))
                .collect::<Option<_>>()
                .map(Value::Vector)
        }
        _ => None,
    }
}

#[cfg(feature = "parquet")]
pub use self::files::{parquet_rows, parquet_schema, read_parquet};

#[cfg(feature = "parquet")]
mod files {
    use std::fs::File;
    use std::path::Path;

    use arrow_schema::SchemaRef;
    use futures_util::stream;
    use parquet::arrow::ProjectionMask;
    use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

    use super::{Columns, Error, Group, Result, Row};

    /// How many rows a batch of a file has.
    const BATCH: usize = 4_096;

    type Batches = Box<dyn Iterator<Item = Result<Vec<Row>>> + Send>;

    /// Reads the rows of a Parquet file, batch by batch, for [`Load`](crate::Load); only the columns that are wanted.
    ///
    /// Batches are read and converted on tokio's threads for blocking work.
    ///
    /// # Errors
    ///
    /// Each item may be [`Error::Source`], or as [`Columns::rows`].
    pub fn parquet_rows(
        path: &Path,
        group: &Group,
        columns: &Columns,
    ) -> impl futures_util::Stream<Item = Result<Vec<Row>>> + use<> {
        let (path, group, columns) = (path.to_owned(), group.clone(), columns.clone());
        let open = move || {
            read_parquet(&path, &group, &columns).map(|(_, batches)| Box::new(batches) as Batches)
        };
        stream::unfold(State::Closed(Box::new(open)), |state| async move {
            let next = tokio::task::spawn_blocking(move || state.next()).await;
            next.unwrap_or_else(|error| {
                let source = Box::new(error);
                Some((Err(Error::Source { row: 0, source }), State::Done))
            })
        })
    }

    enum State {
        Closed(Box<dyn FnOnce() -> Result<Batches> + Send>),
        Open(Batches),
        Done,
    }

    impl State {
        fn next(self) -> Option<(Result<Vec<Row>>, Self)> {
            let mut batches = match self {
                Self::Closed(open) => match open() {
                    Ok(batches) => batches,
                    Err(error) => return Some((Err(error), Self::Done)),
                },
                Self::Open(batches) => batches,
                Self::Done => return None,
            };
            match batches.next()? {
                Ok(rows) => Some((Ok(rows), Self::Open(batches))),
                Err(error) => Some((Err(error), Self::Done)),
            }
        }
    }

    /// Returns the columns of a Parquet file, and how many rows it has.
    ///
    /// This blocks: call it outside of async threads.
    ///
    /// # Errors
    ///
    /// [`Error::Source`].
    pub fn parquet_schema(path: &Path) -> Result<(SchemaRef, u64)> {
        let file = File::open(path).map_err(|error| source(0, error))?;
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| source(0, error))?;
        let rows = builder.metadata().file_metadata().num_rows();
        Ok((std::sync::Arc::clone(builder.schema()), u64::try_from(rows).unwrap_or_default()))
    }

    /// Opens a Parquet file and returns how many rows it has, and its batches.
    ///
    /// This blocks: call it outside of async threads.
    ///
    /// # Errors
    ///
    /// [`Error::Source`]; each item as [`Columns::rows`].
    pub fn read_parquet(
        path: &Path,
        group: &Group,
        columns: &Columns,
    ) -> Result<(u64, impl Iterator<Item = Result<Vec<Row>>> + Send + use<>)> {
        let file = File::open(path).map_err(|error| source(0, error))?;
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| source(0, error))?;
        let total =
            u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        let wanted = columns
            .entity
            .iter()
            .chain(&columns.time)
            .map(String::as_str)
            .chain(group.features().iter().map(|own| own.name()));
        let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
        let reader: ParquetRecordBatchReader = builder
            .with_projection(mask)
            .with_batch_size(BATCH)
            .build()
            .map_err(|error| source(0, error))?;
        let (group, columns) = (group.clone(), columns.clone());
        let mut row = 0;
        let batches = reader.map(move |batch| {
            let batch = batch.map_err(|error| source(row, error))?;
            row += batch.num_rows() as u64;
            columns.rows(&group, &batch)
        });
        Ok((total, batches))
    }

    fn source(row: u64, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Source { row, source: error.into() }
    }
}
