use std::ops::Bound;

use inferkit_vectorsearch::{Error, Field, FieldKind, Filter, Result as VectorResult, Schema};
use rig_core::vector_store::VectorStoreError;
use rig_core::vector_store::request::{Filter as RigFilter, FilterError};
use serde_json::Value;

/// Translates a filter of rig to one of a schema.
///
/// | rig | on a field | here |
/// |---|---|---|
/// | `eq` with text or a boolean | TAG | [`Filter::tag`] |
/// | `eq` with a number | NUMERIC | [`Filter::number`], the one number |
/// | `gt`, `lt` with a number | NUMERIC | [`Filter::number`], without the bound itself |
/// | `and`, `or` | | `&`, `\|` |
///
/// # Errors
///
/// [`VectorStoreError::FilterError`] for all else: [`FilterError::MissingField`] if the schema has no such field,
/// [`FilterError::Expected`] if the value is not of the kind that the field holds, [`FilterError::TypeError`] if the field
/// cannot be compared like that.
/// [`VectorStoreError::DatastoreError`] with our [`Error`] for values that no field can hold, such as empty text.
pub fn translate(filter: &RigFilter<Value>, schema: &Schema) -> Result<Filter, VectorStoreError> {
    match filter {
        RigFilter::And(left, right) => Ok(translate(left, schema)? & translate(right, schema)?),
        RigFilter::Or(left, right) => Ok(translate(left, schema)? | translate(right, schema)?),
        RigFilter::Eq(key, value) => match kind(schema, key)? {
            FieldKind::Tag => match value {
                Value::String(text) => made(Filter::tag(key, text)),
                Value::Bool(value) => made(Filter::tag(key, value.to_string())),
                other => Err(expected("text or a boolean", other)),
            },
            FieldKind::Numeric => {
                let number = number(value)?;
                made(Filter::number(key, number..=number))
            }
            _ => Err(cannot("eq", key)),
        },
        RigFilter::Gt(key, value) => {
            compare("gt", key, value, schema, |number| (Bound::Excluded(number), Bound::Unbounded))
        }
        RigFilter::Lt(key, value) => {
            compare("lt", key, value, schema, |number| (Bound::Unbounded, Bound::Excluded(number)))
        }
    }
}

fn compare(
    name: &str,
    key: &str,
    value: &Value,
    schema: &Schema,
    range: impl Fn(f64) -> (Bound<f64>, Bound<f64>),
) -> Result<Filter, VectorStoreError> {
    match kind(schema, key)? {
        FieldKind::Numeric => made(Filter::number(key, range(number(value)?))),
        _ => Err(cannot(name, key)),
    }
}

fn kind<'s>(schema: &'s Schema, key: &str) -> Result<&'s FieldKind, VectorStoreError> {
    let missing = || FilterError::MissingField(key.to_owned());
    Ok(schema.field(key).map(Field::kind).ok_or_else(missing)?)
}

fn number(value: &Value) -> Result<f64, VectorStoreError> {
    let number = value.as_f64().ok_or_else(|| expected("a number", value))?;
    // The server compares 64-bit floats: a larger integer would match its neighbors, too.
    let exact = match (value.as_i64(), value.as_u64()) {
        (Some(integer), _) => integer.unsigned_abs() <= 1 << 53,
        (None, Some(integer)) => integer <= 1 << 53,
        (None, None) => true,
    };
    if exact { Ok(number) } else { Err(expected("an integer of at most 2^53", value)) }
}

fn made(filter: VectorResult<Filter>) -> Result<Filter, VectorStoreError> {
    filter.map_err(|error: Error| VectorStoreError::datastore(error))
}

/// Says what came without its value.
fn expected(what: &str, got: &Value) -> VectorStoreError {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    FilterError::Expected { expected: what.to_owned(), got: got.to_owned() }.into()
}

fn cannot(comparison: &str, key: &str) -> VectorStoreError {
    FilterError::TypeError(format!("{comparison} on field `{key}`")).into()
}
