use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::Cmd;
use tracing::field::Empty;

use crate::flights::Flights;
use crate::format::{check, decode, encode_as};
use crate::stats::{Counters, EmbeddingStats};
use crate::{Embedder, EmbeddingCache, EmbeddingKey, Error, Precision, Result};

/// A hundred years.
const LONGEST_TTL: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);
const DEFAULT_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What happens to a request when the cache's server cannot be asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnCacheError {
    /// The texts are embedded as if the cache were empty, and a warning is logged.
    #[default]
    Embed,
    /// The request fails.
    Fail,
}

/// An embedder behind a cache; it is an [`Embedder`] itself.
///
/// One call asks the cache once for all texts, embeds what is missing in one call of the inner embedder (texts that
/// occur several times only once), and writes what is new at once: two round trips at most, one if everything is there,
/// none for no texts.
/// A text that another call of this process is embedding at that moment is waited for, not embedded again; clones share
/// that and the [statistics](Self::stats).
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use inferkit_embcache::{CachedEmbedder, Embedder, EmbedderExt, MemoryEmbeddingCache, Result};
/// # #[derive(Debug)]
/// # struct Model;
/// # #[async_trait::async_trait]
/// # impl Embedder for Model {
/// #     fn model(&self) -> &str { "model" }
/// #     fn dimensions(&self) -> usize { 1 }
/// #     async fn embed_many(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
/// #         Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let embedder = CachedEmbedder::new(Model, Arc::new(MemoryEmbeddingCache::default()));
/// let vectors = embedder.embed_many(&["one", "three", "one"]).await?;
/// assert_eq!(vectors, [[3.0], [5.0], [3.0]]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CachedEmbedder<E> {
    embedder: E,
    cache: Arc<dyn EmbeddingCache>,
    version: u32,
    ttl: Duration,
    on_cache_error: OnCacheError,
    precision: Precision,
    keep_texts: bool,
    flights: Arc<Flights>,
    counters: Arc<Counters>,
}

impl<E: Embedder> CachedEmbedder<E> {
    /// Puts `cache` in front of `embedder`; no I/O.
    #[must_use]
    pub fn new(embedder: E, cache: Arc<dyn EmbeddingCache>) -> Self {
        Self {
            embedder,
            cache,
            version: 1,
            ttl: DEFAULT_TTL,
            on_cache_error: OnCacheError::default(),
            precision: Precision::default(),
            keep_texts: false,
            flights: Arc::default(),
            counters: Arc::default(),
        }
    }

    /// Sets the caller's version of the model, 1 by default.
    ///
    /// Raise it whenever the same model name begins to mean other vectors: other weights, another number of dimensions,
    /// another preparation of the text.
    /// Entries of the old version expire unused.
    #[must_use]
    pub fn with_version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sets how long embeddings are kept, 7 days by default.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is under a millisecond or over a hundred years.
    pub fn with_ttl(mut self, ttl: Duration) -> Result<Self> {
        ttl_millis(ttl)?;
        self.ttl = ttl;
        Ok(self)
    }

    /// Sets what happens when the cache's server cannot be asked; by default the texts are embedded anyway.
    #[must_use]
    pub fn with_on_cache_error(mut self, on_cache_error: OnCacheError) -> Self {
        self.on_cache_error = on_cache_error;
        self
    }

    /// Sets how exactly new vectors are stored, [`Precision::F32`] by default; stored ones are read in any precision.
    ///
    /// The call that embeds a text returns the vector as the cache will, so that a text always has one vector.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Stores each text behind its vector, so that [`RedisEmbeddingCache::migrate`](crate::RedisEmbeddingCache::migrate)
    /// can embed it with the next model; it is off by default, and no text is stored then.
    #[must_use]
    pub fn with_kept_texts(mut self) -> Self {
        self.keep_texts = true;
        self
    }

    /// Returns what this embedder and its clones have done since it was made.
    #[must_use]
    pub fn stats(&self) -> EmbeddingStats {
        self.counters.read()
    }

