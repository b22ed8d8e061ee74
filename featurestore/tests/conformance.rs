//! The suite on memory, on Redis through redis-rs and through fred, on Valkey and on a cluster.

mod support;

use inferkit_featurestore::{MemoryFeatureStore, RedisFeatureStore, feature_store_conformance};
use inferkit_localredis::Flavor;

mod memory {
    use super::*;
    async fn make() -> MemoryFeatureStore {
        MemoryFeatureStore::new()
    }
    feature_store_conformance!(make);
}

mod redis_rs {
    use super::*;
    async fn make() -> RedisFeatureStore {
        RedisFeatureStore::new(support::shared(Flavor::Plain).await, support::namespace())
    }
    feature_store_conformance!(make);
}

mod fred {
    use super::*;
    async fn make() -> RedisFeatureStore {
        RedisFeatureStore::new(support::fred().await, support::namespace())
    }
    feature_store_conformance!(make);
}

mod valkey {
    use super::*;
    async fn make() -> RedisFeatureStore {
        RedisFeatureStore::new(support::shared(Flavor::Valkey).await, support::namespace())
    }
    feature_store_conformance!(make);
}

mod cluster {
    use super::*;
    async fn make() -> RedisFeatureStore {
        RedisFeatureStore::new(support::cluster().await, support::namespace())
            .with_nodes(support::cluster_nodes().await)
    }
    feature_store_conformance!(make);
}
