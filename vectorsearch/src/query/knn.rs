use std::time::Duration;

use inferkit_core::Cmd;

use super::{add_fields, append_end, append_params, append_return, filter_text, vector_field};
use crate::schema::check_range;
use crate::{Algorithm, Error, FieldKind, Filter, Result, Schema, Vector};

/// The name under which the server returns the distance of a hit.
pub const DISTANCE_FIELD: &str = "__distance";

/// The most neighbors that one query can ask for.
pub const MAX_K: usize = 10_000;

/// A query for the `k` nearest neighbors of a vector among the documents that a [`Filter`] considers.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Filter, Knn, Vector};
///
/// let question = Vector::new([0.1, 0.9])?;
/// let query = Knn::new("embedding", question, 5, Filter::tag("tenant", "acme")?)?.returning(["title"])?;
/// # let _ = query;
/// # Ok::<(), inferkit_vectorsearch::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Knn {
    pub(super) field: String,
    pub(super) vector: Vector,
    k: usize,
    pub(super) filter: Filter,
    ef_runtime: Option<usize>,
    policy: Option<HybridPolicy>,
    pub(super) returning: Vec<String>,
    pub(super) timeout: Option<Duration>,
}

/// How an HNSW or FLAT search with a filter is done; the server chooses by itself, and nearly always well.
///
/// Measured on 100 000 vectors: a forced policy cost up to 40 times (brute force under a wide filter) and up to 230 times
/// and a sixth of the hits (batches under a narrow one).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HybridPolicy {
    /// All documents that pass the filter are compared: exact.
    AdhocBruteForce,
    /// The nearest neighbors are walked, and those that pass the filter are kept, in batches.
    Batches {
        /// The size of a batch (1 to 1 000 000); without it the server chooses.
        size: Option<usize>,
    },
}

impl Knn {
    /// Asks for the `k` documents whose vector `field` is nearest to `vector`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidK`] if `k` is 0 or above [`MAX_K`].
    pub fn new(field: impl Into<String>, vector: Vector, k: usize, filter: Filter) -> Result<Self> {
        if !(1..=MAX_K).contains(&k) {
            return Err(Error::InvalidK { k, max: MAX_K });
        }
        Ok(Self {
            field: field.into(),
            vector,
            k,
            filter,
            ef_runtime: None,
            policy: None,
            returning: Vec::new(),
            timeout: None,
        })
    }

    /// Sets how many candidates an HNSW search keeps (1 to 20 000): more find more of the true neighbors, and cost more.
    ///
    /// The default is 64 or twice `k`, whichever is more; the server's own default of 10 misses one neighbor in five.
    /// A FLAT index is exact and takes no such number, so none is sent.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidParameter`] if it is out of range.
    pub fn with_ef_runtime(mut self, ef_runtime: usize) -> Result<Self> {
        check_range("EF_RUNTIME", ef_runtime, 1, 2 * MAX_K)?;
        self.ef_runtime = Some(ef_runtime);
        Ok(self)
    }

    /// Sets how a filtered search is done; without a filter it has no effect.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidParameter`] if the size of a batch is out of range.
    pub fn with_hybrid_policy(mut self, policy: HybridPolicy) -> Result<Self> {
        if let HybridPolicy::Batches { size: Some(size) } = policy {
            check_range("BATCH_SIZE", size, 1, 1_000_000)?;
        }
        self.policy = Some(policy);
        Ok(self)
    }

    /// Sets the time that the server may take (at least a millisecond); without it the server's setting holds, 500 ms.
    ///
    /// When it is over the server answers with what it has; see [`SearchResult::partial`](crate::SearchResult::partial).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Adds fields of the hash that hits shall carry, part of the schema or not; by default they carry none.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if one is not a field name.
    pub fn returning<F: Into<String>>(
        mut self,
        fields: impl IntoIterator<Item = F>,
    ) -> Result<Self> {
        add_fields(&mut self.returning, fields)?;
        Ok(self)
    }