    /// Returns the caller's version of the model.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the embedder behind the cache.
    #[must_use]
    pub fn inner(&self) -> &E {
        &self.embedder
    }

    /// Reads what is stored; what is damaged counts as missing.
    async fn read(&self, keys: &[EmbeddingKey]) -> Result<Vec<Option<Vec<f32>>>> {
        let stored = self.cache.get_many(keys).await;
        let stored: Vec<Option<Bytes>> = self.tolerate(stored, || vec![None; keys.len()])?;
        if stored.len() != keys.len() {
            return Err(Error::CountMismatch { expected: keys.len(), got: stored.len() });
        }
        stored.into_iter().map(|value| self.decode(value)).collect()
    }

    /// The vector of what is stored; what is damaged counts as missing.
    fn decode(&self, stored: Option<Bytes>) -> Result<Option<Vec<f32>>> {
        match stored.map(|value| decode(&value, self.embedder.dimensions())).transpose() {
            Err(error @ (Error::Damaged { .. } | Error::DimensionMismatch { .. })) => {
                tracing::warn!(%error, "a cached embedding is replaced");
                Ok(None)
            }
            vector => vector,
        }
    }

    /// Embeds the texts at `places`, stores them, and puts their vectors in place.
    async fn fill(
        &self,
        places: &[usize],
        texts: &[&str],
        keys: &[EmbeddingKey],
        vectors: &mut [Option<Vec<f32>>],
    ) -> Result<()> {
        let wanted: Vec<&str> =
            places.iter().filter_map(|&place| texts.get(place).copied()).collect();
        let embedded = self.embed_missing(&wanted).await?;
        let mut entries = Vec::with_capacity(places.len());
        for ((&place, text), vector) in places.iter().zip(wanted).zip(embedded) {
            let text = self.keep_texts.then_some(text);
            let stored = encode_as(&vector, self.precision, text)?;
            let vector = match self.precision {
                Precision::F32 => vector,
                _ => decode(&stored, vector.len())?,
            };
            if let (Some(key), Some(slot)) = (keys.get(place), vectors.get_mut(place)) {
                entries.push((key.clone(), stored));
                *slot = Some(vector);
            }
        }
        let written = self.cache.put_many(&entries, self.ttl).await;
        self.tolerate(written, || ())
    }

    /// Embeds `texts` with the inner embedder and checks what comes.
    async fn embed_missing(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let vectors = self.embedder.embed_many(texts).await?;
        if vectors.len() != texts.len() {
            return Err(Error::CountMismatch { expected: texts.len(), got: vectors.len() });
        }
        let expected = self.embedder.dimensions();
        for vector in &vectors {
            if vector.len() != expected {
                return Err(Error::DimensionMismatch { expected, got: vector.len() });
            }
            check(vector)?;
        }
        Ok(vectors)
    }

    /// Passes a failure of the cache on, or logs it, as the caller wants.
    fn tolerate<T>(&self, outcome: Result<T>, instead: impl FnOnce() -> T) -> Result<T> {
        match (outcome, self.on_cache_error) {
            (Err(Error::Backend(error)), OnCacheError::Embed) => {
                tracing::warn!(kind = ?error.kind(), "the embedding cache did not answer: going on without it");
                Ok(instead())
            }
            (outcome, _) => outcome,
        }
    }
}

#[async_trait]
impl<E: Embedder> Embedder for CachedEmbedder<E> {
    fn model(&self) -> &str {
        self.embedder.model()
    }

    fn dimensions(&self) -> usize {
        self.embedder.dimensions()
    }

    fn cached_read(&self, text: &str) -> Option<Cmd> {
        let model = self.embedder.model();
        // A model without a name has no entries, and `embed_many` says so.
        let key = (!model.is_empty()).then(|| EmbeddingKey::new(self.version, model, text))?;
        self.cache.get_cmd(&key)
    }

