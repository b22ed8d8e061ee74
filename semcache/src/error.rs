use std::time::Duration;

/// The result of a question to a semantic cache.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request was not looked up, or an answer not stored.
///
/// No message holds a prompt, an answer, a vector or a tenant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Backend(#[from] inferkit_core::Error),
    /// A vector has another number of dimensions than the cache.
    #[error(
        "expected a vector of {expected} dimensions, got {got}: set the dimensions that the model has, and pass no vector of another model"
    )]
    #[non_exhaustive]
    DimensionMismatch {
        /// The dimensions of the cache.
        expected: usize,
        /// The dimensions that came.
        got: usize,
    },
    /// The prompt could not be embedded.
    #[error(transparent)]
    Embedder(inferkit_embcache::Error),
    /// An answer holds nothing but blanks.
    #[error("the answer is empty: do not store failed or broken-off answers")]
    EmptyAnswer,
    /// A model has no name.
    #[error("the model has no name: name the model that answers")]
    EmptyModel,
    /// A category has no name.
    #[error("the category has no name: name it, or set none")]
    EmptyCategory,
    /// A tag holds nothing but blanks.
    #[error("the tag is empty: leave it out")]
    EmptyTag,
    /// A tenant has no name.
    #[error("the tenant has no name: name it, or write Tenant::shared() if all may share answers")]
    EmptyTenant,
    /// An answer cannot be packed or unpacked.
    #[error("an answer {problem}")]
    #[non_exhaustive]
    Encoding {
        /// What is wrong, and what to do.
        problem: &'static str,
        /// What went wrong, where something did.
        source: Option<std::io::Error>,
    },
    /// A file could not be read or written.
    #[error("the file of an export could not be read or written")]
    #[non_exhaustive]
    File {
        /// What went wrong.
        source: std::io::Error,
    },
    /// The embedder returned a vector that cannot be compared: zero, NaN or infinite.
    #[error(
        "the embedder returned a vector that cannot be compared: check the embedder and the prompt"
    )]
    #[non_exhaustive]
    InvalidEmbedding {
        /// What is wrong with the vector.
        source: inferkit_vectorsearch::Error,
    },
    /// A text is not the id of an entry.
    #[error("an entry id has 64 hexadecimal digits: pass the text of an EntryId")]
    InvalidId,
    /// A miss is not that of the request that is to be filled.
    #[error(
        "the miss is that of another request: fill each request with the miss that its own lookup returned"
    )]
    MissOfAnotherRequest,
    /// A value cannot be written as JSON, so nothing can be compared with it.
    #[error("a part of the request cannot be written as JSON: use text as the keys of maps")]
    #[non_exhaustive]
    NotJson {
        /// What went wrong.
        source: serde_json::Error,
    },
    /// An exported entry cannot be imported.
    #[error("record {number} {problem}: import what export() wrote for the same embedding model")]
    #[non_exhaustive]
    Record {
        /// Its place, counted from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The index could not be made or asked.
    #[error(transparent)]
    Search(inferkit_vectorsearch::Error),
    /// A threshold is not a similarity from 0 to 1.
    #[error("a threshold is a similarity from 0 to 1, got {value}: 0.95 is strict, 0.85 is loose")]
    #[non_exhaustive]
    ThresholdOutOfRange {
        /// The number that came.
        value: f64,
    },
    /// A rate is not a share of lookups.
    #[error(
        "a rate is over 0 and under 100 in a hundred lookups, got {value}: 2 means two wrong answers"
    )]
    #[non_exhaustive]
    RateOutOfRange {
        /// The number that came.
        value: f64,
    },
    /// A time to live is none.
    #[error(
        "entries live between a millisecond and a hundred years, got {ttl:?}: set such a time to live"
    )]
    #[non_exhaustive]
    TtlOutOfRange {
        /// The time that came.
        ttl: Duration,
    },
    /// A search would have more candidates than a server may be asked for.
    #[error(
        "a search has at most {max} candidates, got {got}: lower Config::candidates, 4 are the default"
    )]
    #[non_exhaustive]
    TooManyCandidates {
        /// The number that came.
        got: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// An entry was written in a form that this release does not know.
    #[error(
        "a cache entry has format version {found}, and this release reads version {known}: upgrade this service, or give it a namespace of its own"
    )]
    #[non_exhaustive]
    UnknownVersion {
        /// The version that was found; a number that does not fit counts as the greatest that does.
        found: u32,
        /// The version that is known.
        known: u32,
    },
}

impl Error {
    /// Makes the error of a vector that cannot be compared, for an implementor of
    /// [`SemanticCache`](crate::SemanticCache).
    #[must_use]
    pub fn invalid_embedding(source: inferkit_vectorsearch::Error) -> Self {
        Self::InvalidEmbedding { source }
    }

    /// Makes the error of a vector of other dimensions, for an implementor of
    /// [`SemanticCache`](crate::SemanticCache).
    #[must_use]
    pub fn dimension_mismatch(expected: usize, got: usize) -> Self {
        Self::DimensionMismatch { expected, got }
    }

    /// Makes the error of a record that cannot be imported, for an implementor of
    /// [`SemanticCache`](crate::SemanticCache); `number` counts from 1.
    #[must_use]
    pub fn record(number: usize, problem: impl Into<String>) -> Self {
        Self::Record { number, problem: problem.into() }
    }

    /// Tells whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Backend(error) => error.is_transient(),
            Self::Embedder(error) => error.is_transient(),
            Self::Search(error) => error.is_transient(),
            _ => false,
        }
    }

    /// Tells whether a write may have been done although the call failed: [`inferkit_core::Error::maybe_applied`] of the
    /// server's error, `false` where the server was not asked.
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        match self {
            Self::Backend(error) => error.maybe_applied(),
            Self::Embedder(error) => error.maybe_applied(),
            Self::Search(error) => error.maybe_applied(),
            _ => false,
        }
    }
}

impl From<inferkit_embcache::Error> for Error {
    fn from(error: inferkit_embcache::Error) -> Self {
        use inferkit_embcache::Error as Embedding;
        match error {
            Embedding::DimensionMismatch { expected, got, .. } => {
                Self::DimensionMismatch { expected, got }
            }
            error => Self::Embedder(error),
        }
    }
}

impl From<inferkit_vectorsearch::Error> for Error {
    fn from(error: inferkit_vectorsearch::Error) -> Self {
        use inferkit_vectorsearch::Error as Search;
        match error {
            Search::Backend(error) => Self::Backend(error),
            Search::DimensionMismatch { expected, got, .. } => {
                Self::DimensionMismatch { expected, got }
            }
            error => Self::Search(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferkit_core::ErrorKind;

    #[test]
    fn an_embedder_that_contradicts_itself_is_told_what_to_set() {
        let error = Error::dimension_mismatch(16, 15).to_string();
        assert!(error.contains("set the dimensions that the model has"), "{error}");
    }

    #[test]
    fn only_a_server_s_error_may_have_been_applied() {
        for applied in [true, false] {
            let error = inferkit_core::Error::new(ErrorKind::Timeout, "no answer");
            let error = error.with_maybe_applied(applied);
            let embedding = inferkit_embcache::Error::Backend(error);
            assert_eq!(Error::from(embedding).maybe_applied(), applied);
            let error = inferkit_core::Error::new(ErrorKind::Timeout, "no answer");
            let error = Error::Backend(error.with_maybe_applied(applied));
            assert_eq!(error.maybe_applied(), applied);
        }
        assert!(!Error::EmptyTenant.maybe_applied());
    }
}
