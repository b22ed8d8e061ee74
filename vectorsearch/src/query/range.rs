use std::time::Duration;

use inferkit_core::Cmd;

use super::{
    DISTANCE_FIELD, Knn, append_end, append_params, append_return, filter_text, vector_field,
};
use crate::{Algorithm, Distance, FieldKind, Filter, Result, Schema, SearchResult, Vector};

/// A query for the documents within a distance of a vector, the nearest first.
///
/// On a FLAT field the server compares every vector (`VECTOR_RANGE`), so the answer is exact.
/// On other fields the nearest neighbors are asked for, and those beyond the distance are cut off here: the server's own
/// range search over a graph stops at the first dead end and was measured to miss a quarter of certain hits.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Distance, Filter, Range, Vector};
///
/// let query = Range::new("embedding", Vector::new([0.1, 0.9])?, Distance::new(0.2)?, 100, Filter::all())?;
/// # let _ = query;
/// # Ok::<(), inferkit_vectorsearch::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    knn: Knn,
    radius: Distance,
}

impl Range {
    /// Asks for the up to `limit` documents that are nearest to `vector` and no further than `radius`.
    ///
    /// The radius is a distance of the field's [`Metric`](crate::Metric), so squared for L2.
    /// The server computes in 32-bit floats: leave a radius some slack, a vector is about 1e-7 away from itself.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidK`](crate::Error::InvalidK) if `limit` is 0 or above [`MAX_K`](crate::MAX_K).
    pub fn new(
        field: impl Into<String>,
        vector: Vector,
        radius: Distance,
        limit: usize,
        filter: Filter,
    ) -> Result<Self> {
        Ok(Self { knn: Knn::new(field, vector, limit, filter)?, radius })
    }

    /// Sets how many candidates an HNSW search keeps; see [`Knn::with_ef_runtime`].
    ///
    /// # Errors
    ///
    /// As [`Knn::with_ef_runtime`].
    pub fn with_ef_runtime(self, ef_runtime: usize) -> Result<Self> {
        Ok(Self { knn: self.knn.with_ef_runtime(ef_runtime)?, ..self })
    }

    /// Sets the time that the server may take; see [`Knn::with_timeout`].
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { knn: self.knn.with_timeout(timeout), ..self }
    }

    /// Adds fields of the hash that hits shall carry; see [`Knn::returning`].
    ///
    /// # Errors
    ///
    /// As [`Knn::returning`].
    pub fn returning<F: Into<String>>(self, fields: impl IntoIterator<Item = F>) -> Result<Self> {
        Ok(Self { knn: self.knn.returning(fields)?, ..self })
    }

    /// Returns the largest number of hits.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.knn.k()
    }

    /// Returns the largest distance of a hit.
    #[must_use]
    pub fn radius(&self) -> Distance {
        self.radius
    }

    /// Returns the time that the server may take, if set.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.knn.timeout()
    }

    /// Returns the query for the nearest, without the distance.
    #[must_use]
    pub fn knn(&self) -> &Knn {
        &self.knn
    }

    pub(crate) fn with_filter(&self, filter: Filter) -> Self {
        Self { knn: self.knn.with_filter(filter), radius: self.radius }
    }

    /// Cuts off the hits that are too far.
    pub fn cut(&self, result: &mut SearchResult) {
        result.hits.retain(|hit| hit.distance <= self.radius);
    }

    /// Returns the `FT.SEARCH` command; its reply reads as a [`SearchResult`], from which
    /// [`RedisVectorIndex`](crate::RedisVectorIndex) cuts off what is beyond the radius.
    ///
    /// # Errors
    ///
    /// As [`Knn::to_cmd`].
    pub fn to_cmd(&self, schema: &Schema) -> Result<Cmd> {
        let knn = &self.knn;
        let (kind, data_type) = vector_field(schema, &knn.field, &knn.vector)?;
        let flat = matches!(kind, FieldKind::Vector { algorithm: Algorithm::Flat, .. });
        // The server refuses a negative radius, which an inner product can have.
        if !flat || self.radius.as_f64() < 0.0 {
            return knn.to_cmd(schema);
        }
        let (filter, mut values) = filter_text(&knn.filter, schema)?;
        let text = format!(
            "@{}:[VECTOR_RANGE $radius $vector]=>{{$YIELD_DISTANCE_AS: {DISTANCE_FIELD}}}{}{}",
            knn.field,
            if filter == "*" { "" } else { " " },
            if filter == "*" { "" } else { &filter },
        );
        let radius = self.radius.as_f64().to_string();
        values.push(("radius".to_owned(), radius));
        let capacity = 512 + 4 * knn.vector.dimensions();
        let cmd = Cmd::with_capacity("FT.SEARCH", capacity).key(schema.index()).arg(text);
        let cmd = append_params(cmd, Some(&data_type.encode(&knn.vector)?), &values);
        let cmd = append_return(cmd, Some(DISTANCE_FIELD), &knn.returning);
        let cmd = cmd.args(["SORTBY", DISTANCE_FIELD, "ASC", "LIMIT", "0"]).arg(knn.k());
        Ok(append_end(cmd, knn.timeout))
    }
}
