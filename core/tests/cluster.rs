//! The driver suite on a cluster, and what a cluster does to a client: slots that move, primaries that die.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use inferkit_core::{
    Batch, Cmd, Connect as _, DriverExt as _, ErrorKind, FredDriver, Pool, PoolConfig, Protocol,
    RedisDriver, driver_conformance, keys,
};
use inferkit_localredis::{Cluster, unique_prefix};

fn config() -> PoolConfig {
    let urls = Cluster::shared().unwrap().urls();
    // One seed: the others are found.
    PoolConfig::cluster(&urls[..1]).unwrap().with_timeout(Duration::from_secs(10))
}

mod pool_resp3 {
    use super::*;
    async fn make() -> (Pool, String) {
        (Pool::new(config()), unique_prefix())
    }
    driver_conformance!(make);
}

mod pool_resp2 {
    use super::*;
    async fn make() -> (Pool, String) {
        (Pool::new(config().with_protocol(Protocol::Resp2)), unique_prefix())
    }
    driver_conformance!(make);
}

mod redis_cluster_connection {
    use super::*;
    async fn make() -> (RedisDriver, String) {
        let client = redis::cluster::ClusterClientBuilder::new(Cluster::shared().unwrap().urls())
            .response_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        (RedisDriver::new(client.get_async_connection().await.unwrap()), unique_prefix())
    }
    driver_conformance!(make);
}

