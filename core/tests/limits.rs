//! Time limits, and what a call's fate is said to be, where the server does its worst.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use inferkit_core::{
    Batch, Cmd, Connect as _, DriverExt as _, DynDriver, ErrorKind, LEASE_KEYS, Leases as _, Pool,
    PoolConfig, Protocol, RedisConnect, RedisLeases, Reply, Retried, Script, TimedOut, keys,
};
use inferkit_localredis::{Flavor, Sentinel, Server};
use support::fake::{NOW, listener, serve, slots};
use support::proxy::Proxy;

const LIMIT: Duration = Duration::from_millis(300);
/// One limit to find the way and one for the answer, and the noise of a busy machine.
const AT_MOST: Duration = Duration::from_millis(1100);

fn cluster(port: u16) -> Pool {
    let config = PoolConfig::cluster(&[format!("redis://127.0.0.1:{port}")]).unwrap();
    Pool::new(config.with_timeout(LIMIT).with_protocol(Protocol::Resp2).with_connections(1))
}

fn get() -> Cmd {
    Cmd::new("GET").key("foo").readonly()
}

fn ok() -> Option<(Duration, String)> {
    Some((NOW, "+OK\r\n".to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirected_write_that_ran_late_is_not_repeated() {
    let ((old, old_port), (new, new_port)) = (listener().await, listener().await);
    let runs = Arc::new(AtomicUsize::new(0));
    serve(old, move |parts| match parts[0].as_str() {
        "CLUSTER" => Some((NOW, slots(&[(0, 16383, old_port)]))),
        "INCR" => Some((NOW, format!("-MOVED 12182 127.0.0.1:{new_port}\r\n"))),
        _ => ok(),
    });
    let count = Arc::clone(&runs);
    serve(new, move |parts| match parts[0].as_str() {
        "INCR" => {
            count.fetch_add(1, Ordering::SeqCst);
            Some((LIMIT * 2, ":1\r\n".to_owned()))
        }
        _ => Some((LIMIT / 3, "+OK\r\n".to_owned())),
    });
    let retried = Retried::new(cluster(old_port), 3, Duration::from_millis(5));
    let error = retried.query::<i64>(Cmd::new("INCR").key("foo")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.maybe_applied(), "{error:?}");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_a_silent_cluster_do_not_queue_up() {
    let (silent, port) = listener().await;
    serve(silent, |_| None);
    let pool = cluster(port);
    let started = Instant::now();
    for outcome in join_all((0..32).map(|_| pool.query::<Reply>(get()))).await {
        assert!(!outcome.unwrap_err().maybe_applied());
    }
    assert!(started.elapsed() < AT_MOST, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_to_a_dead_node_ends_as_a_call_does() {
    let ((live, live_port), (dead, dead_port)) = (listener().await, listener().await);
    drop(dead);
    serve(live, move |parts| match parts[0].as_str() {
        "CLUSTER" => Some((NOW, slots(&[(0, 8000, live_port), (8001, 16383, dead_port)]))),
        _ => ok(),
    });
    let pool = cluster(live_port);
    let started = Instant::now();
    let batch: Batch = (0..20).map(|_| get()).collect();
    for reply in pool.pipeline_of(batch).await {
        assert_eq!(reply.unwrap_err(), ErrorKind::Connection);
    }
    assert!(started.elapsed() < AT_MOST, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_are_refused_end_in_time() {
    for refusal in ["-CLUSTERDOWN The cluster is down\r\n", "-ASK 12182 127.0.0.1:1\r\n"] {
        let (node, port) = listener().await;
        serve(node, move |parts| match parts[0].as_str() {
            "CLUSTER" => Some((NOW, slots(&[(0, 16383, port)]))),
            "SET" => Some((NOW, refusal.to_owned())),
            "EXEC" => Some((NOW, "-EXECABORT Transaction discarded\r\n".to_owned())),
            _ => ok(),
        });
        let mut batch = Batch::atomic();
        batch.push::<()>(Cmd::new("SET").key("foo").arg(1));
        let started = Instant::now();
        let error = cluster(port).run(batch).await.unwrap_err();
        assert!(error.is_transient() && !error.maybe_applied(), "{error:?}");
        assert!(started.elapsed() < AT_MOST, "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_old_map_is_not_asked_at_every_call() {
    let ((old, old_port), (new, new_port)) = (listener().await, listener().await);
    let questions = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&questions);
    serve(old, move |parts| match parts[0].as_str() {
        "CLUSTER" => {
            count.fetch_add(1, Ordering::SeqCst);
            Some((NOW, slots(&[(0, 16383, old_port)])))
        }
        "GET" => Some((NOW, format!("-MOVED 12182 127.0.0.1:{new_port}\r\n"))),
        _ => ok(),
    });
    serve(new, move |parts| match parts[0].as_str() {
        // It knows, but is slow to tell.
        "CLUSTER" => Some((LIMIT / 2, slots(&[(0, 16383, new_port)]))),
        "GET" => Some((NOW, "$1\r\n1\r\n".to_owned())),
        _ => ok(),
    });
    let pool = cluster(old_port);
    let started = Instant::now();
    let mut calls = 0;
    while started.elapsed() < Duration::from_secs(1) {
        pool.query::<i64>(get()).await.unwrap();
        calls += 1;
    }
    let questions = questions.load(Ordering::SeqCst);
    assert!(100 < calls && questions <= 15, "{questions} questions in {calls} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_replaced_although_callers_give_up_first() {
    let server = Server::start(Flavor::Plain).unwrap();
    let (host, port) = server.address();
    let proxy = Proxy::start(format!("{host}:{port}")).await;
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let config = PoolConfig::single(&format!("redis://{}", proxy.address)).unwrap();
        let pool = Pool::new(config.with_protocol(protocol));
        let hurried = TimedOut::new(pool, LIMIT);
        hurried.query::<Reply>(get()).await.unwrap();
        proxy.go_silent();
        let started = Instant::now();
        while hurried.query::<Reply>(get()).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(4), "it was never replaced");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_opens_although_callers_give_up_first() {
    let (server, port) = listener().await;
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    serve(server, move |parts| match parts[0].as_str() {
        _ if !is_up.load(Ordering::SeqCst) => None,
        "GET" => Some((NOW, "$1\r\n1\r\n".to_owned())),
        _ => Some((Duration::from_millis(20), "+OK\r\n".to_owned())),
    });
    let config = PoolConfig::single(&format!("redis://127.0.0.1:{port}")).unwrap();
    let pool = Pool::new(config.with_protocol(Protocol::Resp2));
    let started = Instant::now();
    let mut calls = Vec::new();
    let mut good_again = None;
    while started.elapsed() < Duration::from_secs(6) && good_again.is_none() {
        if Duration::from_millis(1500) < started.elapsed() {
            up.store(true, Ordering::SeqCst);
        }
        let pool = pool.clone();
        calls.push(tokio::spawn(async move {
            matches!(tokio::time::timeout(LIMIT, pool.query::<i64>(get())).await, Ok(Ok(1)))
        }));
        tokio::time::sleep(Duration::from_millis(4)).await;
        let done = calls.extract_if(.., |call| call.is_finished()).collect::<Vec<_>>();
        for call in done {
            if call.await.unwrap() {
                good_again = Some(started.elapsed());
            }
        }
    }
    assert!(good_again.is_some(), "no call succeeded after the server came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_time_out_together_do_not_make_a_connection_silent() {
    let server = Server::start(Flavor::Plain).unwrap();
    let (host, port) = server.address();
    let proxy = Proxy::start(format!("{host}:{port}")).await;
    let config = PoolConfig::single(&format!("redis://{}", proxy.address)).unwrap();
    let pool = Pool::new(config.with_timeout(LIMIT));
    pool.query::<Reply>(get()).await.unwrap();
    for _ in 0..3 {
        server.pause().unwrap();
        let calls = join_all((0..16).map(|_| pool.query::<Reply>(get())));
        let (outcomes, ()) = tokio::join!(calls, async {
            tokio::time::sleep(LIMIT * 3 / 2).await;
            server.resume().unwrap();
        });
        assert!(outcomes.iter().all(Result::is_err));
        pool.query::<Reply>(get()).await.unwrap();
    }
    assert_eq!(proxy.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_not_shown() {
    let (pool, _) = support::pool(Flavor::Plain, Protocol::Resp3).await;
    for cmd in [
        Cmd::new("FT.SEARCH").arg("idx").arg("what is my hunter2 diagnosis"),
        Cmd::new("NOSUCHCOMMAND").arg("hunter2"),
    ] {
        let error = pool.query::<Reply>(cmd).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_s_error_inside_a_transaction_may_have_written() {
    static BREAK: Script = Script::new(
        "redis.call('SET', KEYS[1], 'x', 'PX', 60000) return redis.call('INCR', KEYS[1]) + 0",
    );
    let (pool, prefix) = support::pool(Flavor::Plain, Protocol::Resp3).await;
    let mut batch = Batch::atomic();
    let slot = batch.push::<i64>(Cmd::eval(&BREAK, &[&prefix]));
    let error = pool.run(batch).await.unwrap().take(slot).unwrap_err();
    assert!(error.maybe_applied(), "{error:?}");
    let written: String = pool.query(Cmd::new("GET").key(&prefix).readonly()).await.unwrap();
    assert_eq!(written, "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_acl_made_from_the_key_table_is_enough() {
    let server = Server::start(Flavor::Plain).unwrap();
    let admin = Pool::connect(server.url()).await.unwrap();
    let namespace = keys::Namespace::new("p").unwrap();
    let user = Cmd::new("ACL").arg("SETUSER").arg("u").arg("on").arg(">pw");
    admin.query::<()>(user.args(keys::acl(LEASE_KEYS, &namespace))).await.unwrap();
    let (host, port) = server.address();
    let pool = Pool::connect(&format!("redis://u:pw@{host}:{port}")).await.unwrap();
    let leases = RedisLeases::new(pool.clone().into_driver(), namespace);
    let lease = leases.acquire("n", "o", Duration::from_secs(5)).await.unwrap().unwrap();
    assert!(leases.renew(&lease, Duration::from_secs(5)).await.unwrap());
    assert!(leases.release(&lease).await.unwrap());
    let error = pool.query::<Reply>(Cmd::new("GET").key("other")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_sentinel_and_a_password_are_no_obstacle() {
    let sentinel = Sentinel::start().unwrap();
    let (silent, port) = listener().await;
    serve(silent, |_| None);
    let mut urls = vec![format!("redis://127.0.0.1:{port}")];
    urls.extend(sentinel.sentinel_urls());
    let pool = |node| {
        let config = PoolConfig::sentinel(sentinel.master_name(), &urls, node).unwrap();
        Pool::new(config)
    };
    let plain = pool(None);
    let password = Cmd::new("CONFIG").arg("SET").arg("requirepass").arg("hunter2");
    plain.query::<()>(password).await.unwrap();
    let secured = pool(Some("redis://:hunter2@ignored/0"));
    secured.query::<()>(Cmd::new("SET").key("k").arg("v")).await.unwrap();
    let wrong = pool(Some("redis://:hunter3@ignored/0"));
    let error = wrong.query::<Reply>(get()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    assert!(!format!("{error:?} {error} {wrong:?}").contains("hunter"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_was_given_up_takes_nothing_from_others() {
    let server = Server::start(Flavor::Plain).unwrap();
    let pool = Pool::connect(server.url()).await.unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let fred = support::fred(server.url()).await.with_timeout(LIMIT * 3);
    let own: [(&str, DynDriver); 3] = [
        ("pool", pool.connect().await.unwrap()),
        ("redis", RedisConnect::new(&client, LIMIT * 3).connect().await.unwrap()),
        ("fred", fred.connect().await.unwrap()),
    ];
    for (name, own) in own {
        let pop = || Cmd::new("BLPOP").key("list").arg(0).blocking(Duration::ZERO);
        let given_up = tokio::time::timeout(LIMIT, own.query::<Reply>(pop())).await;
        assert!(given_up.is_err());
        own.query::<()>(Cmd::new("PING").readonly()).await.unwrap();
        let given_up = tokio::time::timeout(LIMIT, own.query::<Reply>(pop())).await;
        assert!(given_up.is_err());
        drop(own);
        tokio::time::sleep(LIMIT).await;
        pool.query::<()>(Cmd::new("RPUSH").key("list").arg("x")).await.unwrap();
        tokio::time::sleep(LIMIT).await;
        let left: i64 = pool.query(Cmd::new("LLEN").key("list").readonly()).await.unwrap();
        assert_eq!(left, 1, "{name}: a wait that nobody waits for took the element");
        pool.query::<()>(Cmd::new("DEL").key("list")).await.unwrap();
    }
}

trait PipelineOf {
    async fn pipeline_of(&self, batch: Batch) -> Vec<Result<Reply, ErrorKind>>;
}

impl PipelineOf for Pool {
    async fn pipeline_of(&self, batch: Batch) -> Vec<Result<Reply, ErrorKind>> {
        use inferkit_core::Driver as _;
        let replies = self.pipeline(batch).await.unwrap();
        replies.into_iter().map(|reply| reply.map_err(|error| error.kind())).collect()
    }
}
