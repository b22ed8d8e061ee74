use std::time::Duration;

use inferkit_vectorsearch::Similarity;

use crate::{Error, Request, Result};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A hundred years.
const LONGEST: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);

/// What may be served, and for how long.
///
/// Defaults: a threshold of 0.95, prompts up to 8 KiB, 7 days for models whose name starts with `gpt-4`, 1 day for
/// `gpt-3.5` and all others.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inferkit_semcache::Policy;
///
/// let policy = Policy::default()
///     .with_threshold(0.92)?
///     .with_model_ttl("llama-", Duration::from_secs(3600))?;
/// assert_eq!(policy.ttl("llama-3.3-70b"), Duration::from_secs(3600));
/// assert!(Policy::default().with_threshold(95.0).is_err());
/// # Ok::<(), inferkit_semcache::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    threshold: Similarity,
    default_ttl: Duration,
    /// By the beginning of the model's name.
    model_ttls: Vec<(String, Duration)>,
    max_prompt_bytes: usize,
}

impl Policy {
    /// Sets how similar a prompt must be at least to be given another's answer, from 0 to 1.
    ///
    /// 0.92 to 0.95 suit factual questions, 0.85 to 0.90 creative ones; the numbers depend on the embedding model.
    ///
    /// # Errors
    ///
    /// [`Error::ThresholdOutOfRange`].
    pub fn with_threshold(mut self, threshold: f64) -> Result<Self> {
        self.threshold = Similarity::checked(threshold)
            .filter(|similarity| 0.0 <= similarity.as_f64())
            .ok_or(Error::ThresholdOutOfRange { value: threshold })?;
        Ok(self)
    }

    /// Sets how long answers of models live that no other rule names.
    ///
    /// # Errors
    ///
    /// [`Error::TtlOutOfRange`] if it is under a millisecond or over a hundred years.
    pub fn with_default_ttl(mut self, ttl: Duration) -> Result<Self> {
        ttl_millis(ttl)?;
        self.default_ttl = ttl;
        Ok(self)
    }

    /// Sets how long answers of models live whose name starts with `model`; the longest such beginning counts.
    ///
    /// # Errors
    ///
    /// [`Error::TtlOutOfRange`] if it is under a millisecond or over a hundred years; [`Error::EmptyModel`].
    pub fn with_model_ttl(mut self, model: impl Into<String>, ttl: Duration) -> Result<Self> {
        let model = model.into();
        ttl_millis(ttl)?;
        if model.trim().is_empty() {
            return Err(Error::EmptyModel);
        }
        self.model_ttls.retain(|(other, _)| *other != model);
        self.model_ttls.push((model, ttl));
        Ok(self)
    }

    /// Sets the length of the longest prompt, in bytes.
    ///
    /// Embedders that read only the beginning of a text make long prompts look the same: allow no more than yours reads.
    #[must_use]
    pub fn with_max_prompt_bytes(mut self, max_prompt_bytes: usize) -> Self {
        self.max_prompt_bytes = max_prompt_bytes;
        self
    }

    /// Returns the least similarity that is served.
    #[must_use]
    pub fn threshold(&self) -> Similarity {
        self.threshold
    }

    /// Returns how long answers of `model` live.
    #[must_use]
    pub fn ttl(&self, model: &str) -> Duration {
        self.model_ttls
            .iter()
            .filter(|(start, _)| model.starts_with(start.as_str()))
            .max_by_key(|(start, _)| start.len())
            .map_or(self.default_ttl, |(_, ttl)| *ttl)
    }

    /// Returns the length of the longest prompt, in bytes.
    #[must_use]
    pub fn max_prompt_bytes(&self) -> usize {
        self.max_prompt_bytes
    }

    /// Refuses requests that the cache must not be asked.
    pub(crate) fn check(&self, request: &Request) -> Result<()> {
        let bytes = request.prompt().len();
        if self.max_prompt_bytes < bytes {
            return Err(Error::PromptTooLong { bytes, max: self.max_prompt_bytes });
        }
        Ok(())
    }
}

impl Default for Policy {
    fn default() -> Self {
        const STRICT: Similarity = match Similarity::checked(0.95) {
            Some(similarity) => similarity,
            None => unreachable!(),
        };
        Self {
            threshold: STRICT,
            default_ttl: DAY,
            model_ttls: vec![("gpt-4".to_owned(), 7 * DAY), ("gpt-3.5".to_owned(), DAY)],
            max_prompt_bytes: 8 * 1024,
        }
    }
}

/// The time to live in milliseconds, if it is one.
pub(crate) fn ttl_millis(ttl: Duration) -> Result<u64> {
    match u64::try_from(ttl.as_millis()) {
        Ok(millis) if 0 < millis && ttl <= LONGEST => Ok(millis),
        _ => Err(Error::TtlOutOfRange { ttl }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_similarities_from_0_to_1() {
        for value in [0.0, 0.85, 1.0] {
            assert!(Policy::default().with_threshold(value).is_ok());
        }
        for value in [-0.01, 1.01, 95.0, f64::NAN, f64::INFINITY] {
            let error = Policy::default().with_threshold(value).unwrap_err();
            assert!(matches!(error, Error::ThresholdOutOfRange { .. }));
            assert!(error.to_string().contains("from 0 to 1"), "{error}");
        }
    }

    #[test]
    fn the_longest_beginning_of_the_model_s_name_decides_how_long() {
        let policy = Policy::default().with_model_ttl("gpt-4.1-nano", DAY / 2).unwrap();
        assert_eq!(policy.ttl("gpt-4.1-nano-2026"), DAY / 2);
        assert_eq!(policy.ttl("gpt-4.1"), 7 * DAY);
        assert_eq!(policy.ttl("gpt-3.5-turbo"), DAY);
        assert_eq!(policy.ttl("other"), DAY);
        let again = policy.with_model_ttl("gpt-4.1-nano", DAY / 4).unwrap();
        assert_eq!(again.ttl("gpt-4.1-nano"), DAY / 4);
        assert!(Policy::default().with_default_ttl(LONGEST).is_ok());
        let over = LONGEST + Duration::from_millis(1);
        for ttl in [Duration::ZERO, Duration::from_micros(1), over, Duration::MAX] {
            assert!(matches!(
                Policy::default().with_model_ttl("m", ttl),
                Err(Error::TtlOutOfRange { .. })
            ));
            assert!(Policy::default().with_default_ttl(ttl).is_err());
        }
    }
}