mod fred_cluster {
    use super::*;
    async fn make() -> (FredDriver, String) {
        let url = Cluster::shared().unwrap().urls()[0].replace("redis://", "redis-cluster://");
        (support::fred(&url).await, unique_prefix())
    }
    driver_conformance!(make);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_the_server_s() {
    let pool = Pool::new(config());
    for key in ["", "a", "{}a", "{a", "a}b{c}d", "{{a}}", "foo{bar}{zap}", "naïve 🙂", "x{\0}y"]
    {
        let slot: u16 = pool.query(Cmd::new("CLUSTER").arg("KEYSLOT").arg(key)).await.unwrap();
        assert_eq!(keys::slot(key.as_bytes()), slot, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_atomic_batch_over_slots_is_refused_before_it_is_sent() {
    let client = redis::cluster::ClusterClient::new(Cluster::shared().unwrap().urls()).unwrap();
    let connection = client.get_async_connection().await.unwrap();
    for driver in [Pool::new(config()).into_driver(), RedisDriver::new(connection).into_driver()] {
        let mut batch = Batch::atomic();
        batch.push::<()>(Cmd::new("SET").key("{a}").arg(1));
        batch.push::<()>(Cmd::new("SET").key("{b}").arg(1));
        let error = driver.run(batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CrossSlot);
        assert!(!error.maybe_applied());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_one_s_own_follows_its_key() {
    let pool = Pool::new(config());
    let own = pool.connect().await.unwrap();
    for number in 0..10 {
        let key = format!("{}{number}", unique_prefix());
        pool.query::<()>(Cmd::new("RPUSH").key(&key).arg(number)).await.unwrap();
        let pop = Cmd::new("BLPOP").key(&key).arg(1).blocking(Duration::from_secs(1));
        let (_, value): (String, i64) = own.query(pop).await.unwrap();
        assert_eq!(value, number);
    }
}

/// Counts on many keys from 16 tasks while `disturb` works on the cluster.
async fn counts_once(cluster: &Cluster, disturb: impl FnOnce(&Cluster, &str)) -> (i64, i64, i64) {
    let config = PoolConfig::cluster(&cluster.urls()).unwrap().with_timeout(Duration::from_secs(1));
    let pool = Pool::new(config);
    let prefix = unique_prefix();
    let (good, doubtful, failed) =
        (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let calls: Vec<_> = (0..16)
        .map(|task| {
            let (pool, stop) = (pool.clone(), Arc::clone(&stop));
            let (good, doubtful, failed) =
                (Arc::clone(&good), Arc::clone(&doubtful), Arc::clone(&failed));
            let prefix = prefix.clone();
            tokio::spawn(async move {
                let mut turn = 0;
                while !stop.load(Ordering::SeqCst) {
                    turn += 1;
                    // One key in eight is the one that `disturb` is told of.
                    let number = (task + turn) % 8;
                    let key = format!("{prefix}{number}");
                    let call = Instant::now();
                    match pool.query::<i64>(Cmd::new("INCR").key(&key)).await {
                        Ok(_) => good.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            assert!(error.is_transient(), "{error:?}");
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            let count = if error.maybe_applied() { &doubtful } else { &failed };
                            count.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                    assert!(call.elapsed() < Duration::from_secs(4), "{:?}", call.elapsed());
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| disturb(cluster, &format!("{prefix}0")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Every key is writable again, without anybody doing anything.
    let started = Instant::now();
    for number in 0..8 {
        let read = || Cmd::new("GET").key(format!("{prefix}{number}")).readonly();
        while let Err(error) = pool.query::<Option<i64>>(read()).await {
            assert!(started.elapsed() < Duration::from_secs(30), "still failing: {error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for call in calls {
        call.await.unwrap();
    }
    let mut counted = 0;
    for number in 0..8 {
        let read = Cmd::new("GET").key(format!("{prefix}{number}")).readonly();
        counted += pool.query::<i64>(read).await.unwrap();
    }
    let (good, doubtful) = (good.load(Ordering::SeqCst), doubtful.load(Ordering::SeqCst));
    let failed = failed.load(Ordering::SeqCst);
    eprintln!("acknowledged {good}, counted {counted}, doubtful {doubtful}, refused {failed}");
    assert!(100 < good);
    (good, counted, doubtful)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_repeat_no_write() {
    let cluster = Cluster::start().unwrap();
    let (good, counted, doubtful) = counts_once(&cluster, |cluster, _| {
        for _ in 0..20 {
            for node in 0..6 {
                cluster.node(node).kill_clients().unwrap();
            }
            std::thread::sleep(Duration::from_millis(40));
        }
    })
    .await;
    assert!(0 < doubtful, "no call was cut off: the test tests nothing");
    assert!(good <= counted && counted <= good + doubtful);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_primary_is_replaced_by_its_replica() {
    let cluster = Cluster::start().unwrap();
    let (_, counted, _) = counts_once(&cluster, |cluster, key| {
        cluster.kill_primary_of(key).unwrap();
    })
    .await;
    // What the dead primary had not yet sent to its replica is lost; that is the server's promise, not ours.
    assert!(0 < counted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_costs_nobody_an_error() {
    let cluster = Cluster::start().unwrap();
    let (good, counted, doubtful) = counts_once(&cluster, |cluster, key| {
        let slot = cluster.slot_of(key).unwrap();
        let from = cluster.primary_of(key).unwrap();
        let to = (0..3).find(|node| *node != from).unwrap();
        for (from, to) in [(from, to), (to, from), (from, to)] {
            cluster.migrate_slot(slot, from, to).unwrap();
        }
    })
    .await;
    assert_eq!((good, doubtful), (counted, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_on_its_way_is_asked_for_where_its_keys_are() {
    let cluster = Cluster::start().unwrap();
    let pool = Pool::new(PoolConfig::cluster(&cluster.urls()).unwrap());
    let (here, there) = ("{tag}here", "{tag}there");
    pool.query::<()>(Cmd::new("SET").key(here).arg(1)).await.unwrap();
    let from = cluster.primary_of(here).unwrap();
    let to = (0..3).find(|node| *node != from).unwrap();
    cluster.begin_migration(cluster.slot_of(here).unwrap(), from, to).unwrap();
    // The source has one key and sends us to the target for the other.
    assert_eq!(pool.query::<i64>(Cmd::new("INCR").key(here)).await.unwrap(), 2);
    assert_eq!(pool.query::<i64>(Cmd::new("INCR").key(there)).await.unwrap(), 1);
    let mut batch = Batch::new();
    let first = batch.push::<i64>(Cmd::new("INCR").key(here));
    let second = batch.push::<i64>(Cmd::new("INCR").key(there));
    let mut answers = pool.run(batch).await.unwrap();
    assert_eq!((answers.take(first).unwrap(), answers.take(second).unwrap()), (3, 2));
    // A transaction cannot run before the slot has arrived: an error in time, and nothing was done.
    let mut batch = Batch::atomic();
    batch.push::<i64>(Cmd::new("INCR").key(there));
    let error = pool.run(batch).await.unwrap_err();
    assert!(error.is_transient() && !error.maybe_applied(), "{error:?}");
    assert_eq!(pool.query::<i64>(Cmd::new("INCR").key(there)).await.unwrap(), 3);
}
