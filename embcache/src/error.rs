use std::error::Error as StdError;

/// The result of an embedding operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why texts were not embedded, or an embedding was not read.
///
/// No message holds a text or a vector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cache's server could not be asked, or refused.
    #[error(transparent)]
    Backend(#[from] inferkit_core::Error),
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
    /// The embedder returned another number of vectors than it was given texts.
    #[error("expected {expected} vectors for as many texts, got {got}: check the embedder")]
    #[non_exhaustive]
    CountMismatch {
        /// The number of texts.
        expected: usize,
        /// The number of vectors.
        got: usize,
    },
    /// Stored bytes are not an embedding in the form of this crate.
    #[error("a stored embedding is damaged ({problem}): delete it, or let it be embedded anew")]
    #[non_exhaustive]
    Damaged {
        /// What is wrong with the bytes.
        problem: &'static str,
    },
    /// A vector has another number of dimensions than its model.
    #[error("expected {expected} dimensions, got {got}: set the dimensions that the model has")]
    #[non_exhaustive]
    DimensionMismatch {
        /// The dimensions of the model.
        expected: usize,
        /// The dimensions that came.
        got: usize,
    },
    /// The embedder itself failed.
    #[error("the embedder failed")]
    #[non_exhaustive]
    Embedder {
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
        /// Whether the same call may succeed later.
        transient: bool,
    },
    /// A component of a vector is NaN or infinite.
    #[error(
        "component {index} of an embedding is not a finite number: check the embedder's output"
    )]
    #[non_exhaustive]
    NotFinite {
        /// The position of the first such component.
        index: usize,
    },
    /// An embedding service answered with an error status.
    ///
    /// Nothing else of the answer is kept: services repeat what they were sent, texts and keys.
    #[error(
        "the embedding service answered with status {status}{}: look the status up in the service's documentation",
        .code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default()
    )]
    #[non_exhaustive]
    Status {
        /// The HTTP status.
        status: u16,
        /// The `code` or else the `type` of the service's error, if it looks like the name of one: up to 40 lower-case
        /// letters, digits and `_`.
        code: Option<String>,
    },
    /// A vector has more dimensions than the stored form can tell.
    #[error("{got} dimensions are too many to store: at most {max} fit")]
    #[non_exhaustive]
    TooManyDimensions {
        /// The dimensions that came.
        got: usize,
        /// The most that fit.
        max: usize,
    },
    /// A stored embedding was written in a form that this release does not know.
    #[error(
        "a stored embedding has format version {found}, and this release reads version {known}: upgrade this service, or keep apart with CachedEmbedder::with_version"
    )]
    #[non_exhaustive]
    UnknownVersion {
        /// The version that was found.
        found: u8,
        /// The version that is known.
        known: u8,
    },
    /// A vector has no direction: all its components are zero, or too small to tell.
    #[error(
        "the embedder returned a zero vector, which has no direction and is not stored: check the embedder, and do not embed empty text"
    )]
    ZeroVector,
}

impl Error {
    /// Makes the error of an embedder that failed in a way that a repetition will not mend.
    #[must_use]
    pub fn embedder(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Embedder { source: source.into(), transient: false }
    }

    /// Makes the error of an embedder that failed and may succeed later, such as after a timeout.
    #[must_use]
    pub fn transient_embedder(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Embedder { source: source.into(), transient: true }
    }

    /// Tells whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Backend(error) => error.is_transient(),
            Self::Embedder { transient, .. } => *transient,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }

    /// Tells whether a write may have been done although the call failed: [`inferkit_core::Error::maybe_applied`] of the
    /// server's error, `false` where the server was not asked.
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        match self {
            Self::Backend(error) => error.maybe_applied(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferkit_core::ErrorKind;

    #[test]
    fn only_a_server_s_error_may_have_been_applied() {
        for applied in [true, false] {
            let error = inferkit_core::Error::new(ErrorKind::Timeout, "no answer");
            let error = error.with_maybe_applied(applied);
            assert_eq!(Error::Backend(error).maybe_applied(), applied);
        }
        assert!(!Error::embedder("the model is out").maybe_applied());
    }
}
