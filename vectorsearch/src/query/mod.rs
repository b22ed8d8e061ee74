//! What can be asked of an index.

mod find;
mod hybrid;
mod knn;
mod range;

use std::time::Duration;

use inferkit_core::Cmd;

pub use find::{Find, MAX_OFFSET, Order};
pub use hybrid::{Fused, FusedHit, Hybrid};
pub use knn::{DISTANCE_FIELD, HybridPolicy, Knn, MAX_K};
pub use range::Range;

use crate::filter::{Rendered, Rendering};
use crate::schema::check_field_name;
use crate::{DataType, Error, FieldKind, Filter, Result, Schema, Vector};

/// A field that no document has.
///
/// The server only notices that a document has expired when it reads a field of it; without one it returns the document
/// as a hit.
const ABSENT_FIELD: &str = "__absent";

/// A search by vector: the nearest, or all within a distance.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Query<'q> {
    /// The nearest neighbors.
    Knn(&'q Knn),
    /// The neighbors within a distance.
    Range(&'q Range),
}

impl Query<'_> {
    /// Returns the `FT.SEARCH` command; its reply reads as a [`SearchResult`](crate::SearchResult).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::FieldKindMismatch`] or [`Error::DimensionMismatch`] if the query does not fit
    /// the schema.
    pub fn to_cmd(&self, schema: &Schema) -> Result<Cmd> {
        match self {
            Self::Knn(knn) => knn.to_cmd(schema),
            Self::Range(range) => range.to_cmd(schema),
        }
    }

    /// The most hits that the server can answer with.
    pub(crate) fn limit(&self) -> usize {
        match self {
            Self::Knn(knn) => knn.k(),
            Self::Range(range) => range.limit(),
        }
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Knn(knn) => knn.timeout(),
            Self::Range(range) => range.timeout(),
        }
    }
}

impl<'q> From<&'q Knn> for Query<'q> {
    fn from(knn: &'q Knn) -> Self {
        Self::Knn(knn)
    }
}

impl<'q> From<&'q Range> for Query<'q> {
    fn from(range: &'q Range) -> Self {
        Self::Range(range)
    }
}

/// A vector field of the schema that `vector` fits.
pub(crate) fn vector_field<'s>(
    schema: &'s Schema,
    field: &str,
    vector: &Vector,
) -> Result<(&'s FieldKind, DataType)> {
    let kind = field_of(schema, field)?;
    let FieldKind::Vector { dimensions, data_type, .. } = kind else {
        return Err(Error::FieldKindMismatch { field: field.to_owned(), expected: "VECTOR" });
    };
    if vector.dimensions() != *dimensions {
        return Err(Error::DimensionMismatch { expected: *dimensions, got: vector.dimensions() });
    }
    Ok((kind, *data_type))
}

pub(crate) fn field_of<'s>(schema: &'s Schema, field: &str) -> Result<&'s FieldKind> {
    match schema.field(field) {
        Some(field) => Ok(field.kind()),
        None => {
            Err(Error::UnknownField { index: schema.index().to_owned(), field: field.to_owned() })
        }
    }
}

/// The text of a filter and its parameters.
fn filter_text(filter: &Filter, schema: &Schema) -> Result<(String, Params)> {
    let Rendered { text, params } = filter.render(schema, Rendering::Params)?;
    Ok((text, params))
}

/// The names and values of the parameters of a query.
type Params = Vec<(String, String)>;

/// Appends `PARAMS` with all parameters of a query.
fn append_params(cmd: Cmd, vector: Option<&[u8]>, params: &Params) -> Cmd {
    let count = params.len() + usize::from(vector.is_some());
    if count == 0 {
        return cmd;
    }
    let mut cmd = cmd.arg("PARAMS").arg(2 * count);
    if let Some(vector) = vector {
        cmd = cmd.arg("vector").arg(vector);
    }
    for (name, value) in params {
        cmd = cmd.arg(name).arg(value);
    }
    cmd
}

/// Appends `RETURN` with the fields that the hits shall carry; `first` is returned always.
fn append_return(cmd: Cmd, first: Option<&str>, fields: &[String]) -> Cmd {
    let cmd = cmd.arg("RETURN").arg(usize::from(first.is_some()) + fields.len().max(1));
    let cmd = first.into_iter().fold(cmd, Cmd::arg);
    if fields.is_empty() { cmd.arg(ABSENT_FIELD) } else { cmd.args(fields) }
}

/// Appends the time limit and the dialect.
fn append_end(mut cmd: Cmd, timeout: Option<Duration>) -> Cmd {
    if let Some(timeout) = timeout {
        // Zero would mean no limit.
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        cmd = cmd.arg("TIMEOUT").arg(millis.clamp(1, u64::from(u32::MAX)));
    }
    cmd.args(["DIALECT", "2"]).readonly()
}

/// Adds checked field names, each once.
fn add_fields<F: Into<String>>(
    returning: &mut Vec<String>,
    fields: impl IntoIterator<Item = F>,
) -> Result<()> {
    for field in fields {
        let field = field.into();
        check_field_name(&field)?;
        if !returning.contains(&field) {
            returning.push(field);
        }
    }
    Ok(())
}
