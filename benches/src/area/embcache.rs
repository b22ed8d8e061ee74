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

/// What it takes to get 100 cached vectors from their texts, beside a bare `MGET` of the same bytes.
///
/// Ours includes the digests of the texts and the vectors made of the bytes; the baseline ends with the bytes.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let pool = Pool::connect_with(PoolConfig::single(server.url())?.with_connections(1)).await?;
    let raw = raw_connection(&server).await?;
    let cache = RedisEmbeddingCache::new(pool.into_driver(), Namespace::new(&unique_prefix())?);

    let texts: Vec<String> = (0..TEXTS)
        .map(|number| format!("Passage {number}: {}", "plants turn light into sugar. ".repeat(8)))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let vectors: HashMap<String, Vec<f32>> =
        texts.iter().map(|&text| text.to_owned()).zip(unit_vectors(TEXTS, DIMENSIONS)).collect();
    let full = Prepared { vectors, dimensions: DIMENSIONS };
    CachedEmbedder::new(full, Arc::new(cache.clone())).embed_many(&texts).await?;
    // It knows no text, so that whatever is not in the cache is an error.
    let empty = Prepared { vectors: HashMap::new(), dimensions: DIMENSIONS };
    let embedder =
        CachedEmbedder::new(empty, Arc::new(cache.clone())).with_on_cache_error(OnCacheError::Fail);
    let keys: Vec<String> = texts
        .iter()
        .map(|text| cache.key(&EmbeddingKey::new(1, embedder.model(), text)).to_string())
        .collect();

    let calls = 400 / effort.divisor;
    let mget100 = Promise::at_most("embcache", "mget100", 1.20, "us")
        .measure(
            effort,
            async || ours(&embedder, &texts, calls).await,
            async || baseline(&raw, &keys, calls).await,
        )
        .await?;
    Ok(vec![mget100])
}

async fn ours(embedder: &impl Embedder, texts: &[&str], calls: usize) -> Result<f64> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        let vectors = embedder.embed_many(texts).await?;
        times.push(start.elapsed().as_secs_f64());
        if vectors.len() != TEXTS {
            return Err("a vector is missing".into());
        }
    }
    Ok(median_micros(times))
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
