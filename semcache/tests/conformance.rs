//! The suite on memory, on Redis through redis-rs (FLAT and HNSW) and through fred, and on Valkey.

mod support;

use std::sync::Arc;

use inferkit_localredis::Flavor;
use inferkit_semcache::conformance::{Compass, policy};
use inferkit_semcache::{MemorySemanticCache, RedisSemanticCache, semantic_cache_conformance};

mod memory {
    use super::*;
    async fn make() -> MemorySemanticCache {
        MemorySemanticCache::new(Arc::new(Compass::default()), policy())
    }
    semantic_cache_conformance!(make);
}

mod redis_rs {
    use super::*;
    async fn make() -> RedisSemanticCache {
        support::on_pool(Flavor::Redis).await
    }
    semantic_cache_conformance!(make);
}

mod redis_rs_hnsw {
    use super::*;
    async fn make() -> RedisSemanticCache {
        support::on_hnsw().await
    }
    semantic_cache_conformance!(make);
}

mod fred {
    use super::*;
    async fn make() -> RedisSemanticCache {
        support::on_fred().await
    }
    semantic_cache_conformance!(make);
}

mod valkey {
    use super::*;
    async fn make() -> RedisSemanticCache {
        support::on_pool(Flavor::Valkey).await
    }
    semantic_cache_conformance!(make);
}