    /// What is found counts as a hit, and what is not is counted by the call that embeds it.
    fn cached_vector(&self, text: &str, stored: Option<Bytes>) -> Result<Option<Vec<f32>>> {
        let vector = self.decode(stored)?;
        if vector.is_some() {
            self.counters.looked_up(&[text], &[], 0);
        }
        Ok(vector)
    }

    /// Returns one vector per text, from the cache where it has them.
    ///
    /// An entry that is damaged or has other dimensions counts as missing and is overwritten.
    ///
    /// # Errors
    ///
    /// Those of the inner embedder; [`Error::CountMismatch`], [`Error::DimensionMismatch`], [`Error::NotFinite`] and
    /// [`Error::ZeroVector`] if its vectors are not what it promised: nothing is stored then.
    /// [`Error::UnknownVersion`] if a later release wrote one of the entries.
    /// [`Error::Backend`] if the cache's server fails and [`OnCacheError::Fail`] is set.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave vectors unstored.
    #[tracing::instrument(name = "embcache.embed_many", level = "debug", skip_all, fields(texts = texts.len(), misses = Empty))]
    async fn embed_many(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        if self.embedder.model().is_empty() {
            return Err(Error::Config(
                "the embedder's model has no name: embeddings of two such models could not be told apart".to_owned(),
            ));
        }
        // The distinct texts, and the one that each text is.
        let model: Arc<str> = self.embedder.model().into();
        let mut places: HashMap<[u8; 32], usize> = HashMap::with_capacity(texts.len());
        let (mut distinct, mut keys) = (Vec::new(), Vec::with_capacity(texts.len()));
        let mut place_of = Vec::with_capacity(texts.len());
        for &text in texts {
            let key = EmbeddingKey::new(self.version, Arc::clone(&model), text);
            place_of.push(*places.entry(*key.digest()).or_insert_with(|| {
                distinct.push(text);
                keys.push(key);
                distinct.len() - 1
            }));
        }
        let mut vectors = self.read(&keys).await?;
        let missing = |vectors: &[Option<Vec<f32>>]| -> Vec<usize> {
            let open = vectors.iter().enumerate().filter(|(_, vector)| vector.is_none());
            open.map(|(place, _)| place).collect()
        };
        let mut open = missing(&vectors);
        self.counters.looked_up(&distinct, &open, texts.len() - distinct.len());
        tracing::Span::current().record("misses", open.len());
        while !open.is_empty() {
            let digests =
                open.iter().filter_map(|&place| Some((place, *keys.get(place)?.digest())));
            let mut claim = self.flights.claim(digests);
            let theirs = std::mem::take(&mut claim.theirs);
            if !claim.mine.is_empty() {
                self.fill(&claim.mine, &distinct, &keys, &mut vectors).await?;
                let made = claim.mine.iter().filter_map(|&place| vectors.get(place)?.as_deref());
                claim.land(made);
            }
            // Before waiting: others may wait for what was just made.
            drop(claim);
            self.counters.shared(theirs.len());
            for (place, awaited) in theirs {
                if let (Some(slot), Some(vector)) = (vectors.get_mut(place), awaited.vector().await)
                {
                    *slot = Some(vector);
                }
            }
            // What others gave up is claimed in the next round.
            open = missing(&vectors);
        }
        if texts.len() == vectors.len() {
            return Ok(vectors.into_iter().flatten().collect());
        }
        Ok(place_of.into_iter().filter_map(|place| vectors.get(place).cloned().flatten()).collect())
    }
}

/// The time to live in milliseconds, if it is one.
pub(crate) fn ttl_millis(ttl: Duration) -> Result<u64> {
    match u64::try_from(ttl.as_millis()) {
        Ok(millis) if 0 < millis && ttl <= LONGEST_TTL => Ok(millis),
        _ => Err(Error::Config(
            "embeddings are kept between a millisecond and a hundred years: set such a time to live"
                .to_owned(),
        )),
    }
}
