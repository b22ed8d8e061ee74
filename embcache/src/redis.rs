use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::keys::{Key, KeyBuilder, KeyFamily, Namespace, Ttl};
use inferkit_core::{Batch, Cmd, DriverExt as _, DynDriver, ErrorKind};

use crate::cached::ttl_millis;
use crate::{EmbeddingCache, EmbeddingKey, Error, Result};

/// The keys that [`RedisEmbeddingCache`] writes.
pub const KEYS: &[KeyFamily] = &[KeyFamily::new(
    "emb",
    "emb:v<version>:<model>:<sha256 hex>",
    "string",
    Ttl::Always("7 days, or as the caller sets it"),
    &["MGET", "GET", "SET", "SCAN", "MEMORY|USAGE"],
)];

/// Embeddings on Redis: one string each, with an expiry.
///
/// Cloning is cheap, and clones share the connection.
#[derive(Clone, Debug)]
pub struct RedisEmbeddingCache {
    pub(crate) driver: DynDriver,
    namespace: Namespace,
    /// The server is a cluster that said so: an `MGET` of keys in several slots is refused.
    is_cluster: Arc<AtomicBool>,
}

impl RedisEmbeddingCache {
    /// Makes a cache in `namespace`; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, namespace: Namespace) -> Self {
        Self { driver, namespace, is_cluster: Arc::default() }
    }

    /// Returns the server's key of an embedding.
    #[must_use]
    pub fn key(&self, key: &EmbeddingKey) -> Key {
        self.of_model(key.version(), key.model()).hex(key.digest()).build()
    }

    /// The beginning of all keys.
    pub(crate) fn family(&self) -> KeyBuilder {
        self.namespace.family("emb")
    }

    /// The beginning of all keys of a model.
    pub(crate) fn of_model(&self, version: u32, model: &str) -> KeyBuilder {
        self.family().part(format!("v{version}")).part(model)
    }

    /// The keys, whose beginning is made once for each run of the same model.
    fn keys<'k>(&self, keys: &'k [EmbeddingKey]) -> impl Iterator<Item = Key> + use<'_, 'k> {
        let mut last: Option<(&EmbeddingKey, KeyBuilder)> = None;
        keys.iter().map(move |key| {
            let same = |(other, _): &&(&EmbeddingKey, KeyBuilder)| {
                other.version() == key.version() && other.model() == key.model()
            };
            if let Some((_, beginning)) = last.as_ref().filter(same) {
                return beginning.clone().hex(key.digest()).build();
            }
            let beginning = self.of_model(key.version(), key.model());
            let built = beginning.clone().hex(key.digest()).build();
            last = Some((key, beginning));
            built
        })
    }

    async fn get_each(&self, keys: &[EmbeddingKey]) -> Result<Vec<Option<Bytes>>> {
        let mut batch = Batch::new();
        let slots: Vec<_> = self.keys(keys).map(|key| batch.push(get(&key))).collect();
        let mut answers = self.driver.run(batch).await?;
        slots.into_iter().map(|slot| Ok(answers.take(slot)?)).collect()
    }
}

fn get(key: &Key) -> Cmd {
    Cmd::with_capacity("GET", 128).key(key).readonly()
}

#[async_trait]
impl EmbeddingCache for RedisEmbeddingCache {
    /// One `MGET`; on a cluster, once it has refused that, one pipeline of a `GET` each.
    async fn get_many(&self, keys: &[EmbeddingKey]) -> Result<Vec<Option<Bytes>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        if 1 < keys.len() && self.is_cluster.load(Ordering::Relaxed) {
            return self.get_each(keys).await;
        }
        let mut cmd = Cmd::with_capacity("MGET", 128 * keys.len());
        for key in self.keys(keys) {
            cmd = cmd.key(key);
        }
        let values: Vec<Option<Bytes>> = match self.driver.query(cmd.readonly()).await {
            Err(error) if error.kind() == ErrorKind::CrossSlot => {
                self.is_cluster.store(true, Ordering::Relaxed);
                return self.get_each(keys).await;
            }
            values => values?,
        };
        if values.len() != keys.len() {
            return Err(Error::CountMismatch { expected: keys.len(), got: values.len() });
        }
        Ok(values)
    }

    /// One pipeline of a `SET` with `PX` each.
    async fn put_many(&self, entries: &[(EmbeddingKey, Bytes)], ttl: Duration) -> Result<()> {
        let millis = ttl_millis(ttl)?;
        let mut batch = Batch::new();
        let mut slots = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let cmd = Cmd::with_capacity("SET", value.len() + 160)
                .key(self.key(key))
                .arg(value)
                .arg("PX")
                .arg(millis)
                .idempotent();
            slots.push(batch.push::<()>(cmd));
        }
        let mut answers = self.driver.run(batch).await?;
        for slot in slots {
            answers.take(slot)?;
        }
        Ok(())
    }

    fn get_cmd(&self, key: &EmbeddingKey) -> Option<Cmd> {
        Some(get(&self.key(key)))
    }
}
