use inferkit_core::ErrorKind;

/// The result of a vector operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a vector operation was not done.
///
/// No message holds a vector or a filter value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Backend(#[from] inferkit_core::Error),
    /// A data type is one in which vectors are not stored from here.
    #[error(
        "vectors are not stored as {data_type} from here: enable the feature `half` for 16-bit floats, or use FLOAT32"
    )]
    #[non_exhaustive]
    DataTypeUnsupported {
        /// The data type, by the name that the server gives it.
        data_type: &'static str,
    },
    /// A vector has another number of dimensions than the field, or than the vector it is compared with.
    #[error(
        "expected {expected} dimensions, got {got}: use the embedding model that the index was made for"
    )]
    #[non_exhaustive]
    DimensionMismatch {
        /// The dimensions that fit.
        expected: usize,
        /// The dimensions that came.
        got: usize,
    },
    /// A vector cannot be stored in the data type of its field.
    #[error(
        "a component of the vector is too large for {data_type}, or all are too small: scale the vector, or use FLOAT32"
    )]
    #[non_exhaustive]
    DoesNotFit {
        /// The data type, by the name that the server gives it.
        data_type: &'static str,
    },
    /// Two fields of a schema have the same name.
    #[error("field `{field}` is declared twice: give every field of a schema its own name")]
    #[non_exhaustive]
    DuplicateField {
        /// The name.
        field: String,
    },
    /// The server's search cannot do what a schema or a call needs.
    #[error("{engine} has no {what}: {instead}")]
    #[non_exhaustive]
    EngineLacks {
        /// The engine and its version.
        engine: String,
        /// What it lacks.
        what: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A filter has no value, or an empty one, which would match nothing or everything by accident.
    #[error(
        "the filter on `{field}` has an empty value or none: pass a value, or Filter::all() to match all"
    )]
    #[non_exhaustive]
    EmptyFilterValue {
        /// The field of the filter.
        field: String,
    },
    /// A vector has no dimensions.
    #[error("the vector is empty: pass at least one dimension")]
    EmptyVector,
    /// A query uses a field in a way that its kind does not allow.
    #[error(
        "field `{field}` of the schema is not a {expected} field: declare it as one, or use another field"
    )]
    #[non_exhaustive]
    FieldKindMismatch {
        /// The field.
        field: String,
        /// The kind of field that the query needs.
        expected: &'static str,
    },
    /// Some documents were written, and then the server failed.
    #[error(
        "{done} of {total} documents were done: repeat the call, it changes nothing that is done already"
    )]
    #[non_exhaustive]
    Incomplete {
        /// The number of documents that are known to be done.
        done: usize,
        /// The number of documents of the call.
        total: usize,
        /// The first failure.
        source: inferkit_core::Error,
    },
    /// The server has no index of this name.
    #[error("index `{index}` does not exist: call ensure_index() first")]
    #[non_exhaustive]
    IndexMissing {
        /// The index.
        index: String,
        /// The server's answer.
        source: inferkit_core::Error,
    },
    /// The index did not take in all documents within the time given.
    #[error(
        "index `{index}` is {percent:.1} % complete after the time given: wait longer, searches see only that part"
    )]
    #[non_exhaustive]
    IndexingTimeout {
        /// The index.
        index: String,
        /// How much of it was complete, in percent.
        percent: f64,
    },
    /// A document does not fit the schema.
    #[error("field `{field}` of the document {problem}")]
    #[non_exhaustive]
    InvalidField {
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A filter value is one that the server cannot match.
    #[error("the filter value on `{field}` {problem}")]
    #[non_exhaustive]
    InvalidFilterValue {
        /// The field of the filter.
        field: String,
        /// What is wrong with the value.
        problem: &'static str,
    },
    /// The number of neighbors is zero or too large.
    #[error("cannot ask for {k} neighbors: ask for 1 to {max}")]
    #[non_exhaustive]
    InvalidK {
        /// The number asked for.
        k: usize,
        /// The largest number allowed.
        max: usize,
    },
    /// A name is not one that can stand in a schema or query.
    #[error("invalid {what} name {name:?}: {problem}")]
    #[non_exhaustive]
    InvalidName {
        /// What is named: an index or a field.
        what: &'static str,
        /// The name.
        name: String,
        /// The rule that it breaks.
        problem: &'static str,
    },
    /// An option does not fit the field that it is set on.
    #[error("field `{field}` has an option that does not fit it: {problem}")]
    #[non_exhaustive]
    InvalidOption {
        /// The field.
        field: String,
        /// The rule that it breaks.
        problem: &'static str,
    },
    /// A number in a schema or query is out of its range.
    #[error("{name} is {got}: it takes {min} to {max}")]
    #[non_exhaustive]
    InvalidParameter {
        /// The parameter, by the name that the server gives it.
        name: &'static str,
        /// The number that came.
        got: usize,
        /// The smallest number allowed.
        min: usize,
        /// The largest number allowed.
        max: usize,
    },
    /// A key prefix would match keys that are not of this index.
    #[error(
        "invalid key prefix {prefix:?}: it must end with `:` (and hold more), or it would also match longer names"
    )]
    #[non_exhaustive]
    InvalidPrefix {
        /// The prefix.
        prefix: String,
    },
    /// A filter negates "everything", so it would match nothing.
    #[error(
        "the filter negates Filter::all() and matches nothing: leave the search out, or correct the filter"
    )]
    MatchesNothing,
    /// A filter asks for documents that lack a field, and the index does not know them.
    #[error(
        "the index does not know which documents lack field `{field}`: declare it with Field::index_missing(), or store a tag that means \"missing\""
    )]
    #[non_exhaustive]
    MissingNotIndexed {
        /// The field.
        field: String,
    },
    /// A removal or an update would reach every document.
    #[error("the filter matches every document: narrow it, or allow that with Bulk::allow_all()")]
    MatchesAll,
    /// A vector is so long that the server's arithmetic overflows on it.
    #[error("the norm of the vector is too large for 32-bit floats: scale the vector down")]
    NormTooLarge,
    /// A value does not serialize to fields.
    #[error("only structs and maps with text as keys can be fields of a document")]
    #[non_exhaustive]
    NotAMap {
        /// What went wrong, where something did.
        source: Option<serde_json::Error>,
    },
    /// A distance is not a finite number.
    #[error("a distance must be a finite number, got {value}")]
    #[non_exhaustive]
    NotADistance {
        /// The number that came.
        value: f64,
    },
    /// A stored NUMERIC field does not hold a number, so the server would not have indexed the document.
    #[error("field `{field}` of a document is not a number: write the document again")]
    #[non_exhaustive]
    NotANumber {
        /// The field.
        field: String,
    },
    /// A component of a vector is NaN or infinite.
    #[error(
        "component {index} of the vector is not a finite number: check the embedding model's output"
    )]
    #[non_exhaustive]
    NotFinite {
        /// The position of the first such component.
        index: usize,
    },
    /// The stored fields do not read as the type asked for.
    #[error("{problem}: ask for the field with returning(..), or correct the type")]
    #[non_exhaustive]
    Projection {
        /// What is wrong, without the value.
        problem: String,
    },
    /// A new index does not hold what the old one holds, so searches stay with the old one.
    #[error(
        "index `{index}` holds {got} documents and has {failures} failures, the index in use holds {expected}: look at FT.INFO, correct the documents or the schema, and call reindex() again"
    )]
    #[non_exhaustive]
    ReindexIncomplete {
        /// The new index, which was dropped again.
        index: String,
        /// The documents of the index in use.
        expected: u64,
        /// The documents of the new index.
        got: u64,
        /// The documents that the server could not index.
        failures: u64,
    },
    /// The server has an index of this name with another schema.
    #[error(
        "index `{index}` exists with another schema ({difference}): use another index name, or call drop_index() on the old schema and ensure_index() on this one; dropping an index keeps its documents"
    )]
    #[non_exhaustive]
    SchemaMismatch {
        /// The index.
        index: String,
        /// What differs.
        difference: String,
    },
    /// The server gave up a search when its time was over; by default it answers with what it has instead.
    #[error(
        "the search on index `{index}` took longer than allowed: raise Knn::with_timeout, or lower k or EF_RUNTIME"
    )]
    #[non_exhaustive]
    SearchTimeout {
        /// The index.
        index: String,
        /// The server's answer.
        source: inferkit_core::Error,
    },
    /// The server has no search commands.
    #[error(
        "the server has no FT.* commands: use Redis 8 or later, or load the RediSearch module (2.8 or later) into Redis 7.2+ or Valkey 8+"
    )]
    #[non_exhaustive]
    SearchUnavailable {
        /// The server's answer.
        source: inferkit_core::Error,
    },
    /// A similarity is not a number from -1 to 1.
    #[error("a cosine similarity is a number from -1 to 1, got {value}")]
    #[non_exhaustive]
    SimilarityOutOfRange {
        /// The number that came.
        value: f64,
    },
    /// A vector has more dimensions than the server takes.
    #[error("{got} dimensions are too many: at most {max} can be indexed")]
    #[non_exhaustive]
    TooManyDimensions {
        /// The dimensions that came.
        got: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// A query names a field that the schema does not have.
    #[error(
        "the schema of index `{index}` has no field `{field}`: add it to the schema, or correct the name"
    )]
    #[non_exhaustive]
    UnknownField {
        /// The index.
        index: String,
        /// The field.
        field: String,
    },
    /// An implementation cannot do what was asked of it.
    #[error("{what}: {instead}")]
    #[non_exhaustive]
    Unsupported {
        /// What cannot be done.
        what: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// Stored bytes are not a vector of 32-bit floats.
    #[error("{len} bytes are not a vector of 32-bit floats: the length must be a multiple of 4")]
    #[non_exhaustive]
    VectorBytes {
        /// The number of bytes.
        len: usize,
    },
    /// A text is not a schema in RedisVL's YAML format, or has something that is not supported.
    #[error("not a schema in RedisVL's YAML format that can be used: {problem}")]
    #[non_exhaustive]
    Yaml {
        /// What is wrong, and where.
        problem: String,
    },
    /// A vector set exists with another shape.
    #[error(
        "vector set `{set}` exists with another shape ({difference}): use another index name, or the options it was made with"
    )]
    #[non_exhaustive]
    VectorSetMismatch {
        /// The key of the set.
        set: String,
        /// What differs.
        difference: String,
    },
    /// The server has no vector sets.
    #[error(
        "the server has no vector sets: use Redis 8 or later, or RedisVectorIndex with the RediSearch module"
    )]
    #[non_exhaustive]
    VectorSetsUnavailable {
        /// The server's answer.
        source: inferkit_core::Error,
    },
    /// A vector has no direction: all its components are zero, or too small to tell.
    #[error("the vector is zero and has no direction: do not embed empty text")]
    ZeroVector,
}

