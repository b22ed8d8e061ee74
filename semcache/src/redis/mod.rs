//! The cache on a server: this file sets it up; its neighbors read, write and move entries.

mod config;
mod plan;
mod read;
mod transfer;
mod write;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::{Key, KeyBuilder, KeyFamily, Ttl};
use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_embcache::Embedder;
use inferkit_vectorsearch::{
    Algorithm, Bulk, Error as SearchError, IndexInfo, MAX_K, RedisVectorIndex, Schema, VectorField,
    VectorIndex as _,
};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, debug_span};

pub use config::Config;

use crate::adaptive::{Controller, PoolCopy};
use crate::digest::{digest, hex, seed};
use crate::entry::{EMBEDDING, LABELS, SCOPE, TIMESTAMP};
use crate::stats::Meter;
use crate::{
    Answer, Cursor, EntryId, Error, Feedback, Hit, Lookup, Miss, Record, Request, Result,
    Selection, SemanticCache, Stats, Stored, Tenant,
};
use plan::Plans;

/// The keys that [`RedisSemanticCache`] and its [`RedisFlights`](crate::RedisFlights) write.
pub const KEYS: &[KeyFamily] = &[
    KeyFamily::new(
        "cache",
        "cache:<tenant digest>:<id>",
        "hash",
        Ttl::Always(
            "as the request, its category or its model has it: 7 days for gpt-4, 1 day for others",
        ),
        &[
            "EVALSHA",
            "EVAL",
            "HMGET",
            "HGET",
            "HSET",
            "TIME",
            "DEL",
            "EXISTS",
            "PEXPIRE",
            "PTTL",
            "SCAN",
            "UNLINK",
            "FT.SEARCH",
            "FT.AGGREGATE",
            "FT.CURSOR",
            "FT.INFO",
            "FT.CREATE",
            "FT.DROPINDEX",
            "FT.ALIASADD",
            "FT.ALIASUPDATE",
        ],
    ),
    KeyFamily::new(
        "cache",
        "cache:<tenant digest>:epoch",
        "string",
        Ttl::Always("as the last of the tenant's entries; without it none of them is valid"),
        &["GET", "SET", "PEXPIRE"],
    ),
    KeyFamily::new(
        "cache",
        "cache:pool:<embedding model digest>",
        "string",
        Ttl::Always("30 days after the last report, under an adaptive policy"),
        &["GET", "GETRANGE", "BITFIELD", "SETRANGE", "PEXPIRE"],
    ),
    KeyFamily::new(
        "cache",
        "cache:<tenant digest>:<id>:flight",
        "stream",
        Ttl::Always("a minute after an answer was generated that others waited for"),
        &["XADD", "XREAD", "XREVRANGE", "PEXPIRE"],
    ),
];

/// The outcome of a call that failed, on its span.
const FAILED: &str = "error";

/// A semantic cache on Redis or Valkey with RediSearch: one hash per entry, one vector index over all.
///
/// Cloning is cheap, and clones share the connection and the [statistics](Self::stats).
///
/// # Examples
///
/// ```no_run
/// # use std::sync::Arc;
/// # use inferkit_semcache::{Config, Embedder, RedisSemanticCache};
/// # use inferkit_semcache::inferkit_core::DynDriver;
/// # async fn example(driver: DynDriver, embedder: Arc<dyn Embedder>) -> inferkit_semcache::Result<()> {
/// let cache = RedisSemanticCache::new(driver, embedder, Config::new().with_expected_entries(100_000))?;
/// cache.ensure_index().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisSemanticCache {
    driver: DynDriver,
    embedder: Arc<dyn Embedder>,
    // A `std` lock: it is held to clone a pointer, never across an await.
    index: Arc<RwLock<Arc<RedisVectorIndex>>>,
    config: Arc<Config>,
    meter: Arc<Meter>,
    plans: Arc<Plans>,
    controller: Arc<Controller>,
    pool: Arc<PoolCopy>,
    /// The server is a cluster that said so: a script cannot write, since an entry and its tenant's epoch lie in different slots.
    is_cluster: Arc<AtomicBool>,
}

impl RedisSemanticCache {
    /// Makes a cache; nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Search`] if the embedder's dimensions or the algorithm's numbers cannot be indexed, or the namespace does
    /// not start with a letter, as the name of an index must; [`Error::TooManyCandidates`] above [`MAX_K`].
    pub fn new(driver: DynDriver, embedder: Arc<dyn Embedder>, mut config: Config) -> Result<Self> {
        config.candidates = config.candidates.max(config::FEWEST_CANDIDATES);
        if MAX_K < config.candidates {
            return Err(Error::TooManyCandidates { got: config.candidates, max: MAX_K });
        }
        let algorithm = config.algorithm_for(embedder.dimensions());
        let index = index(&driver, &config, embedder.dimensions(), algorithm)?;
        Ok(Self {
            driver,
            embedder,
            index: Arc::new(RwLock::new(Arc::new(index))),
            config: Arc::new(config),
            meter: Arc::default(),
            plans: Arc::default(),
            controller: Arc::new(Controller::new(seed())),
            pool: Arc::default(),
            is_cluster: Arc::default(),
        })
    }

