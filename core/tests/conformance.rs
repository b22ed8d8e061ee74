//! The driver suite on every way to a single server, and the lease suite on both implementations.
#![expect(clippy::unused_async, clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use inferkit_core::keys::Namespace;
use inferkit_core::{
    DynDriver, FredDriver, MemoryLeases, Observed, Pool, PoolConfig, Protocol, RedisDriver,
    RedisLeases, Retried, TimedOut, driver_conformance, lease_conformance,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use std::time::Duration;

mod pool_resp3 {
    use super::*;
    async fn make() -> (Pool, String) {
        support::pool(Flavor::Redis, Protocol::Resp3).await
    }
    driver_conformance!(make);
}

mod pool_resp2 {
    use super::*;
    async fn make() -> (Pool, String) {
        support::pool(Flavor::Redis, Protocol::Resp2).await
    }
    driver_conformance!(make);
}

mod pool_valkey {
    use super::*;
    async fn make() -> (Pool, String) {
        support::pool(Flavor::Valkey, Protocol::Resp3).await
    }
    driver_conformance!(make);
}

mod pool_unix_socket {
    use super::*;
    use std::sync::OnceLock;
    static SERVER: OnceLock<Server> = OnceLock::new();
    async fn make() -> (Pool, String) {
        let server = SERVER
            .get_or_init(|| Server::builder(Flavor::Plain).unix_socket(true).start().unwrap());
        let config = PoolConfig::single(&server.unix_url().unwrap()).unwrap();
        (
            Pool::new(config.with_timeout(Duration::from_secs(10)).with_connections(3)),
            unique_prefix(),
        )
    }
    driver_conformance!(make);
}

mod redis_multiplexed {
    use super::*;
    async fn make() -> (RedisDriver, String) {
        (support::redis_driver(Server::shared(Flavor::Redis).unwrap().url()).await, unique_prefix())
    }
    driver_conformance!(make);
}

mod redis_manager {
    use super::*;
    async fn make() -> (RedisDriver, String) {
        let client = redis::Client::open(Server::shared(Flavor::Redis).unwrap().url()).unwrap();
        let config = redis::aio::ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_secs(10)));
        let manager = client.get_connection_manager_with_config(config).await.unwrap();
        (RedisDriver::new(manager), unique_prefix())
    }
    driver_conformance!(make);
}

mod fred_client {
    use super::*;
    async fn make() -> (FredDriver, String) {
        (support::fred(Server::shared(Flavor::Redis).unwrap().url()).await, unique_prefix())
    }
    driver_conformance!(make);
}

mod fred_in_resp3 {
    use super::*;
    async fn make() -> (FredDriver, String) {
        let url = Server::shared(Flavor::Redis).unwrap().url();
        (support::fred_with(url, fred::types::RespVersion::RESP3).await, unique_prefix())
    }
    driver_conformance!(make);
}

mod fred_on_valkey {
    use super::*;
    async fn make() -> (FredDriver, String) {
        (support::fred(Server::shared(Flavor::Valkey).unwrap().url()).await, unique_prefix())
    }
    driver_conformance!(make);
}

mod wrapped {
    use super::*;
    async fn make() -> (DynDriver, String) {
        let (pool, prefix) = support::pool(Flavor::Redis, Protocol::Resp3).await;
        let limit = Duration::from_secs(10);
        let retried = Retried::new(TimedOut::new(pool, limit), 3, Duration::from_millis(10));
        (Arc::new(Observed::new(retried, "test")), prefix)
    }
    driver_conformance!(make);
}

mod redis_leases {
    use super::*;
    async fn make() -> RedisLeases {
        let (pool, prefix) = support::pool(Flavor::Redis, Protocol::Resp3).await;
        RedisLeases::new(pool.into_driver(), Namespace::new(&prefix).unwrap())
    }
    lease_conformance!(make);
}

mod memory_leases {
    use super::*;
    async fn make() -> MemoryLeases {
        MemoryLeases::default()
    }
    lease_conformance!(make);
}
