//! What the tests of this folder share.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::keys::Namespace;
use inferkit_core::{Cmd, DriverExt as _, DynDriver, FredDriver, Pool, PoolConfig};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_semcache::conformance::{Compass, policy};
use inferkit_semcache::{Algorithm, Answer, Config, Hnsw, RedisSemanticCache, Request, Tenant};

pub(crate) async fn pool(url: &str) -> DynDriver {
    pool_of(url).await.into_driver()
}

pub(crate) async fn pool_of(url: &str) -> Pool {
    let config = PoolConfig::single(url).unwrap().with_timeout(Duration::from_secs(10));
    Pool::connect_with(config).await.unwrap()
}

pub(crate) async fn fred(url: &str) -> DynDriver {
    use fred::prelude::*;
    let mut builder = Builder::from_config(Config::from_url(url).unwrap());
    builder.set_policy(ReconnectPolicy::new_constant(0, 20));
    let client = builder.build().unwrap();
    client.init().await.unwrap();
    Arc::new(FredDriver::new(client).with_timeout(Duration::from_secs(10)))
}

pub(crate) fn config() -> Config {
    Config::new().with_namespace(Namespace::new(&unique_prefix()).unwrap()).with_policy(policy())
}

/// A cache whose index may be there already.
pub(crate) async fn cache(driver: DynDriver, config: Config) -> RedisSemanticCache {
    let cache = RedisSemanticCache::new(driver, Arc::new(Compass::default()), config).unwrap();
    cache.ensure_index().await.unwrap();
    cache
}

pub(crate) async fn over(driver: DynDriver, config: Config) -> RedisSemanticCache {
    let cache = RedisSemanticCache::new(driver, Arc::new(Compass::default()), config).unwrap();
    assert!(cache.ensure_index().await.unwrap());
    cache
}

pub(crate) async fn on_pool(flavor: Flavor) -> RedisSemanticCache {
    over(pool(Server::shared(flavor).unwrap().url()).await, config()).await
}

pub(crate) async fn on_hnsw() -> RedisSemanticCache {
    let driver = pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    over(driver, config().with_algorithm(Algorithm::Hnsw(Hnsw::default()))).await
}

pub(crate) async fn on_fred() -> RedisSemanticCache {
    over(fred(Server::shared(Flavor::Redis).unwrap().url()).await, config()).await
}

/// A cache and the driver that it uses, for looking behind its back.
pub(crate) async fn with_driver() -> (RedisSemanticCache, DynDriver) {
    let driver = pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    (over(Arc::clone(&driver), config()).await, driver)
}

pub(crate) fn request(prompt: &str) -> Request {
    of("acme", prompt)
}

pub(crate) fn of(tenant: &str, prompt: &str) -> Request {
    Request::new(Tenant::new(tenant).unwrap(), "gpt-4", prompt).unwrap()
}

pub(crate) fn answer(text: &str) -> Answer {
    Answer::new(text.to_owned()).unwrap()
}

pub(crate) async fn text(driver: &DynDriver, cmd: Cmd) -> String {
    driver.query(cmd).await.unwrap()
}
