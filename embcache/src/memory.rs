use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::{Clock, SystemClock};

use crate::cached::ttl_millis;
use crate::{EmbeddingCache, EmbeddingKey, Result};

/// Embeddings within this process, for tests and small tools: nothing is evicted but what has expired.
#[derive(Debug)]
pub struct MemoryEmbeddingCache {
    clock: Arc<dyn Clock>,
    // A `std` mutex: it is held for look-ups, never across an await.
    entries: Mutex<HashMap<EmbeddingKey, (Bytes, Duration)>>,
}

impl MemoryEmbeddingCache {
    /// Makes an empty cache whose entries expire by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, entries: Mutex::default() }
    }
}

impl Default for MemoryEmbeddingCache {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }
}

#[async_trait]
impl EmbeddingCache for MemoryEmbeddingCache {
    async fn get_many(&self, keys: &[EmbeddingKey]) -> Result<Vec<Option<Bytes>>> {
        let now = self.clock.now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(keys
            .iter()
            .map(|key| match entries.get(key) {
                Some((value, end)) if now < *end => Some(value.clone()),
                Some(_) => {
                    entries.remove(key);
                    None
                }
                None => None,
            })
            .collect())
    }

    async fn put_many(&self, new: &[(EmbeddingKey, Bytes)], ttl: Duration) -> Result<()> {
        let end = self.clock.now() + Duration::from_millis(ttl_millis(ttl)?);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in new {
            entries.insert(key.clone(), (value.clone(), end));
        }
        Ok(())
    }
}
