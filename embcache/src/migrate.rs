use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use inferkit_core::keys::decode as decode_key;
use inferkit_core::{Batch, Cmd, DriverExt as _};

use crate::format::text_of;
use crate::{CachedEmbedder, Embedder, Error, RedisEmbeddingCache, Result};

/// The key names that the server hands out at a time.
const SCAN_COUNT: u32 = 500;
/// The keys of a model whose size is asked for.
const SAMPLES: usize = 100;

/// How a migration goes about its work.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Pace {
    batch: usize,
    texts_per_second: Option<f64>,
}

impl Pace {
    /// Embeds up to `batch` texts a call (at least 1), as fast as it goes.
    pub fn batches_of(batch: usize) -> Self {
        Self { batch: batch.max(1), texts_per_second: None }
    }

    /// Embeds no more than this many texts a second, on average since the beginning.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is not a number above 0.
    pub fn at_most(self, texts_per_second: f64) -> Result<Self> {
        if texts_per_second.is_finite() && 0.0 < texts_per_second {
            return Ok(Self { texts_per_second: Some(texts_per_second), ..self });
        }
        Err(Error::Config("a pace is a number of texts a second above 0".to_owned()))
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::batches_of(64)
    }
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Migrated {
    /// The entries of the old version that were seen.
    pub seen: u64,
    /// The entries that are there in the new version now, whether this run embedded them or an earlier one.
    pub done: u64,
    /// The entries without a text, which cannot be embedded anew; they expire in the old version.
    pub without_text: u64,
    /// The entries that are damaged or of a later format; they are left alone.
    pub unreadable: u64,
}

/// What the embeddings of one model take on the server.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ModelUsage {
    /// The caller's version of the model.
    pub version: u32,
    /// The model.
    pub model: String,
    /// The number of embeddings.
    pub entries: u64,
    /// The memory that they take, estimated from the first hundred keys of the model.
    pub bytes: u64,
}

impl RedisEmbeddingCache {
    /// Embeds every text of another version or model anew with `to`, and keeps it under `to`'s version and model.
    ///
    /// It needs entries that were written with their [text](CachedEmbedder::with_kept_texts).
    /// The old entries stay until they expire, so readers of either version are served all the while.
    /// What is there in the new version is not embedded again: a run that was stopped goes on where it was when it is
    /// called again.
    /// `progress` is called after each batch.
    ///
    /// Round trips: a `SCAN` per 500 keys of the database, and for each batch an `MGET` and those of `to`.
    /// On a cluster it sees the keys of one node only.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if `to` has the same version and model as the old entries; else those of
    /// [`Embedder::embed_many`] and [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// It can be dropped at any time, and called again.
    #[tracing::instrument(name = "embcache.migrate", level = "debug", skip_all)]
    pub async fn migrate<E: Embedder>(
        &self,
        from_version: u32,
        from_model: &str,
        to: &CachedEmbedder<E>,
        pace: Pace,
        mut progress: impl FnMut(&Migrated) + Send,
    ) -> Result<Migrated> {
        if (to.version(), to.model()) == (from_version, from_model) {
            return Err(Error::Config(
                "the new embedder has the version and model of the old entries: raise its version"
                    .to_owned(),
            ));
        }
        let start = Instant::now();
        let (mut migrated, mut embedded) = (Migrated::default(), 0);
        let pattern = self.of_model(from_version, from_model).prefix();
        let mut scan = Scan::new(self, &pattern);
        while let Some(keys) = scan.next().await? {
            for keys in keys.chunks(pace.batch) {
                let values = self.values(keys).await?;
                // What expired meanwhile is gone.
                let values: Vec<Bytes> = values.into_iter().flatten().collect();
                let mut texts = Vec::with_capacity(values.len());
                for value in &values {
                    migrated.seen += 1;
                    match text_of(value) {
                        Ok(Some(text)) => texts.push(text),
                        Ok(None) => migrated.without_text += 1,
                        Err(_) => migrated.unreadable += 1,
                    }
                }
                let before = to.stats().misses;
                migrated.done += to.embed_many(&texts).await?.len() as u64;
                embedded += to.stats().misses - before;
                progress(&migrated);
                if let Some(rate) = pace.texts_per_second {
                    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
                    let due = Duration::from_secs_f64(embedded as f64 / rate);
                    tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
                }
            }
        }
        Ok(migrated)
    }

