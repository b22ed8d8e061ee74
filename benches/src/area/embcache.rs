use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use inferkit::core::keys::Namespace;
use inferkit::core::{Pool, PoolConfig};
use inferkit::embcache::{
    CachedEmbedder, Embedder, EmbeddingKey, OnCacheError, RedisEmbeddingCache,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use redis::aio::MultiplexedConnection;

use crate::data::Prepared;
use crate::{Effort, Line, Promise, Result, median_micros, raw_connection, unit_vectors};

const TEXTS: usize = 100;
const DIMENSIONS: usize = 1536;
/// The stored form: a header of 4 bytes and the components.
const STORED: usize = 4 + 4 * DIMENSIONS;

/// A cache that holds the vectors of 100 texts.
pub(crate) struct Hundred {
    cache: RedisEmbeddingCache,
    embedder: CachedEmbedder<Prepared>,
    texts: Vec<String>,
}

impl Hundred {
    pub(crate) async fn new(server: &Server) -> Result<Self> {
        let pool = PoolConfig::single(server.url())?.with_connections(1);
        let driver = Pool::connect_with(pool).await?.into_driver();
        let cache = RedisEmbeddingCache::new(driver, Namespace::new(&unique_prefix())?);
        let text =
            |number| format!("Passage {number}: {}", "plants turn light into sugar. ".repeat(8));
        let texts: Vec<String> = (0..TEXTS).map(text).collect();
        let vectors = texts.iter().cloned().zip(unit_vectors(TEXTS, DIMENSIONS)).collect();
        let full = Prepared { vectors, dimensions: DIMENSIONS };
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        CachedEmbedder::new(full, Arc::new(cache.clone())).embed_many(&all).await?;
        // It knows no text, so that whatever is not in the cache is an error.
        let empty = Prepared { vectors: HashMap::new(), dimensions: DIMENSIONS };
        let embedder = CachedEmbedder::new(empty, Arc::new(cache.clone()));
        Ok(Self { cache, embedder: embedder.with_on_cache_error(OnCacheError::Fail), texts })
    }

    /// The median time of getting all vectors, in microseconds.
    pub(crate) async fn get(&self, calls: usize) -> Result<f64> {
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let mut times = Vec::with_capacity(calls);
        for _ in 0..calls {
            let start = Instant::now();
            let vectors = self.embedder.embed_many(&texts).await?;
            times.push(start.elapsed().as_secs_f64());
            if vectors.len() != TEXTS {
                return Err("a vector is missing".into());
            }
        }
        Ok(median_micros(times))
    }

    fn keys(&self) -> Vec<String> {
        let key = |text| EmbeddingKey::new(1, self.embedder.model(), text);
        self.texts.iter().map(|text| self.cache.key(&key(text)).to_string()).collect()
    }
}

/// What it takes to get 100 cached vectors from their texts, beside a bare `MGET` of the same bytes.
///
/// Ours includes the digests of the texts and the vectors made of the bytes; the baseline ends with the bytes.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let hundred = Hundred::new(&server).await?;
    let raw = raw_connection(&server).await?;
    let keys = hundred.keys();
    let calls = 400 / effort.divisor;
    let mget100 = Promise::at_most("embcache", "mget100", 1.20, "us")
        .measure(
            effort,
            async || hundred.get(calls).await,
            async || baseline(&raw, &keys, calls).await,
        )
        .await?;
    Ok(vec![mget100])
}

async fn baseline(raw: &MultiplexedConnection, keys: &[String], calls: usize) -> Result<f64> {
    let mut raw = raw.clone();
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        let values: Vec<Vec<u8>> = redis::cmd("MGET").arg(keys).query_async(&mut raw).await?;
        times.push(start.elapsed().as_secs_f64());
        if values.len() != TEXTS || values.iter().any(|value| value.len() != STORED) {
            return Err("a vector is missing".into());
        }
    }
    Ok(median_micros(times))
}