    /// Creates the index unless it exists with the same fields; returns whether this call created it.
    ///
    /// An index that searches by another algorithm is taken as it is, unless the [`Config`] forces one: it may have been
    /// [moved](Self::move_index) there.
    /// One `FT.INFO` if it exists, else also one `FT.CREATE` and one `FT.ALIASADD`; safe to call from many processes at
    /// once and to repeat.
    ///
    /// # Errors
    ///
    /// [`Error::Search`] if an index of this name has another schema, such as other dimensions, or the server has no
    /// search; [`Error::Backend`] if it could not be asked.
    pub async fn ensure_index(&self) -> Result<bool> {
        let wanted = self.index();
        let mismatch = match wanted.ensure_index().await {
            Err(error @ SearchError::SchemaMismatch { .. }) if self.config.algorithm.is_none() => {
                error
            }
            other => return Ok(other?),
        };
        let dimensions = self.embedder.dimensions();
        for algorithm in config::ALGORITHMS {
            let other = index(&self.driver, &self.config, dimensions, algorithm)?;
            if other.schema().index() == wanted.schema().index() {
                continue;
            }
            match other.ensure_index().await {
                Ok(created) => {
                    self.use_index(other);
                    return Ok(created);
                }
                Err(SearchError::SchemaMismatch { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(mismatch.into())
    }

    /// Moves the entries to an index with another algorithm while the cache is used, such as from
    /// [`Algorithm::Flat`] to [`Algorithm::Hnsw`] when it has grown; `progress` sees how far it is.
    ///
    /// See [`RedisVectorIndex::reindex`]; other processes go on with the new index at once.
    ///
    /// # Errors
    ///
    /// [`Error::Search`] if the index in use has this algorithm already, or the new one was not complete within
    /// `timeout`: the old one stays in use then. [`Error::Backend`] if the server could not be asked.
    pub async fn move_index(
        &self,
        algorithm: Algorithm,
        timeout: Duration,
        progress: impl FnMut(&IndexInfo) + Send,
    ) -> Result<()> {
        let next = index(&self.driver, &self.config, self.embedder.dimensions(), algorithm)?;
        let moved = self.index().reindex(next.schema().clone(), timeout, progress).await?;
        self.use_index(moved);
        Ok(())
    }

    /// Returns the index, for who wants to look at it or drop it.
    #[must_use]
    pub fn index(&self) -> Arc<RedisVectorIndex> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn use_index(&self, index: RedisVectorIndex) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns what this cache and its clones did so far, in this process.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.meter.stats()
    }

    /// Returns the server's key of an entry.
    #[must_use]
    pub fn key(&self, tenant: &Tenant, id: &EntryId) -> Key {
        self.tenant_keys(tenant).hex(&id.0).build()
    }

    /// Returns the server's key of a tenant's epoch.
    #[must_use]
    pub fn epoch_key(&self, tenant: &Tenant) -> Key {
        self.tenant_keys(tenant).literal("epoch").build()
    }

    /// Returns the server's key of what is known of all entries whose prompts the same model embedded.
    #[must_use]
    pub fn pool_key(&self) -> Key {
        let model = digest(b"inferkit semcache pool 1", [self.embedder.model().as_bytes()]);
        self.config.namespace.family("cache").literal("pool").hex(&model).build()
    }

    fn tenant_keys(&self, tenant: &Tenant) -> KeyBuilder {
        self.config.namespace.family("cache").hex(tenant.digest())
    }
}

/// The index behind the alias `cache:idx`; its own name tells its algorithm, so that two can be there during a move.
fn index(
    driver: &DynDriver,
    config: &Config,
    dimensions: usize,
    algorithm: Algorithm,
) -> Result<RedisVectorIndex> {
    let family = || config.namespace.family("cache");
    // Under the keys' own prefix, since servers check the permission for the index's name like a key's.
    let alias = family().literal("idx").build();
    let kind = match algorithm {
        Algorithm::Flat => "flat",
        Algorithm::Hnsw(_) => "hnsw",
        _ => "other",
    };
    let details = format!("{algorithm:?} {:?} {dimensions}", config.data_type);
    let details = hex(&digest(b"inferkit semcache index 1", [details.as_bytes()]));
    let details = details.as_str().get(..8).unwrap_or_default();
    let name = family().literal("idx").part(kind).part(details).build();
    let field = VectorField::new(EMBEDDING, dimensions, algorithm).with_data_type(config.data_type);
    let schema = Schema::builder(name.as_str().to_owned(), family().prefix(), field)
        .tag(SCOPE)
        .tag(LABELS)
        .numeric(TIMESTAMP)
        .build()?;
    Ok(RedisVectorIndex::behind_alias(Arc::clone(driver), schema, alias.as_str())?)
}

#[async_trait]
impl SemanticCache for RedisSemanticCache {
    /// One pipeline of `HMGET` and `GET` for the exact tier, then one `FT.SEARCH`, or two if expired or damaged entries took
    /// all places of the first; with a sliding expiry one more round trip for a hit.
    ///
    /// A graph that is searched under a filter which thousands of entries pass takes long, since the server compares them
    /// all: where a search was slow, one `FT.SEARCH` that counts and one `FT.INFO` once a minute tell whether to have it
    /// walk the graph instead.
    async fn lookup(&self, request: &Request) -> Result<Lookup> {
        let span = debug_span!("semcache.lookup", outcome = Empty, similarity = Empty);
        let start = Instant::now();
        let found = self.find(request).instrument(span.clone()).await;
        self.meter.lookup(found.as_ref().ok(), start.elapsed(), self.config.policy.prices());
        span.record("outcome", found.as_ref().map_or(FAILED, Lookup::outcome));
        if let Some(hit) = found.as_ref().ok().and_then(Lookup::hit) {
            span.record("similarity", hit.similarity.as_f64());
        }
        found
    }

    /// One `EVALSHA`.
    async fn store(
        &self,
        request: &Request,
        answer: &Answer,
        miss: Option<Miss>,
    ) -> Result<Stored> {
        let span = debug_span!("semcache.store", outcome = Empty);
        let stored = self.put(request, answer, miss).instrument(span.clone()).await;
        span.record("outcome", stored.as_ref().map_or(FAILED, |stored| stored.outcome()));
        if let Ok(stored) = stored {
            self.meter.store(stored);
        }
        stored
    }

    /// One pipeline of `EVALSHA`.
    async fn store_many(&self, answers: &[(Request, Answer)]) -> Result<Vec<Stored>> {
        let span = debug_span!("semcache.store_many", answers = answers.len());
        let stored = self.put_many(answers).instrument(span).await?;
        stored.iter().for_each(|stored| self.meter.store(*stored));
        Ok(stored)
    }

    /// One `DEL`.
    async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool> {
        let cmd = Cmd::new("DEL").key(self.key(tenant, id)).idempotent();
        let span = debug_span!("semcache.remove", outcome = Empty);
        let removed = self.driver.query(cmd).instrument(span.clone()).await;
        let outcome = match removed {
            Ok(true) => "removed",
            Ok(false) => "absent",
            Err(_) => FAILED,
        };
        span.record("outcome", outcome);
        Ok(removed?)
    }

    /// One `FT.AGGREGATE` and one `FT.CURSOR READ` per thousand entries, then one pipelined `UNLINK` per entry.
    ///
    /// Entries that the index does not hold yet stay.
    async fn invalidate(&self, selection: &Selection) -> Result<u64> {
        let filter = selection.filter()?;
        let span = debug_span!("semcache.invalidate", removed = Empty);
        let index = self.index();
        let removing = index.remove_where(&filter, Bulk::apply().allow_all());
        let affected = removing.instrument(span.clone()).await?;
        span.record("removed", affected.changed);
        Ok(affected.changed)
    }

    /// One `SET`.
    async fn flush(&self, tenant: &Tenant) -> Result<()> {
        let span = debug_span!("semcache.flush");
        self.new_epoch(tenant).instrument(span).await
    }

    /// One `EVALSHA` or `DEL` for a wrong hit, none for a right one; under an adaptive policy a pipeline of two `EVALSHA` for
    /// a hit or candidate of the semantic tier.
    async fn report(&self, asked: &Request, hit: &Hit, feedback: Feedback) -> Result<bool> {
        let span = debug_span!("semcache.report");
        let noted = self.note(asked, hit, feedback).instrument(span).await?;
        self.meter.feedback(feedback);
        Ok(noted)
    }

    /// One `SCAN`, and one pipeline of reads.
    async fn export_some(&self, from: Option<Cursor>) -> Result<(Vec<Record>, Option<Cursor>)> {
        self.read_records(from).instrument(debug_span!("semcache.export")).await
    }

    /// One pipeline of `EVALSHA`.
    async fn import_many(&self, records: &[Record]) -> Result<u64> {
        self.write_records(records).instrument(debug_span!("semcache.import")).await
    }
}
