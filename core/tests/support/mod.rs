//! What the tests of this folder share.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod fake;
pub(crate) mod proxy;

use std::time::Duration;

use inferkit_core::{FredDriver, Pool, PoolConfig, Protocol, RedisDriver};
use inferkit_localredis::{Flavor, Server, unique_prefix};

pub(crate) async fn pool(flavor: Flavor, protocol: Protocol) -> (Pool, String) {
    let url = Server::shared(flavor).unwrap().url();
    let config = PoolConfig::single(url).unwrap().with_protocol(protocol);
    (
        Pool::connect_with(config.with_timeout(Duration::from_secs(10))).await.unwrap(),
        unique_prefix(),
    )
}

pub(crate) async fn multiplexed(url: &str) -> redis::aio::MultiplexedConnection {
    let config =
        redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap()
}

pub(crate) async fn fred(url: &str) -> FredDriver {
    fred_with(url, fred::types::RespVersion::RESP2).await
}

pub(crate) async fn fred_with(url: &str, version: fred::types::RespVersion) -> FredDriver {
    use fred::prelude::*;
    let mut config = Config::from_url(url).unwrap();
    config.version = version;
    let mut builder = Builder::from_config(config);
    builder.set_policy(ReconnectPolicy::new_constant(0, 20));
    let client = builder.build().unwrap();
    client.init().await.unwrap();
    FredDriver::new(client).with_timeout(Duration::from_secs(10))
}

pub(crate) async fn redis_driver(url: &str) -> RedisDriver {
    RedisDriver::new(multiplexed(url).await)
}
