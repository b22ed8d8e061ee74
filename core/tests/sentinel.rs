//! The driver suite behind Sentinels, and a failover.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use inferkit_core::{Cmd, DriverExt as _, Pool, PoolConfig, driver_conformance};
use inferkit_localredis::{Sentinel, unique_prefix};

fn pool(sentinel: &Sentinel) -> Pool {
    let config = PoolConfig::sentinel(sentinel.master_name(), &sentinel.sentinel_urls(), None);
    Pool::new(config.unwrap().with_timeout(Duration::from_secs(5)))
}

mod pool_by_sentinel {
    use super::*;
    static SENTINEL: OnceLock<Sentinel> = OnceLock::new();
    async fn make() -> (Pool, String) {
        (pool(SENTINEL.get_or_init(|| Sentinel::start().unwrap())), unique_prefix())
    }
    driver_conformance!(make);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    let sentinel = Sentinel::start().unwrap();
    let pool = pool(&sentinel);
    let write = || Cmd::new("SET").key("k").arg("v");
    pool.query::<()>(write()).await.unwrap();
    tokio::task::block_in_place(|| sentinel.failover()).unwrap();
    let started = Instant::now();
    while let Err(error) = pool.query::<()>(write()).await {
        assert!(error.is_transient(), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "still failing: {error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_primary_is_a_clear_error() {
    let sentinel = Sentinel::start().unwrap();
    let config = PoolConfig::sentinel("nobody", &sentinel.sentinel_urls(), None).unwrap();
    let error = Pool::new(config).query::<()>(Cmd::new("PING")).await.unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
    assert!(!error.maybe_applied());
}
