//! The suites on memory, on Redis through redis-rs and through fred, on Valkey and on a cluster.

mod support;

use inferkit_localredis::Flavor;
use inferkit_modelserve::{
    MemoryModelRegistry, MemoryModelRouter, MemoryResultCache, RedisModelRegistry,
    RedisModelRouter, RedisResultCache, model_registry_conformance, model_router_conformance,
    result_cache_conformance,
};

mod memory {
    mod registry {
        use super::super::*;
        async fn make() -> MemoryModelRegistry {
            MemoryModelRegistry::new()
        }
        model_registry_conformance!(make);
    }
    mod router {
        use super::super::*;
        async fn make() -> MemoryModelRouter {
            MemoryModelRouter::new()
        }
        model_router_conformance!(make);
    }
    mod results {
        use super::super::*;
        async fn make() -> MemoryResultCache {
            MemoryResultCache::new()
        }
        result_cache_conformance!(make);
    }
}

mod redis_rs {
    mod registry {
        use super::super::*;
        async fn make() -> RedisModelRegistry {
            RedisModelRegistry::new(support::shared(Flavor::Plain).await, support::namespace())
        }
        model_registry_conformance!(make);
    }
    mod router {
        use super::super::*;
        async fn make() -> RedisModelRouter {
            RedisModelRouter::new(support::shared(Flavor::Plain).await, support::namespace())
        }
        model_router_conformance!(make);
    }
    mod results {
        use super::super::*;
        async fn make() -> RedisResultCache {
            RedisResultCache::new(support::shared(Flavor::Plain).await, support::namespace())
        }
        result_cache_conformance!(make);
    }
}

mod fred {
    mod registry {
        use super::super::*;
        async fn make() -> RedisModelRegistry {
            RedisModelRegistry::new(support::fred().await, support::namespace())
        }
        model_registry_conformance!(make);
    }
    mod router {
        use super::super::*;
        async fn make() -> RedisModelRouter {
            RedisModelRouter::new(support::fred().await, support::namespace())
        }
        model_router_conformance!(make);
    }
    mod results {
        use super::super::*;
        async fn make() -> RedisResultCache {
            RedisResultCache::new(support::fred().await, support::namespace())
        }
        result_cache_conformance!(make);
    }
}

mod valkey {
    mod registry {
        use super::super::*;
        async fn make() -> RedisModelRegistry {
            RedisModelRegistry::new(support::shared(Flavor::Valkey).await, support::namespace())
        }
        model_registry_conformance!(make);
    }
    mod router {
        use super::super::*;
        async fn make() -> RedisModelRouter {
            RedisModelRouter::new(support::shared(Flavor::Valkey).await, support::namespace())
        }
        model_router_conformance!(make);
    }
    mod results {
        use super::super::*;
        async fn make() -> RedisResultCache {
            RedisResultCache::new(support::shared(Flavor::Valkey).await, support::namespace())
        }
        result_cache_conformance!(make);
    }
}

mod cluster {
    mod registry {
        use super::super::*;
        async fn make() -> RedisModelRegistry {
            RedisModelRegistry::new(support::cluster().await, support::namespace())
        }
        model_registry_conformance!(make);
    }
    mod router {
        use super::super::*;
        async fn make() -> RedisModelRouter {
            RedisModelRouter::new(support::cluster().await, support::namespace())
        }
        model_router_conformance!(make);
    }
    mod results {
        use super::super::*;
        async fn make() -> RedisResultCache {
            RedisResultCache::new(support::cluster().await, support::namespace())
        }
        result_cache_conformance!(make);
    }
}
