use std::time::Duration;

/// The result of a question to a rate limiter.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a limiter was not asked, or did not answer; that a request is over its limits is no error.
///
/// No message holds the name of a subject or a request id.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Backend(#[from] inferkit_core::Error),
    /// The server did not answer, and is left alone for a while; see [`Breaker`](crate::Breaker).
    #[error("the server of the limits does not answer, and is asked again in {retry_after:?}")]
    #[non_exhaustive]
    Away {
        /// When it is tried again.
        retry_after: Duration,
    },
    /// Two tiers of one policy have the same name.
    #[error("two tiers are named {name}: give each tier of a policy a name of its own")]
    #[non_exhaustive]
    DuplicateTier {
        /// The name.
        name: String,
    },
    /// A policy has no tiers.
    #[error("the policy has no tiers: add one with Policy::with_tier, or do not ask the limiter")]
    EmptyPolicy,
    /// A name that decides whose limit it is has no text.
    #[error("the {what} is empty: name it; what all share is Subject::global()")]
    #[non_exhaustive]
    EmptyName {
        /// What has no name.
        what: &'static str,
    },
    /// An amount of a limit is out of range.
    #[error(
        "a limit allows between 1 and 2^53 units and at most 100 000 slots or 10 000 logged requests, got {amount}"
    )]
    #[non_exhaustive]
    AmountOutOfRange {
        /// The number that came.
        amount: u64,
    },
    /// A time of a limit is out of range.
    #[error("{what} lies between {min:?} and {max:?}, got {got:?}")]
    #[non_exhaustive]
    TimeOutOfRange {
        /// Which time.
        what: &'static str,
        /// The shortest that is allowed.
        min: Duration,
        /// The longest that is allowed.
        max: Duration,
        /// The time that came.
        got: Duration,
    },
    /// A number is not the weight of a request.
    #[error("a weight is a number from 0 to 2^53, got {value}: check how it was computed")]
    #[non_exhaustive]
    InvalidWeight {
        /// The number that came.
        value: f64,
    },
    /// A name has characters that do not fit into a header or a metric.
    #[error(
        "the {what} {name:?} is not a name of 1 to 64 letters, digits, '_', '-' and '.': names of tiers, kinds of subjects and units are yours, put users' text into the subject's name"
    )]
    #[non_exhaustive]
    InvalidName {
        /// What has the name.
        what: &'static str,
        /// The name that came.
        name: String,
    },
    /// A name or a request id is too long.
    #[error("the {what} has {bytes} bytes, and {max} are allowed: pass a digest of it")]
    #[non_exhaustive]
    NameTooLong {
        /// What is too long.
        what: &'static str,
        /// The length that came.
        bytes: usize,
        /// The longest that is allowed.
        max: usize,
    },
    /// A policy has too many tiers.
    #[error("a policy has at most {max} tiers: ask for several policies one after another")]
    #[non_exhaustive]
    TooManyTiers {
        /// The most that are allowed.
        max: usize,
    },
}

impl Error {
    /// Tells whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Backend(error) => error.is_transient(),
            _ => matches!(self, Self::Away { .. }),
        }
    }

    /// Tells whether something may have been charged or settled although the call failed.
    ///
    /// Repeat the call only with the same request id then; see [`Demand::once`](crate::Demand::once).
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        matches!(self, Self::Backend(error) if error.maybe_applied())
    }
}

/// The longest name of a subject, of a domain, and the longest request id, in bytes.
const MAX_TEXT: usize = 512;

/// Checks a text that users choose.
pub(crate) fn check_text(what: &'static str, text: &str) -> Result<()> {
    match text.len() {
        0 => Err(Error::EmptyName { what }),
        bytes if MAX_TEXT < bytes => Err(Error::NameTooLong { what, bytes, max: MAX_TEXT }),
        _ => Ok(()),
    }
}

/// Checks a name that the operator chooses.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || 64 < name.len() || !name.bytes().all(plain) {
        return Err(Error::InvalidName { what, name: name.chars().take(80).collect() });
    }
    Ok(())
}
