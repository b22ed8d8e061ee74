//! Waiting for slots: the same cases in memory and on a server, then shares, crashes and lost state on a server.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inferkit_core::{Cmd, DriverExt as _, Pool, PoolConfig};
use inferkit_localredis::{Cluster, Flavor, Server};
use inferkit_ratelimit::conformance::queue::{order, take, until_waiting};
use inferkit_ratelimit::{
    MemorySlotQueue, RedisSlotQueue, SlotPool, SlotQueue, Waiter, slot_queue_conformance,
};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(30);

fn waiter(tenant: &str) -> Waiter {
    Waiter::new(tenant).unwrap()
}

fn pool(slots: u32) -> SlotPool {
    SlotPool::new("gpu", slots).unwrap()
}

async fn connection() -> Pool {
    Pool::connect(Server::shared(Flavor::Plain).unwrap().url()).await.unwrap()
}

/// A pool of its own on the shared server, with its `run` at work.
async fn on_redis(pool: SlotPool) -> Arc<dyn SlotQueue> {
    started(connection().await, pool)
}

fn started(connection: Pool, pool: SlotPool) -> Arc<dyn SlotQueue> {
    let connect = Arc::new(connection.clone());
    let queue = RedisSlotQueue::new(connection.into_driver(), connect, &support::namespace(), pool);
    tokio::spawn(queue.run());
    Arc::new(queue)
}

mod in_memory {
    use super::*;
    async fn make(pool: SlotPool) -> Arc<dyn SlotQueue> {
        Arc::new(MemorySlotQueue::new(pool))
    }
    slot_queue_conformance!(make);
}

mod on_redis {
    use super::*;
    slot_queue_conformance!(on_redis);
}

mod on_a_cluster {
    use super::*;
    async fn make(pool: SlotPool) -> Arc<dyn SlotQueue> {
        let cluster = tokio::task::spawn_blocking(|| Cluster::shared().unwrap()).await.unwrap();
        let config = PoolConfig::cluster(&cluster.urls()).unwrap();
        started(Pool::connect_with(config).await.unwrap(), pool)
    }
    slot_queue_conformance!(make);
}

#[test]
fn bad_numbers_are_refused() {
    assert!(SlotPool::new("", 1).is_err());
    assert!(SlotPool::new("gpu", 0).is_err());
    assert!(SlotPool::new("gpu", 200_000).is_err());
    assert!(pool(1).with_lease(Duration::ZERO).is_err());
    assert!(Waiter::new("").is_err());
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(waiter("a").with_weight(weight).is_err(), "{weight}");
    }
}