    /// Counts the embeddings of each version and model, and estimates the memory that they take.
    ///
    /// Round trips: a `SCAN` per 500 keys of the database, and one pipeline of up to 100 `MEMORY USAGE` per model.
    /// On a cluster it sees the keys of one node only.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    #[tracing::instrument(name = "embcache.usage", level = "debug", skip_all)]
    pub async fn usage(&self) -> Result<Vec<ModelUsage>> {
        let prefix = self.family().prefix();
        let mut models: BTreeMap<(u32, String), (u64, Vec<Bytes>)> = BTreeMap::new();
        let mut scan = Scan::new(self, &prefix);
        while let Some(keys) = scan.next().await? {
            for key in keys {
                let Some(model) = model_of(&key, &prefix) else { continue };
                let (entries, samples) = models.entry(model).or_default();
                *entries += 1;
                if samples.len() < SAMPLES {
                    samples.push(key);
                }
            }
        }
        let mut usage = Vec::with_capacity(models.len());
        for ((version, model), (entries, samples)) in models {
            let mut batch = Batch::new();
            let size = |key: Bytes| Cmd::new("MEMORY").arg("USAGE").key(key).readonly();
            let slots: Vec<_> =
                samples.into_iter().map(|key| batch.push::<Option<u64>>(size(key))).collect();
            let mut answers = self.driver.run(batch).await?;
            let (mut bytes, mut sampled) = (0, 0);
            for slot in slots {
                if let Some(size) = answers.take(slot)? {
                    bytes += size;
                    sampled += 1;
                }
            }
            let bytes = (bytes * entries).checked_div(sampled).unwrap_or(0);
            usage.push(ModelUsage { version, model, entries, bytes });
        }
        Ok(usage)
    }

    async fn values(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let mut batch = Batch::new();
        let get = |key: &Bytes| Cmd::new("GET").key(key).readonly();
        let slots: Vec<_> = keys.iter().map(|key| batch.push(get(key))).collect();
        let mut answers = self.driver.run(batch).await?;
        slots.into_iter().map(|slot| Ok(answers.take(slot)?)).collect()
    }
}

/// The keys with a prefix, each once, as the server hands them out.
struct Scan<'c> {
    cache: &'c RedisEmbeddingCache,
    pattern: String,
    cursor: Option<Bytes>,
    seen: HashSet<Bytes>,
}

impl<'c> Scan<'c> {
    /// `prefix` is one of the core's, in which nothing is special to a pattern.
    fn new(cache: &'c RedisEmbeddingCache, prefix: &str) -> Self {
        let cursor = Some(Bytes::from_static(b"0"));
        Self { cache, pattern: format!("{prefix}*"), cursor, seen: HashSet::new() }
    }

    async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        let cmd = Cmd::new("SCAN").arg(cursor).arg("MATCH").arg(&self.pattern);
        let cmd = cmd.arg("COUNT").arg(SCAN_COUNT).readonly();
        let (next, keys): (Bytes, Vec<Bytes>) = self.cache.driver.query(cmd).await?;
        if next != "0" {
            self.cursor = Some(next);
        }
        Ok(Some(keys.into_iter().filter(|key| self.seen.insert(key.clone())).collect()))
    }
}

/// The version and model in a key.
fn model_of(key: &[u8], prefix: &str) -> Option<(u32, String)> {
    let mut parts = str::from_utf8(key).ok()?.strip_prefix(prefix)?.split(':');
    let version = parts.next()?.strip_prefix('v')?.parse().ok()?;
    let model = String::from_utf8(decode_key(parts.next()?)?).ok()?;
    Some((version, model))
}
