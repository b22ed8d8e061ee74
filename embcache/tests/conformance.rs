//! The suite on memory, on Redis through redis-rs and through fred, on Valkey, and on a cluster.

mod support;

use inferkit_embcache::{MemoryEmbeddingCache, RedisEmbeddingCache, embedding_cache_conformance};
use inferkit_localredis::Flavor;

mod memory {
    use super::*;
    async fn make() -> MemoryEmbeddingCache {
        MemoryEmbeddingCache::default()
    }
    embedding_cache_conformance!(make);
}

mod redis_rs {
    use super::*;
    async fn make() -> RedisEmbeddingCache {
        support::on_pool(Flavor::Plain).await
    }
    embedding_cache_conformance!(make);
}

mod fred {
    use super::*;
    async fn make() -> RedisEmbeddingCache {
        support::on_fred().await
    }
    embedding_cache_conformance!(make);
}

mod valkey {
    use super::*;
    async fn make() -> RedisEmbeddingCache {
        support::on_pool(Flavor::Valkey).await
    }
    embedding_cache_conformance!(make);
}

mod cluster {
    use super::*;
    async fn make() -> RedisEmbeddingCache {
        support::on_cluster()
    }
    embedding_cache_conformance!(make);
}