    /// Returns the number of neighbors asked for.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Returns the time that the server may take, if set.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Returns the `FT.SEARCH` command; its reply reads as a [`SearchResult`](crate::SearchResult).
    ///
    /// To send it in a [`Batch`](inferkit_core::Batch), push it as a `SearchResult`, and pass a refusal to
    /// [`Error::of_index`].
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`] and [`Error::FieldKindMismatch`] if the query does not fit the schema;
    /// [`Error::DimensionMismatch`] if the vector does not.
    pub fn to_cmd(&self, schema: &Schema) -> Result<Cmd> {
        let (kind, data_type) = vector_field(schema, &self.field, &self.vector)?;
        let (mut text, values) = filter_text(&self.filter, schema)?;
        let filtered = text != "*";
        text.push_str("=>[KNN ");
        text.push_str(&self.k.to_string());
        text.push_str(" @");
        text.push_str(&self.field);
        text.push_str(" $vector");
        if let FieldKind::Vector { algorithm: Algorithm::Hnsw(_), .. } = kind {
            text.push_str(" EF_RUNTIME ");
            text.push_str(&self.ef_runtime().to_string());
        }
        // The server refuses a policy where there is no filter.
        match self.policy.filter(|_| filtered) {
            None => {}
            Some(HybridPolicy::AdhocBruteForce) => text.push_str(" HYBRID_POLICY ADHOC_BF"),
            Some(HybridPolicy::Batches { size }) => {
                text.push_str(" HYBRID_POLICY BATCHES");
                if let Some(size) = size {
                    text.push_str(" BATCH_SIZE ");
                    text.push_str(&size.to_string());
                }
            }
        }
        text.push_str(" AS ");
        text.push_str(DISTANCE_FIELD);
        text.push(']');
        let sizes = values.iter().map(|(_, value)| value.len() + 8).sum::<usize>();
        let capacity = 256 + 4 * self.vector.dimensions() + sizes;
        let cmd = Cmd::with_capacity("FT.SEARCH", capacity).key(schema.index()).arg(text);
        let cmd = append_params(cmd, Some(&data_type.encode(&self.vector)?), &values);
        let cmd = append_return(cmd, Some(DISTANCE_FIELD), &self.returning);
        let cmd = cmd.args(["SORTBY", DISTANCE_FIELD, "ASC", "LIMIT", "0"]).arg(self.k);
        Ok(append_end(cmd, self.timeout))
    }

    /// Returns the same query with another filter.
    #[must_use]
    pub fn with_filter(&self, filter: Filter) -> Self {
        Self { filter, ..self.clone() }
    }

    pub(super) fn with_k(&self, k: usize) -> Self {
        Self { k, ..self.clone() }
    }

    /// The number of candidates of an HNSW search.
    pub(crate) fn ef_runtime(&self) -> usize {
        self.ef_runtime.unwrap_or_else(|| (2 * self.k).max(64))
    }

    pub(crate) fn policy(&self) -> Option<HybridPolicy> {
        self.policy
    }

    /// Returns the vector field that is searched.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Returns the vector whose neighbors are asked for.
    #[must_use]
    pub fn vector(&self) -> &Vector {
        &self.vector
    }

    /// Returns which documents are considered.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Returns the fields that hits shall carry.
    #[must_use]
    pub fn returned(&self) -> &[String] {
        &self.returning
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hnsw, VectorField};

    fn schema() -> Schema {
        Schema::builder("docs", "docs:", VectorField::hnsw("v", 2, Hnsw::default()))
            .vector(VectorField::flat("w", 2))
            .tag("tenant")
            .tag("model")
            .numeric("year")
            .build()
            .unwrap()
    }

    fn vector() -> Vector {
        Vector::new([1.0, 0.0]).unwrap()
    }

    fn rendered(query: &Knn) -> String {
        let cmd = query.to_cmd(&schema()).unwrap();
        cmd.iter().map(|part| part.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_of_a_filtered_query_is_golden() {
        let filter = Filter::tag("tenant", "a|b} @x:{*")
            .unwrap()
            .and(Filter::any_of("model", ["m1", "m2"]).unwrap());
        let query = Knn::new("v", vector(), 40, filter)
            .unwrap()
            .returning(["answer", "model", "answer"])
            .unwrap()
            .with_timeout(Duration::from_millis(250));
        assert_eq!(
            rendered(&query),
            "FT.SEARCH docs \
             (@tenant:{$f0} @model:{$f1|$f2})=>[KNN 40 @v $vector EF_RUNTIME 80 AS __distance] \
             PARAMS 8 vector \\x00\\x00\\x80?\\x00\\x00\\x00\\x00 f0 a|b} @x:{* f1 m1 f2 m2 \
             RETURN 3 __distance answer model SORTBY __distance ASC LIMIT 0 40 TIMEOUT 250 DIALECT 2"
        );
    }

    #[test]
    fn the_command_of_an_unfiltered_query_is_golden() {
        let query = Knn::new("w", vector(), 3, Filter::all()).unwrap();
        assert_eq!(
            rendered(&query.with_ef_runtime(9).unwrap()),
            "FT.SEARCH docs *=>[KNN 3 @w $vector AS __distance] \
             PARAMS 2 vector \\x00\\x00\\x80?\\x00\\x00\\x00\\x00 \
             RETURN 2 __distance __absent SORTBY __distance ASC LIMIT 0 3 DIALECT 2"
        );
        let query = Knn::new("v", vector(), 3, Filter::all()).unwrap();
        assert!(rendered(&query).contains("$vector EF_RUNTIME 64 AS"));
        let query = query.with_ef_runtime(9).unwrap().with_timeout(Duration::ZERO);
        assert!(rendered(&query).contains("$vector EF_RUNTIME 9 AS"));
        assert!(rendered(&query).ends_with("TIMEOUT 1 DIALECT 2"));
        let cmd = query.to_cmd(&schema()).unwrap();
        assert!(cmd.is_readonly());
        assert_eq!(cmd.routing_key(), Some(&b"docs"[..]));
    }

    #[test]
    fn a_query_that_does_not_fit_the_schema_is_refused() {
        let to_cmd = |field: &str, vector, filter| {
            Knn::new(field, vector, 1, filter).unwrap().to_cmd(&schema()).unwrap_err()
        };
        let all = Filter::all;
        let error = to_cmd("nope", vector(), all());
        assert!(matches!(error, Error::UnknownField { .. }), "{error}");
        let error = to_cmd("tenant", vector(), all());
        assert!(matches!(error, Error::FieldKindMismatch { expected: "VECTOR", .. }), "{error}");
        let error = to_cmd("v", Vector::new([1.0]).unwrap(), all());
        assert!(matches!(error, Error::DimensionMismatch { expected: 2, got: 1 }), "{error}");
        let error = to_cmd("v", vector(), Filter::tag("nope", "x").unwrap());
        assert!(matches!(error, Error::UnknownField { .. }), "{error}");
        let error = to_cmd("v", vector(), Filter::tag("year", "x").unwrap());
        assert!(matches!(error, Error::FieldKindMismatch { expected: "TAG", .. }), "{error}");
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for k in [0, MAX_K + 1] {
            let query = Knn::new("v", vector(), k, Filter::all());
            assert!(matches!(query, Err(Error::InvalidK { .. })));
        }
        let query = || Knn::new("v", vector(), 1, Filter::all()).unwrap();
        assert!(matches!(query().with_ef_runtime(0), Err(Error::InvalidParameter { .. })));
        for field in ["", "AS", "__distance", "a b"] {
            assert!(matches!(query().returning([field]), Err(Error::InvalidName { .. })));
        }
    }
}
