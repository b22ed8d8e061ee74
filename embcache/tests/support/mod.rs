//! What the tests of this folder share.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use inferkit_core::keys::Namespace;
use inferkit_core::{DynDriver, FredDriver, Pool, PoolConfig};
use inferkit_embcache::{Embedder, RedisEmbeddingCache, Result};
use inferkit_localredis::{Cluster, Flavor, Server, unique_prefix};

/// Makes a vector of a text's length and first byte, and remembers what it was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counting {
    pub(crate) calls: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Counting {
    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        self.calls.lock().unwrap().clone()
    }
}

pub(crate) fn vector_of(text: &str) -> Vec<f32> {
    let first = text.bytes().next().unwrap_or_default();
    vec![f32::from(u16::try_from(text.len()).unwrap()), f32::from(first), 0.5]
}

#[async_trait::async_trait]
impl Embedder for Counting {
    fn model(&self) -> &str {
        "count:{ing}"
    }

    fn dimensions(&self) -> usize {
        3
    }

    async fn embed_many(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.calls.lock().unwrap().push(texts.iter().map(ToString::to_string).collect());
        Ok(texts.iter().map(|text| vector_of(text)).collect())
    }
}

pub(crate) async fn pool(url: &str) -> DynDriver {
    let config = PoolConfig::single(url).unwrap().with_timeout(Duration::from_secs(10));
    Pool::connect_with(config).await.unwrap().into_driver()
}

pub(crate) async fn fred(url: &str) -> DynDriver {
    use fred::prelude::*;
    let mut builder = Builder::from_config(Config::from_url(url).unwrap());
    builder.set_policy(ReconnectPolicy::new_constant(0, 20));
    let client = builder.build().unwrap();
    client.init().await.unwrap();
    Arc::new(FredDriver::new(client).with_timeout(Duration::from_secs(10)))
}

pub(crate) fn namespace() -> Namespace {
    Namespace::new(&unique_prefix()).unwrap()
}

pub(crate) async fn on_pool(flavor: Flavor) -> RedisEmbeddingCache {
    RedisEmbeddingCache::new(pool(Server::shared(flavor).unwrap().url()).await, namespace())
}

pub(crate) fn on_cluster() -> RedisEmbeddingCache {
    let config = PoolConfig::cluster(&Cluster::shared().unwrap().urls()).unwrap();
    let pool = Pool::new(config.with_timeout(Duration::from_secs(10)));
    RedisEmbeddingCache::new(pool.into_driver(), namespace())
}

pub(crate) async fn on_fred() -> RedisEmbeddingCache {
    let url = Server::shared(Flavor::Plain).unwrap().url();
    RedisEmbeddingCache::new(fred(url).await, namespace())
}
