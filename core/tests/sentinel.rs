//! The driver suite behind Sentinels, and a failover.
#![expect(clippy::unused_async, clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use inferkit_core::{
    Cmd, DriverExt as _, Pool, PoolConfig, Protocol, Reply, Result, driver_conformance,
};
use inferkit_localredis::{Flavor, Sentinel, Server, unique_prefix};
use support::fake::{NOW, listener, serve};

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

/// A Sentinel of our own names the primary, since real ones cut the connections to the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_reads_leaves_a_demoted_primary() {
    let (old, new) = (Server::start(Flavor::Plain).unwrap(), Server::start(Flavor::Plain).unwrap());
    let named = Arc::new(AtomicU16::new(old.address().1));
    let (sentinel, port) = listener().await;
    let primary = Arc::clone(&named);
    serve(sentinel, move |parts| match parts[0].as_str() {
        "SENTINEL" => {
            let port = primary.load(Ordering::SeqCst).to_string();
            let host = "127.0.0.1";
            Some((NOW, format!("*2\r\n$9\r\n{host}\r\n${}\r\n{port}\r\n", port.len())))
        }
        _ => Some((NOW, "+OK\r\n".to_owned())),
    });
    let sentinels = [format!("redis://127.0.0.1:{port}")];
    let config = PoolConfig::sentinel("main", &sentinels, None).unwrap();
    let config = config.with_protocol(Protocol::Resp2).with_timeout(Duration::from_millis(200));
    let pool = Pool::new(config);
    let role = async || -> Result<String> {
        let role: Vec<Reply> = pool.query(Cmd::new("ROLE").readonly()).await?;
        Ok(role[0].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(role().await.unwrap(), "master");
    let (host, port) = new.address();
    let demote = Cmd::new("REPLICAOF").arg(host.to_string()).arg(port);
    Pool::connect(old.url()).await.unwrap().query::<()>(demote).await.unwrap();
    assert_eq!(role().await.unwrap(), "slave", "the connection is still there");
    named.store(port, Ordering::SeqCst);
    let watch = tokio::spawn(pool.clone().watch());
    let started = Instant::now();
    while !matches!(role().await.as_deref(), Ok("master")) {
        assert!(started.elapsed() < Duration::from_secs(20), "still with the old primary");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    watch.abort();
}
