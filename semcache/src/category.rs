use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use inferkit_vectorsearch::Similarity;

use crate::policy::{threshold, ttl_millis};
use crate::{Error, Result};

/// A kind of question, by which the policy chooses a threshold.
///
/// Requests of different categories never share answers.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Category(Cow<'static, str>);

impl Category {
    /// Questions for facts, where a similar question is often another question.
    pub const FACTUAL: Self = Self(Cow::Borrowed("factual"));
    /// Requests for something new, where an answer to a similar one will do.
    pub const CREATIVE: Self = Self(Cow::Borrowed("creative"));

    /// Names a category.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyCategory`] if the name holds nothing but blanks.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if name.trim().is_empty() {
            return Err(Error::EmptyCategory);
        }
        Ok(Self(Cow::Owned(name)))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Category({})", self.0)
    }
}

/// What holds for the requests of one category.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Rules {
    threshold: Similarity,
    near_margin: f64,
    ttl: Option<Duration>,
    exact_only: bool,
}

const STRICT: Similarity = match Similarity::checked(0.95) {
    Some(similarity) => similarity,
    None => unreachable!(),
};
const LOOSE: Similarity = match Similarity::checked(0.88) {
    Some(similarity) => similarity,
    None => unreachable!(),
};
/// How far below the threshold a candidate still counts as near.
const NEAR_MARGIN: f64 = 0.05;

impl Rules {
    /// The preset for [`Category::FACTUAL`]: a threshold of 0.95, at the strict end of the usual 0.92 to 0.95.
    pub const fn factual() -> Self {
        Self { threshold: STRICT, near_margin: NEAR_MARGIN, ttl: None, exact_only: false }
    }

    /// The preset for [`Category::CREATIVE`]: a threshold of 0.88, in the middle of the usual 0.85 to 0.90.
    pub const fn creative() -> Self {
        Self { threshold: LOOSE, ..Self::factual() }
    }

    /// Only the very same request is answered, and nothing is embedded.
    pub const fn exact_only() -> Self {
        Self { exact_only: true, ..Self::factual() }
    }

    /// Sets how similar a prompt must be at least to be given another's answer, from 0 to 1.
    ///
    /// # Errors
    ///
    /// [`Error::ThresholdOutOfRange`].
    pub fn with_threshold(mut self, similarity: f64) -> Result<Self> {
        self.threshold = threshold(similarity)?;
        Ok(self)
    }

    /// Sets how far below the threshold a candidate still makes a [`Lookup::Near`](crate::Lookup::Near), from 0 to 1.
    ///
    /// # Errors
    ///
    /// [`Error::ThresholdOutOfRange`].
    pub fn with_near_margin(mut self, margin: f64) -> Result<Self> {
        self.near_margin = threshold(margin)?.as_f64();
        Ok(self)
    }

    /// Sets how long answers live, in the place of the model's time.
    ///
    /// # Errors
    ///
    /// [`Error::TtlOutOfRange`] if it is under a millisecond or over a hundred years.
    pub fn with_ttl(mut self, ttl: Duration) -> Result<Self> {
        ttl_millis(ttl)?;
        self.ttl = Some(ttl);
        Ok(self)
    }

    /// Returns the least similarity that is served.
    #[must_use]
    pub const fn threshold(&self) -> Similarity {
        self.threshold
    }

    /// Returns how far below the threshold a candidate still counts as near.
    #[must_use]
    pub const fn near_margin(&self) -> f64 {
        self.near_margin
    }

    /// Returns how long answers live, if that does not depend on the model.
    #[must_use]
    pub const fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Tells whether only the very same request is answered.
    #[must_use]
    pub const fn is_exact_only(&self) -> bool {
        self.exact_only
    }
}
