use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use inferkit::core::keys::Namespace;
use inferkit::core::{DynDriver, Pool, PoolConfig};
use inferkit::embcache::{self, Embedder};
use inferkit::semcache::{Answer, Config, RedisSemanticCache, Request, SemanticCache as _, Tenant};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use redis::IntoConnectionInfo as _;

use crate::Result;

/// The dimensions of the vectors: those of a small sentence model.
pub const DIMENSIONS: usize = 384;

/// Returns `count` vectors of length 1 that are the same in every run.
#[must_use]
pub fn unit_vectors(count: usize, dimensions: usize) -> Vec<Vec<f32>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64*, by Vigna: good enough for points in space.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit a float")]
        let unit = bits as f32 / (1_u32 << 24) as f32;
        unit - 0.5
    };
    let mut vector = || {
        let raw: Vec<f32> = (0..dimensions).map(|_| next()).collect();
        let norm = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
        raw.into_iter().map(|value| value / norm).collect()
    };
    (0..count).map(|_| vector()).collect()
}

/// Returns `count` vectors of length 1 around 200 centers, each as far from its center as the center is long; the same in
/// every run.
#[must_use]
pub fn clustered_vectors(count: usize, dimensions: usize) -> Vec<Vec<f32>> {
    const CENTERS: usize = 200;
    let mut points = unit_vectors(CENTERS + count, dimensions).into_iter();
    let centers: Vec<Vec<f32>> = points.by_ref().take(CENTERS).collect();
    let around = |(point, center): (Vec<f32>, &Vec<f32>)| {
        let sum: Vec<f32> = point.iter().zip(center).map(|(a, b)| a + b).collect();
        let norm = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
        sum.into_iter().map(|value| value / norm).collect()
    };
    points.zip(centers.iter().cycle()).map(around).collect()
}

/// An answer of about a kilobyte.
#[must_use]
pub fn answer_text(number: usize) -> String {
    format!("Answer {number}: ") + &"plants turn light into sugar and oxygen. ".repeat(24)
}

/// A bare redis-rs connection with the settings of a pool: RESP3, no delay of small packets, a time limit of a second.
///
/// # Errors
///
/// If there is no connection.
pub async fn raw_connection(server: &Server) -> Result<redis::aio::MultiplexedConnection> {
    let info = format!("{}?protocol=resp3", server.url()).into_connection_info()?;
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(tcp))?;
    let config = redis::AsyncConnectionConfig::new()
        .set_response_timeout(Some(std::time::Duration::from_secs(1)));
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// Returns prepared vectors, so that nothing but the cache is measured.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) vectors: HashMap<String, Vec<f32>>,
    pub(crate) dimensions: usize,
}

#[async_trait]
impl Embedder for Prepared {
    fn model(&self) -> &str {
        "prepared"
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    async fn embed_many(&self, texts: &[&str]) -> embcache::Result<Vec<Vec<f32>>> {
        Ok(texts.iter().filter_map(|&text| self.vectors.get(text).cloned()).collect())
    }
}

/// A server with a filled semantic cache.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fixture {
    /// The server, of this fixture's own.
    pub server: Server,
    /// A pool with one connection.
    pub driver: DynDriver,
    /// The cache.
    pub cache: RedisSemanticCache,
    /// The requests that are in the cache.
    pub stored: Vec<Request>,
    /// Requests that are not, each with a prompt that means the same as that of the stored one in its place.
    pub similar: Vec<Request>,
}

impl Fixture {
    /// Starts a server and stores `entries` answers.
    ///
    /// # Errors
    ///
    /// If there is no server, or it does not take the entries.
    pub async fn new(entries: usize) -> Result<Self> {
        let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
        let pool =
            Pool::connect_with(PoolConfig::single(server.url())?.with_connections(1)).await?;
        let driver = pool.into_driver();
        let request = |text: String| Request::new(Tenant::new("bench")?, "gpt-4", text);
        let (mut vectors, mut stored, mut similar) = (HashMap::new(), Vec::new(), Vec::new());
        for (number, vector) in clustered_vectors(entries, DIMENSIONS).into_iter().enumerate() {
            let question = format!("What is the answer to question {number}?");
            let reworded = format!("What's the answer to question {number}?");
            vectors.insert(question.clone(), vector.clone());
            vectors.insert(reworded.clone(), vector);
            stored.push(request(question)?);
            similar.push(request(reworded)?);
        }
        let config = Config::new()
            .with_namespace(Namespace::new(&unique_prefix())?)
            .with_expected_entries(entries);
        let embedder = Arc::new(Prepared { vectors, dimensions: DIMENSIONS });
        let cache = RedisSemanticCache::new(Arc::clone(&driver), embedder, config)?;
        cache.ensure_index().await?;
        for (number, request) in stored.iter().enumerate() {
            let answer = Answer::new(answer_text(number))?.with_tokens_used(250);
            cache.store(request, &answer, None).await?;
        }
        Ok(Self { server, driver, cache, stored, similar })
    }
}
