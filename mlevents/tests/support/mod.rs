//! What the tests of this folder share.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::keys::Namespace;
use inferkit_core::{DynDriver, FredDriver, Pool, PoolConfig};
use inferkit_localredis::{Cluster, Flavor, Server, unique_prefix};

pub(crate) async fn pool(url: &str) -> Pool {
    let config = PoolConfig::single(url).unwrap().with_timeout(Duration::from_secs(10));
    Pool::connect_with(config).await.unwrap()
}

pub(crate) async fn shared(flavor: Flavor) -> DynDriver {
    pool(Server::shared(flavor).unwrap().url()).await.into_driver()
}

pub(crate) async fn fred() -> DynDriver {
    over_fred(Server::shared(Flavor::Plain).unwrap().url()).await
}

async fn over_fred(url: &str) -> DynDriver {
    use fred::prelude::*;
    let mut builder = Builder::from_config(Config::from_url(url).unwrap());
    builder.set_policy(ReconnectPolicy::new_constant(0, 20));
    let client = builder.build().unwrap();
    client.init().await.unwrap();
    Arc::new(FredDriver::new(client).with_timeout(Duration::from_secs(10)))
}

pub(crate) async fn cluster() -> DynDriver {
    let config = PoolConfig::cluster(&Cluster::shared().unwrap().urls())
        .unwrap()
        .with_timeout(Duration::from_secs(10));
    Pool::connect_with(config).await.unwrap().into_driver()
}

pub(crate) fn namespace() -> Namespace {
    Namespace::new(&unique_prefix()).unwrap()
}
