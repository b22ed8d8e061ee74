//! What happens when the server, the network or an operator gets in the way.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use inferkit_core::{
    Cmd, Connect as _, DriverExt as _, DynDriver, ErrorKind, Pool, PoolConfig, Protocol,
    RedisDriver, Retried,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use support::proxy::Proxy;

const LIMIT: Duration = Duration::from_millis(500);
/// What a call may take: connecting and answering, and the noise of a busy machine.
const AT_MOST: Duration = Duration::from_millis(2500);

fn get() -> Cmd {
    Cmd::new("GET").key("k").readonly()
}

fn pool(url: &str, protocol: Protocol) -> Pool {
    Pool::new(PoolConfig::single(url).unwrap().with_timeout(LIMIT).with_protocol(protocol))
}

/// Calls until one succeeds; each call must end in time, and all within `patience`.
async fn recovers(driver: &DynDriver, patience: Duration) {
    let started = Instant::now();
    loop {
        let call = Instant::now();
        let outcome = driver.query::<Option<String>>(get()).await;
        assert!(call.elapsed() < AT_MOST, "a call took {:?}", call.elapsed());
        match outcome {
            Ok(_) => return,
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                assert!(started.elapsed() < patience, "still failing: {error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn survives_kill_and_restart(protocol: Protocol) {
    let server = Server::builder(Flavor::Plain).durable().start().unwrap();
    let driver = pool(server.url(), protocol).into_driver();
    driver.query::<()>(Cmd::new("SET").key("k").arg("v")).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (driver, stop) = (Arc::clone(&driver), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut errors = 0;
                while !stop.load(Ordering::SeqCst) {
                    let call = Instant::now();
                    if let Err(error) = driver.query::<Option<String>>(get()).await {
                        assert!(
                            matches!(
                                error.kind(),
                                ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::Loading
                            ),
                            "{error:?}"
                        );
                        errors += 1;
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    assert!(call.elapsed() < AT_MOST);
                }
                errors
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.kill().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart().unwrap();
    recovers(&driver, Duration::from_secs(5)).await;
    stop.store(true, Ordering::SeqCst);
    for call in calls {
        assert!(0 < call.await.unwrap(), "nobody noticed the fault");
    }
    let value: Option<String> = driver.query(get()).await.unwrap();
    assert_eq!(value.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_and_restarted_server_is_found_again() {
    survives_kill_and_restart(Protocol::Resp3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_and_restarted_server_is_found_again_in_resp2() {
    survives_kill_and_restart(Protocol::Resp2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_costs_time_outs_and_no_more() {
    let server = Server::start(Flavor::Plain).unwrap();
    let drivers: [DynDriver; 2] = [
        pool(server.url(), Protocol::Resp3).into_driver(),
        support::fred(server.url()).await.with_timeout(LIMIT).into_driver(),
    ];
    for driver in &drivers {
        driver.query::<Option<String>>(get()).await.unwrap();
    }
    server.pause().unwrap();
    let paused = Instant::now();
    while paused.elapsed() < Duration::from_secs(5) {
        for driver in &drivers {
            let call = Instant::now();
            let error = driver.query::<Option<String>>(get()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
            assert!(call.elapsed() < AT_MOST);
        }
    }
    server.resume().unwrap();
    for driver in &drivers {
        recovers(driver, Duration::from_secs(5)).await;
    }
}

/// 16 tasks count while connections are killed: nothing that failed without `maybe_applied` was counted, and nothing was
/// counted twice.
async fn counts_once(driver: DynDriver, server: &Server) {
    let key = unique_prefix();
    let (acknowledged, doubtful) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (driver, stop, key) = (Arc::clone(&driver), Arc::clone(&stop), key.clone());
            let (acknowledged, doubtful) = (Arc::clone(&acknowledged), Arc::clone(&doubtful));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match driver.query::<i64>(Cmd::new("INCR").key(&key)).await {
                        Ok(_) => acknowledged.fetch_add(1, Ordering::SeqCst),
                        Err(error) if error.maybe_applied() => {
                            doubtful.fetch_add(1, Ordering::SeqCst)
                        }
                        Err(_) => 0,
                    };
                }
            })
        })
        .collect();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.kill_clients().unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for call in calls {
        call.await.unwrap();
    }
    recovers(&driver, Duration::from_secs(5)).await;
    let counted: i64 = driver.query(Cmd::new("GET").key(&key).readonly()).await.unwrap();
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    let doubtful = doubtful.load(Ordering::SeqCst);
    eprintln!("acknowledged {acknowledged}, counted {counted}, doubtful {doubtful}");
    assert!(100 < acknowledged);
    assert!(0 < doubtful, "no call was cut off: the test tests nothing");
    assert!(acknowledged <= counted && counted <= acknowledged + doubtful);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_repeated_by_the_pool() {
    let server = Server::start(Flavor::Plain).unwrap();
    counts_once(pool(server.url(), Protocol::Resp3).into_driver(), &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_repeated_by_the_pool_with_retries() {
    let server = Server::start(Flavor::Plain).unwrap();
    let retried = Retried::new(pool(server.url(), Protocol::Resp2), 5, Duration::from_millis(5));
    counts_once(Arc::new(retried), &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_repeated_by_a_connection_manager() {
    let server = Server::start(Flavor::Plain).unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let manager = client.get_connection_manager().await.unwrap();
    counts_once(RedisDriver::new(manager).into_driver(), &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_repeated_by_fred() {
    let server = Server::start(Flavor::Plain).unwrap();
    counts_once(support::fred(server.url()).await.with_timeout(LIMIT).into_driver(), &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_replaced() {
    let server = Server::start(Flavor::Plain).unwrap();
    let (host, port) = server.address();
    let proxy = Proxy::start(format!("{host}:{port}")).await;
    let driver = pool(&format!("redis://{}", proxy.address), Protocol::Resp3).into_driver();
    driver.query::<Option<String>>(get()).await.unwrap();
    assert_eq!(proxy.accepted.load(Ordering::SeqCst), 1);
    proxy.go_silent();
    let error = driver.query::<Option<String>>(get()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    // Two time-outs in a row, then a new connection.
    recovers(&driver, LIMIT * 4).await;
    assert_eq!(proxy.accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watchdog_replaces_a_silent_connection_before_a_call_meets_it() {
    let server = Server::start(Flavor::Plain).unwrap();
    let (host, port) = server.address();
    let proxy = Proxy::start(format!("{host}:{port}")).await;
    let pool = pool(&format!("redis://{}", proxy.address), Protocol::Resp3);
    pool.query::<Option<String>>(get()).await.unwrap();
    let watchdog = tokio::spawn(pool.clone().watch());
    proxy.go_silent();
    // Two rounds of pause and time-out.
    tokio::time::sleep(LIMIT * 6).await;
    pool.query::<Option<String>>(get()).await.unwrap();
    watchdog.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_killed_while_idle_costs_no_error() {
    let server = Server::start(Flavor::Plain).unwrap();
    let pool = pool(server.url(), Protocol::Resp3);
    for _ in 0..5 {
        pool.query::<()>(Cmd::new("SET").key("k").arg("v")).await.unwrap();
        server.kill_clients().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_an_error_at_once() {
    let pool = pool("redis://127.0.0.1:1", Protocol::Resp3);
    let started = Instant::now();
    let calls = (0..64).map(|_| pool.query::<Option<String>>(get()));
    for outcome in futures_util::future::join_all(calls).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(!error.maybe_applied() && error.is_transient());
    }
    assert!(started.elapsed() < AT_MOST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_not_transient_and_not_shown() {
    let server = Server::builder(Flavor::Plain).password("right").start().unwrap();
    let (host, port) = server.address();
    let pool = pool(&format!("redis://:hunter2@{host}:{port}"), Protocol::Resp3);
    let error = pool.query::<Option<String>>(get()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    assert!(!error.is_transient());
    assert!(!format!("{error:?} {error} {pool:?}").contains("hunter2"));
    let config = PoolConfig::single(&format!("redis://{host}:{port}")).unwrap();
    Pool::connect_with(config.with_credentials(None, "right")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedicated_connections_wait_without_holding_up_anybody() {
    let server = Server::start(Flavor::Plain).unwrap();
    let pool = pool(server.url(), Protocol::Resp3);
    let fred = support::fred(server.url()).await.with_timeout(LIMIT);
    let client = redis::Client::open(server.url()).unwrap();
    let waiting = [
        pool.connect().await.unwrap(),
        fred.connect().await.unwrap(),
        inferkit_core::RedisConnect::new(&client, LIMIT).connect().await.unwrap(),
    ];
    for own in waiting {
        let wait = Duration::from_secs(2);
        let pop = move || Cmd::new("BLPOP").key("list").arg(2).blocking(wait);
        let started = Instant::now();
        let waiter = tokio::spawn({
            let own = Arc::clone(&own);
            async move { own.query::<Option<(String, String)>>(pop()).await }
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        let call = Instant::now();
        pool.query::<()>(Cmd::new("RPUSH").key("list").arg("x")).await.unwrap();
        assert!(call.elapsed() < LIMIT);
        let got = waiter.await.unwrap().unwrap().unwrap();
        assert_eq!(got.1, "x");
        // It waited longer than an ordinary call may.
        assert!(LIMIT < started.elapsed());
        assert_eq!(own.query::<Option<(String, String)>>(pop()).await.unwrap(), None);
    }
    // A pool's own connection comes back after a restart.
    let own = pool.connect().await.unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    recovers(&own, Duration::from_secs(5)).await;
}
