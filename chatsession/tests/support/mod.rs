//! What the tests of this folder share.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::Arc;
use std::time::Duration;

use inferkit_chatsession::conformance;
use inferkit_chatsession::{
    Config, Message, NewSession, RedisSessionStore, SessionId, SessionStore, UserId,
};
use inferkit_core::keys::Namespace;
use inferkit_core::{DynDriver, FredDriver, Pool, PoolConfig};
use inferkit_localredis::{Cluster, Flavor, Server, unique_prefix};

pub(crate) async fn pool(url: &str) -> DynDriver {
    let config = PoolConfig::single(url).unwrap().with_timeout(Duration::from_secs(10));
    Pool::connect_with(config).await.unwrap().into_driver()
}

pub(crate) async fn fred(url: &str) -> DynDriver {
    use fred::prelude::*;
    let mut builder = Builder::from_config(Config::from_url(url).unwrap());
    builder.set_policy(ReconnectPolicy::new_constant(0, 20));
    let client = builder.build().unwrap();
    client.init().await.unwrap();
    Arc::new(FredDriver::new(client).with_timeout(Duration::from_secs(10)))
}

pub(crate) async fn cluster() -> DynDriver {
    let config = PoolConfig::cluster(&Cluster::shared().unwrap().urls()).unwrap();
    let config = config.with_timeout(Duration::from_secs(10));
    Pool::connect_with(config).await.unwrap().into_driver()
}

pub(crate) fn within(config: Config) -> Config {
    config.with_namespace(Namespace::new(&unique_prefix()).unwrap())
}

pub(crate) fn over(driver: DynDriver) -> RedisSessionStore {
    RedisSessionStore::new(driver, within(conformance::config())).unwrap()
}

pub(crate) async fn on_pool(flavor: Flavor) -> RedisSessionStore {
    over(pool(Server::shared(flavor).unwrap().url()).await)
}

/// A store with the default settings, and its driver.
pub(crate) async fn with_driver() -> (RedisSessionStore, DynDriver) {
    let driver = pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let store = RedisSessionStore::new(Arc::clone(&driver), within(Config::new())).unwrap();
    (store, driver)
}

pub(crate) fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

pub(crate) async fn create(store: &dyn SessionStore, name: &str) -> SessionId {
    let new = NewSession::new(id(name), UserId::new("ann").unwrap());
    assert!(store.create(&new).await.unwrap());
    id(name)
}

pub(crate) async fn say(store: &dyn SessionStore, session: &SessionId, text: &str) {
    let _ = store.append(session, &Message::user(text).with_tokens(10).into()).await.unwrap();
}
