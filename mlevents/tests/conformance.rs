//! The suite on memory, on Redis through redis-rs and through fred, on Valkey and on a cluster.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use inferkit_core::PoolConfig;
use inferkit_localredis::{Cluster, Flavor, Server};
use inferkit_mlevents::{MemoryEventBus, RedisEventBus, event_bus_conformance};

mod memory {
    use super::*;
    async fn make() -> MemoryEventBus {
        MemoryEventBus::new()
    }
    event_bus_conformance!(make);
}

/// Readers look every now and then.
mod redis_rs {
    use super::*;
    async fn make() -> RedisEventBus {
        RedisEventBus::new(support::shared(Flavor::Plain).await, support::namespace())
    }
    event_bus_conformance!(make);
}

/// Readers wait at the server.
mod redis_rs_waiting {
    use super::*;
    async fn make() -> RedisEventBus {
        let pool = support::pool(Server::shared(Flavor::Plain).unwrap().url()).await;
        let connect = Arc::new(pool.clone());
        RedisEventBus::new(pool.into_driver(), support::namespace()).with_connect(connect)
    }
    event_bus_conformance!(make);
}

mod fred {
    use super::*;
    async fn make() -> RedisEventBus {
        RedisEventBus::new(support::fred().await, support::namespace())
    }
    event_bus_conformance!(make);
}

mod valkey {
    use super::*;
    async fn make() -> RedisEventBus {
        let pool = support::pool(Server::shared(Flavor::Valkey).unwrap().url()).await;
        let connect = Arc::new(pool.clone());
        RedisEventBus::new(pool.into_driver(), support::namespace()).with_connect(connect)
    }
    event_bus_conformance!(make);
}

mod cluster {
    use super::*;
    async fn make() -> RedisEventBus {
        let config = PoolConfig::cluster(&Cluster::shared().unwrap().urls()).unwrap();
        let pool = inferkit_core::Pool::connect_with(config).await.unwrap();
        let connect = Arc::new(pool.clone());
        RedisEventBus::new(pool.into_driver(), support::namespace()).with_connect(connect)
    }
    event_bus_conformance!(make);
}