/// A third of all processes dies, with what they hold and wait for: nobody else is lost, and no slot leaks.
#[tokio::test(flavor = "multi_thread")]
async fn the_dead_are_skipped_and_their_slots_come_back() {
    let namespace = support::namespace();
    let slots = 4;
    let pool = pool(slots).with_lease(2 * SECOND).unwrap();
    let served = Arc::new(Mutex::new(HashMap::<usize, usize>::new()));
    let most = Arc::new(Mutex::new((0_u32, 0_u32)));
    let mut runtimes = Vec::new();
    let begun = Instant::now();
    for process in 0..6 {
        // Each is a runtime of its own, so that one can die as a process does: nothing of it runs any more.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (pool, namespace) = (pool.clone(), namespace.clone());
        let (served, most) = (Arc::clone(&served), Arc::clone(&most));
        runtime.spawn(async move {
            let connection = connection().await;
            let connect = Arc::new(connection.clone());
            let queue = RedisSlotQueue::new(connection.into_driver(), connect, &namespace, pool);
            tokio::spawn(queue.run());
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..16 {
                let (queue, served, most) = (queue.clone(), Arc::clone(&served), Arc::clone(&most));
                tasks.spawn(async move {
                    let who = waiter(&format!("t{}", number % 4));
                    for _ in 0..6 {
                        let slot = queue.acquire(&who, LONG).await.unwrap().granted().unwrap();
                        // Only the living are counted: the dead do not give back.
                        if process < 4 {
                            let mut most = most.lock().unwrap();
                            most.0 += 1;
                            most.1 = most.1.max(most.0);
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        if process < 4 {
                            most.lock().unwrap().0 -= 1;
                        }
                        slot.release().await.unwrap();
                        *served.lock().unwrap().entry(process).or_default() += 1;
                    }
                });
            }
            while tasks.join_next().await.is_some() {}
        });
        runtimes.push(Some(runtime));
    }
    tokio::time::sleep(Duration::from_millis(250)).await;
    for dead in runtimes.iter_mut().skip(4) {
        // Its tasks are dropped and never polled again, so nothing is given back.
        dead.take().unwrap().shutdown_background();
    }
    loop {
        let done: usize = (0..4).map(|one| *served.lock().unwrap().get(&one).unwrap_or(&0)).sum();
        if done == 4 * 16 * 6 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", served.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(most.lock().unwrap().1 <= slots, "{:?}", most.lock().unwrap());
    let dead: usize = (4..6).map(|one| *served.lock().unwrap().get(&one).unwrap_or(&0)).sum();
    assert!(dead < 2 * 16 * 6, "they had died before they were done");
    // Whatever the dead held and waited for is gone within a lease and the patience with waiters.
    let connection = connection().await;
    let connect = Arc::new(connection.clone());
    let queue = RedisSlotQueue::new(connection.into_driver(), connect, &namespace, pool);
    tokio::time::sleep(3 * SECOND).await;
    let state = queue.look().await.unwrap();
    assert_eq!((state.held, state.waiting), (0, 0));
    for runtime in runtimes.into_iter().flatten() {
        runtime.shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_waiters_are_served_in_proportion() {
    let queue = on_redis(pool(1)).await;
    let light = (0..50).map(|number| (format!("a{number}"), waiter("a")));
    let heavy = |number| (format!("b{number}"), waiter("b").with_weight(2.0).unwrap());
    let served = order(&queue, light.chain((0..50).map(heavy)).collect()).await;
    assert_eq!(served.len(), 100);
    let of_b = served.iter().take(60).filter(|name| name.starts_with('b')).count();
    assert!((36..=44).contains(&of_b), "40 of 60 are two thirds, {of_b} were served");
}

/// What the server forgets, by a flush or a failover, is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_serves_on() {
    let server = Server::builder(Flavor::Plain).start().unwrap();
    let connection = Pool::connect(server.url()).await.unwrap();
    let connect = Arc::new(connection.clone());
    let driver = connection.into_driver();
    let pool = pool(1).with_lease(Duration::from_millis(600)).unwrap();
    let queue = RedisSlotQueue::new(Arc::clone(&driver), connect, &support::namespace(), pool);
    tokio::spawn(queue.run());
    let queue: Arc<dyn SlotQueue> = Arc::new(queue);
    let slot = take(&queue, &waiter("a")).await;
    let waits = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { take(&queue, &waiter("b")).await })
    };
    until_waiting(&queue, 1).await;
    driver.query::<()>(Cmd::new("FLUSHALL")).await.unwrap();
    let other = tokio::time::timeout(LONG, waits).await.unwrap().unwrap();
    assert!(slot.is_lost(), "another holds the only slot");
    other.release().await.unwrap();
}

/// Without `run` whoever waits asks for itself, and what is held ends with its lease.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_without_run_too() {
    let pool = pool(1).with_lease(Duration::from_millis(600)).unwrap();
    let namespace = support::namespace();
    let mut queues = Vec::new();
    for _ in 0..2 {
        let connection = connection().await;
        let connect = Arc::new(connection.clone());
        let driver = connection.into_driver();
        let queue = RedisSlotQueue::new(driver, connect, &namespace, pool.clone());
        queues.push(Arc::new(queue) as Arc<dyn SlotQueue>);
    }
    let _slot = take(&queues[0], &waiter("a")).await;
    let other = tokio::time::timeout(LONG, take(&queues[1], &waiter("b"))).await.unwrap();
    other.release().await.unwrap();
}
