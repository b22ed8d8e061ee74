//! What the tests of this folder share.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::keys::Namespace;
use inferkit_core::{Clock, DynDriver, FredDriver, Pool, PoolConfig};
use inferkit_localredis::{Cluster, Flavor, Server, unique_prefix};
use inferkit_ratelimit::{Demand, Limit, Policy, RedisRateLimiter, Subject, Tier, Unit};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// So long that nothing comes back while a test runs.
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

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
    let cluster = tokio::task::spawn_blocking(|| Cluster::shared().unwrap()).await.unwrap();
    over_cluster(cluster).await
}

pub(crate) async fn over_cluster(cluster: &Cluster) -> DynDriver {
    let config = PoolConfig::cluster(&cluster.urls()).unwrap();
    Pool::connect_with(config.with_timeout(Duration::from_secs(10))).await.unwrap().into_driver()
}

pub(crate) fn namespace() -> Namespace {
    Namespace::new(&unique_prefix()).unwrap()
}

pub(crate) fn over(driver: DynDriver) -> RedisRateLimiter {
    RedisRateLimiter::with_namespace(driver, namespace())
}

pub(crate) fn at(driver: DynDriver, clock: Arc<dyn Clock>) -> RedisRateLimiter {
    RedisRateLimiter::with_clock(driver, namespace(), clock)
}

pub(crate) async fn on_pool(flavor: Flavor) -> RedisRateLimiter {
    over(pool(Server::shared(flavor).unwrap().url()).await)
}

pub(crate) fn policy(tiers: impl IntoIterator<Item = Tier>) -> Policy {
    tiers.into_iter().fold(Policy::new("d").unwrap(), |all, tier| all.with_tier(tier).unwrap())
}

pub(crate) fn tier(name: &'static str, limit: Limit) -> Tier {
    Tier::new(name, Subject::user("ann").unwrap(), limit).unwrap()
}

pub(crate) fn requests(amount: u64) -> Tier {
    tier("requests", Limit::new(amount, YEAR, Unit::Requests).unwrap())
}

pub(crate) fn tokens(amount: u64) -> Tier {
    tier("tokens", Limit::new(amount, YEAR, Unit::Tokens).unwrap())
}

pub(crate) fn gpu(amount: u64, lease: Duration) -> Tier {
    let limit = Limit::slots(amount).unwrap().with_lease(lease).unwrap();
    Tier::new("gpu", Subject::global(), limit).unwrap()
}

pub(crate) fn once(id: &str) -> Demand {
    Demand::once(id).unwrap()
}