impl Error {
    /// Tells whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Backend(error) | Self::Incomplete { source: error, .. } => error.is_transient(),
            Self::IndexingTimeout { .. } | Self::SearchTimeout { .. } => true,
            _ => false,
        }
    }

    /// Tells whether a write may have been done although the call failed: [`inferkit_core::Error::maybe_applied`] of the
    /// server's error, `false` where the server was not asked.
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        match self {
            Self::Backend(error) => error.maybe_applied(),
            Self::Incomplete { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn not_a_map(source: serde_json::Error) -> Self {
        Self::NotAMap { source: Some(source) }
    }

    /// Turns the server's refusal of an `FT.*` command on `index` into the error that says what to do about it.
    ///
    /// [`RedisVectorIndex`](crate::RedisVectorIndex) does this by itself; it is for those who send a
    /// [`Knn`](crate::Knn) in a batch of their own.
    #[must_use]
    pub fn of_index(error: inferkit_core::Error, index: &str) -> Self {
        if error.kind() != ErrorKind::Server {
            return Self::Backend(error);
        }
        let text = error.to_string().to_ascii_lowercase();
        // This text repeats the arguments of the command, so it is looked for first.
        if text.contains("unknown command") {
            return Self::SearchUnavailable { source: error };
        }
        let missing =
            ["no such index", "unknown index name", "search_index_not_found", "index not found"];
        let named = text.contains("index with name") && text.contains("not found");
        if named || missing.iter().any(|fragment| text.contains(fragment)) {
            return Self::IndexMissing { index: index.to_owned(), source: error };
        }
        if text.contains("timeout limit was reached") || text.contains("search_timeout") {
            return Self::SearchTimeout { index: index.to_owned(), source: error };
        }
        Self::Backend(error)
    }
}

/// Tells whether the server refused `FT.CREATE` because the name is taken.
pub(crate) fn is_index_exists(error: &inferkit_core::Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    error.kind() == ErrorKind::Server
        && (text.contains("already exists") || text.contains("search_index_exists"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn classified(text: &str) -> Error {
        Error::of_index(inferkit_core::Error::server(text), "docs")
    }

    #[test]
    fn every_known_text_for_a_missing_index_is_understood() {
        for text in [
            "docs: no such index",
            "No such index docs",
            "Unknown index name",
            "Unknown Index name",
            "SEARCH_INDEX_NOT_FOUND Index not found: docs",
            "Index with name 'docs' not found in database 0",
            "ERR Index with name 'docs' not found",
        ] {
            let error = classified(text);
            assert!(matches!(error, Error::IndexMissing { .. }), "{text}: {error:?}");
            assert!(error.to_string().contains("ensure_index()"), "{error}");
            assert!(!error.to_string().contains(text), "repeats its source: {error}");
            assert_eq!(error.source().map(ToString::to_string), Some(text.to_owned()));
        }
    }

    #[test]
    fn a_server_without_search_is_told_apart_from_a_missing_index() {
        let text =
            "ERR unknown command 'FT.SEARCH', with args beginning with: 'no such index' '*' ";
        assert!(matches!(classified(text), Error::SearchUnavailable { .. }));
        assert!(matches!(classified("Syntax error at offset 1 near >["), Error::Backend(_)));
        assert!(matches!(classified("LOADING Redis is loading"), Error::Backend(_)));
    }

    #[test]
    fn a_taken_name_is_understood() {
        for text in [
            "Index already exists",
            "SEARCH_INDEX_EXISTS Index already exists: docs",
            "Index with name 'docs' already exists",
        ] {
            assert!(is_index_exists(&inferkit_core::Error::server(text)), "{text}");
        }
        assert!(!is_index_exists(&inferkit_core::Error::server("ERR other")));
    }

    #[test]
    fn only_what_may_pass_by_itself_is_transient() {
        assert!(classified("TRYAGAIN later").is_transient());
        assert!(!classified("docs: no such index").is_transient());
        for text in ["Timeout limit was reached", "SEARCH_TIMEOUT Timeout limit was reached"] {
            let error = classified(text);
            assert!(matches!(error, Error::SearchTimeout { .. }) && error.is_transient());
        }
        assert!(!Error::ZeroVector.is_transient());
    }
}
