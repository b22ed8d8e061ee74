use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Bytes of English text a token, by a common rule of thumb.
const BYTES_PER_TOKEN: f64 = 4.0;

/// What a [`CachedEmbedder`](crate::CachedEmbedder) and its clones have done, in this process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct EmbeddingStats {
    /// The texts that were found in the cache.
    pub hits: u64,
    /// The texts that were not.
    pub misses: u64,
    /// The texts that stood in one call more than once, and were looked up once.
    pub duplicates: u64,
    /// The misses that another call of this process was embedding already, and that were not embedded again.
    pub shared: u64,
    /// The bytes of the texts that were found.
    pub saved_bytes: u64,
}

impl EmbeddingStats {
    /// Returns the share of looked-up texts that were found, 0 to 1; 0 if none was looked up.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    pub fn hit_rate(&self) -> f64 {
        match self.hits + self.misses {
            0 => 0.0,
            texts => self.hits as f64 / texts as f64,
        }
    }

    /// Estimates the tokens of the texts that were found: a quarter of the bytes, which holds for English.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
    pub fn saved_tokens(&self) -> f64 {
        self.saved_bytes as f64 / BYTES_PER_TOKEN
    }

    /// Estimates the money that was saved, in the currency of `price_per_million_tokens`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the price is negative or not a number.
    pub fn saved_money(&self, price_per_million_tokens: f64) -> Result<f64> {
        if price_per_million_tokens.is_finite() && 0.0 <= price_per_million_tokens {
            return Ok(self.saved_tokens() / 1e6 * price_per_million_tokens);
        }
        Err(Error::Config(
            "a price is a number from 0 up: pass what a million tokens cost".to_owned(),
        ))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    duplicates: AtomicU64,
    shared: AtomicU64,
    saved_bytes: AtomicU64,
}

impl Counters {
    /// Counts one look-up of `distinct` texts, of which those at the places `missing` were not found.
    pub(crate) fn looked_up(&self, distinct: &[&str], missing: &[usize], duplicates: usize) {
        let bytes = |place: &usize| distinct.get(*place).map_or(0, |text| text.len());
        let all: usize = distinct.iter().map(|text| text.len()).sum();
        let saved = all.saturating_sub(missing.iter().map(bytes).sum());
        add(&self.hits, "hit", distinct.len() - missing.len());
        add(&self.misses, "miss", missing.len());
        add(&self.duplicates, "duplicate", duplicates);
        self.saved_bytes.fetch_add(saved as u64, Ordering::Relaxed);
    }

    pub(crate) fn shared(&self, texts: usize) {
        add(&self.shared, "shared", texts);
    }

    pub(crate) fn read(&self) -> EmbeddingStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EmbeddingStats {
            hits: read(&self.hits),
            misses: read(&self.misses),
            duplicates: read(&self.duplicates),
            shared: read(&self.shared),
            saved_bytes: read(&self.saved_bytes),
        }
    }
}

#[cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "only metrics have outcomes")
)]
fn add(counter: &AtomicU64, outcome: &'static str, texts: usize) {
    if texts != 0 {
        counter.fetch_add(texts as u64, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        metrics::counter!("inferkit_embcache_texts_total", "outcome" => outcome)
            .increment(texts as u64);
    }
}
