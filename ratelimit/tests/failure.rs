//! Holders that die, connections that break, servers that restart or are full, and bad input.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use inferkit_core::{Cmd, DriverExt as _};
use inferkit_localredis::{Cluster, Flavor, Server};
use inferkit_ratelimit::{
    Breaker, Decision, Demand, Error, Instances, Limit, Policy, RateLimiter, RateLimiterExt as _,
    RedisRateLimiter, Settled, Subject, Tier, Unit, Weights, WhenAway,
};
use support::{HOUR, gpu, once, policy, requests, tokens};

async fn left(limiter: &dyn RateLimiter, policy: &Policy, tier: &str) -> u64 {
    limiter.usage(policy).await.unwrap().tier(tier).unwrap().remaining
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_connections_never_pass_one_too_many_and_none_too_few() {
    let server = Server::shared(Flavor::Redis).unwrap();
    let namespace = support::namespace();
    let policy = policy([requests(500), tokens(100_000), gpu(10_000, HOUR)]);
    let mut tasks = Vec::new();
    for task in 0..16 {
        let driver = support::pool(server.url()).await;
        let limiter = RedisRateLimiter::with_namespace(driver, namespace.clone());
        let policy = policy.clone();
        tasks.push(tokio::spawn(async move {
            let mut passed = 0;
            for number in 0..100 {
                let demand = once(&format!("{task}/{number}")).with_tokens(100);
                if let Decision::Admitted(permit) = limiter.acquire(&policy, &demand).await.unwrap()
                {
                    passed += 1;
                    permit.set_settled();
                }
            }
            passed
        }));
    }
    let mut passed = 0;
    for task in tasks {
        passed += task.await.unwrap();
    }
    assert_eq!(passed, 500);
    let driver = support::pool(server.url()).await;
    let limiter = RedisRateLimiter::with_namespace(driver, namespace);
    assert_eq!(left(&limiter, &policy, "tokens").await, 100_000 - 500 * 100);
    assert_eq!(left(&limiter, &policy, "gpu").await, 10_000 - 500);
    limiter.reset(&policy).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_of_a_holder_that_was_killed_is_free_after_its_lease() {
    let lease = Duration::from_millis(400);
    let server = Server::shared(Flavor::Redis).unwrap();
    let namespace = support::namespace();
    let limiter =
        RedisRateLimiter::with_namespace(support::pool(server.url()).await, namespace.clone());
    let policy = policy([gpu(1, lease)]);
    // The holder renews for three leases, and then its whole runtime ends without a word.
    let url = server.url();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (holder, held) = (policy.clone(), namespace.clone());
    let (taken, wait) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let theirs = RedisRateLimiter::with_namespace(support::pool(url).await, held);
        tokio::spawn(theirs.run());
        let permit = theirs.acquire(&holder, &Demand::new()).await.unwrap();
        taken.send(()).unwrap();
        std::future::pending::<()>().await;
        drop(permit);
    });
    wait.await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < 3 * lease {
        assert!(!limiter.acquire(&policy, &Demand::new()).await.unwrap().is_admitted());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    runtime.shutdown_background();
    let killed = Instant::now();
    until("the slot came back", async || {
        limiter.acquire(&policy, &Demand::new()).await.unwrap().is_admitted()
    })
    .await;
    assert!(killed.elapsed() < lease + Duration::from_millis(300), "{:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_permit_is_freed_and_the_run_ends_with_its_limiter() {
    let limiter = support::on_pool(Flavor::Redis).await;
    let run = tokio::spawn(limiter.run());
    let policy = policy([gpu(2, HOUR), tokens(100)]);
    for _ in 0..3 {
        let demand = Demand::new().with_tokens(10);
        let permits = [
            limiter.acquire(&policy, &demand).await.unwrap(),
            limiter.acquire(&policy, &demand).await.unwrap(),
        ];
        assert!(permits.iter().all(Decision::is_admitted));
        drop(permits);
        until("the slots came back", async || left(&limiter, &policy, "gpu").await == 2).await;
    }
    assert_eq!(left(&limiter, &policy, "tokens").await, 40, "the estimates stay charged");
    let last = limiter.acquire(&policy, &Demand::new()).await.unwrap();
    drop(limiter);
    assert!(!run.is_finished());
    drop(last);
    tokio::time::timeout(Duration::from_secs(10), run).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_noticed() {
    let limiter = support::on_pool(Flavor::Redis).await;
    let run = tokio::spawn(limiter.run());
    let policy = policy([gpu(1, Duration::from_millis(300))]);
    let permit = limiter.acquire(&policy, &Demand::new()).await.unwrap().into_permit().unwrap();
    assert!(!permit.is_lost());
    limiter.reset(&policy).await.unwrap();
    until("the loss was noticed", async || permit.is_lost()).await;
    run.abort();
}

/// 1000 requests, whose connections the server kills again and again: each is charged and settled once.
#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_neither_charge_twice_nor_leak() {
    let server = Arc::new(Server::start(Flavor::Redis).unwrap());
    let limiter = Arc::new(RedisRateLimiter::new(support::pool(server.url()).await));
    let with_slots = policy([requests(1_000_000), tokens(10_000_000), gpu(5000, HOUR)]);
    let recorded = Policy::new("recorded").unwrap().with_tier(tokens(10_000_000)).unwrap();
    let killer = {
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || {
            let mut killed = 0;
            for round in 0..60_u64 {
                std::thread::sleep(Duration::from_millis(5 + round * 7 % 23));
                killed += server.kill_clients().unwrap();
            }
            killed
        })
    };
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let (limiter, policies) =
                (Arc::clone(&limiter), [with_slots.clone(), recorded.clone()]);
            tokio::spawn(async move {
                let mut repeated = 0_u32;
                for number in 0..125_u64 {
                    let policy = &policies[usize::from(number % 2 == 0)];
                    let demand = once(&format!("{task}/{number}")).with_tokens(100);
                    let permit = loop {
                        match limiter.acquire(policy, &demand).await {
                            Ok(decision) => break decision.into_permit().unwrap(),
                            Err(error) => assert!(error.is_transient(), "{error:?}"),
                        }
                        repeated += 1;
                    };
                    let used = Weights::new().with_tokens(10);
                    while let Err(error) = limiter.settle(&permit, &used).await {
                        assert!(error.is_transient(), "{error:?}");
                        repeated += 1;
                    }
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
                repeated
            })
        })
        .collect();
    let mut repeated = 0;
    for task in tasks {
        repeated += task.await.unwrap();
    }
    let killed = killer.await.unwrap();
    assert!(0 < killed, "no connection was killed");
    println!("{killed} connections killed, {repeated} calls repeated by the caller");
    for (policy, requests) in [(&with_slots, 496_u64), (&recorded, 504)] {
        let report = limiter.usage(policy).await.unwrap();
        let state = report.tier("tokens").unwrap();
        let charged = 10_000_000 - state.remaining;
        // A token comes back every three seconds.
        assert!(
            (requests * 10 - 20..=requests * 10).contains(&charged),
            "charged twice, or settled twice: {charged} of {}",
            requests * 10
        );
    }
    assert_eq!(left(&*limiter, &with_slots, "gpu").await, 5000, "a slot leaked");
    let keys: Vec<String> =
        support::pool(server.url()).await.query(Cmd::new("KEYS").arg("*request*")).await.unwrap();
    assert!(keys.is_empty(), "a record leaked");
}

#[tokio::test(flavor = "multi_thread")]
async fn script_flush_and_restart_lose_nothing_but_what_the_server_loses() {
    for flavor in [Flavor::Redis, Flavor::Valkey] {
        let server = Server::builder(flavor).durable().start().unwrap();
        let driver = support::pool(server.url()).await;
        let limiter = RedisRateLimiter::new(Arc::clone(&driver));
        let policy = policy([requests(10), gpu(4, HOUR)]);
        let permit = limiter.acquire(&policy, &once("1")).await.unwrap().into_permit().unwrap();
        driver.query::<()>(Cmd::new("SCRIPT").arg("FLUSH")).await.unwrap();
        assert_eq!(left(&limiter, &policy, "requests").await, 9);
        let other = limiter.acquire(&policy, &once("2")).await.unwrap().into_permit().unwrap();
        driver.query::<()>(Cmd::new("SCRIPT").arg("FLUSH")).await.unwrap();
        assert_eq!(limiter.release(&other).await.unwrap(), Settled::Done);
        server.restart().unwrap();
        until("it answers again", async || limiter.usage(&policy).await.is_ok()).await;
        assert_eq!(left(&limiter, &policy, "requests").await, 8);
        assert_eq!(left(&limiter, &policy, "gpu").await, 3);
        assert_eq!(limiter.refund(&permit).await.unwrap(), Settled::Done);
        assert_eq!(left(&limiter, &policy, "requests").await, 9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resharding_and_failover_keep_the_limits() {
    let cluster =
        tokio::task::spawn_blocking(|| Arc::new(Cluster::start().unwrap())).await.unwrap();
    let limiter = RedisRateLimiter::new(support::over_cluster(&cluster).await);
    let policy = policy([requests(10_000), gpu(10_000, HOUR)]);
    let key = limiter.keys(&policy).unwrap()[0].to_string();
    let mut passed = Vec::new();
    passed.push(limiter.acquire(&policy, &once("first")).await.unwrap().into_permit().unwrap());
    let mover = {
        let (cluster, key) = (Arc::clone(&cluster), key.clone());
        tokio::task::spawn_blocking(move || {
            let from = cluster.primary_of(&key).unwrap();
            let slot = cluster.slot_of(&key).unwrap();
            let to = (0..3).find(|to| *to != from).unwrap();
            cluster.migrate_slot(slot, from, to).unwrap();
            // Then the replica of the new owner takes over.
            cluster.failover(&key).unwrap()
        })
    };
    let mut number = 0;
    while !mover.is_finished() || number < 200 {
        number += 1;
        let demand = once(&number.to_string());
        let begun = Instant::now();
        let permit = loop {
            match limiter.acquire(&policy, &demand).await {
                Ok(decision) => break decision.into_permit().unwrap(),
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        passed.push(permit);
    }
    mover.await.unwrap();
    let expected = 10_000 - u64::try_from(passed.len()).unwrap();
    assert_eq!(left(&limiter, &policy, "gpu").await, expected);
    passed.iter().for_each(|permit| permit.set_settled());
}

/// Tenants on their own primaries, what they share on another: while slots move and a primary is killed, never one too many
/// passes, and at the end exactly what passed is charged.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_over_several_primaries_never_passes_one_too_many() {
    const SHARED: u64 = 300;
    let cluster = tokio::task::spawn_blocking(|| Arc::new(Cluster::start().unwrap())).await;
    let cluster = cluster.unwrap();
    let namespace = support::namespace();
    let limit = |amount, unit| Limit::new(amount, support::YEAR, unit).unwrap();
    // One tenant's domain lies on each primary, the pool's on the first.
    let limiter = |driver| RedisRateLimiter::with_namespace(driver, namespace.clone());
    let of = |tenant: &str, model: u64| {
        let user = Subject::user(tenant).unwrap();
        let own = Tier::new("own", user, limit(100_000, Unit::Requests)).unwrap();
        let subject = Subject::model("m").unwrap();
        let shared = Tier::new("model", subject, limit(model, Unit::Tokens)).unwrap();
        let policy = Policy::new(tenant).unwrap().with_tier(own).unwrap();
        policy.with_tier(shared.in_domain("pool").unwrap()).unwrap()
    };
    let probe = limiter(support::over_cluster(&cluster).await);
    let key_of = |policy: &Policy, place: usize| probe.keys(policy).unwrap()[place].to_string();
    let pool_key = key_of(&of("t", SHARED), 1);
    let mut tenants = Vec::new();
    for primary in 0..3 {
        let found = (0..)
            .map(|number| format!("tenant-{number}"))
            .find(|tenant| cluster.primary_of(&key_of(&of(tenant, SHARED), 0)).unwrap() == primary);
        tenants.push(found.unwrap());
    }
    // Replication is asynchronous: what a primary did not pass on when it dies is forgotten. So nobody asks while it is
    // killed, and its replica has all; everything else goes on under load.
    let gate = Arc::new(tokio::sync::RwLock::new(()));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut tasks = Vec::new();
    for (number, tenant) in tenants.iter().cycle().take(6).enumerate() {
        let limiter = limiter(support::over_cluster(&cluster).await);
        let (policy, gate, stop) = (of(tenant, SHARED), Arc::clone(&gate), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let (mut passed, mut rejected) = (0_u64, 0_u64);
            let mut request = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                request += 1;
                let demand = once(&format!("{number}/{request}")).with_tokens(1);
                loop {
                    let answer = {
                        let _open = gate.read().await;
                        limiter.acquire(&policy, &demand).await
                    };
                    match answer {
                        Ok(Decision::Admitted(permit)) => {
                            permit.set_settled();
                            passed += 1;
                        }
                        Ok(_) => rejected += 1,
                        Err(error) => {
                            assert!(error.is_transient(), "{error:?}");
                            tokio::time::sleep(Duration::from_millis(10)).await;
                            continue;
                        }
                    }
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (passed, rejected)
        }));
    }
    let trouble = {
        let (cluster, key) = (Arc::clone(&cluster), pool_key.clone());
        tokio::task::spawn_blocking(move || {
            let from = cluster.primary_of(&key).unwrap();
            let slot = cluster.slot_of(&key).unwrap();
            cluster.migrate_slot(slot, from, (from + 1) % 3).unwrap();
            cluster.migrate_slot(slot, (from + 1) % 3, (from + 2) % 3).unwrap();
        })
    };
    trouble.await.unwrap();
    let closed = gate.write().await;
    let (killing, key) = (Arc::clone(&cluster), pool_key.clone());
    tokio::task::spawn_blocking(move || {
        let primary = killing.primary_of(&key).unwrap();
        killing.node(primary).command(&["WAIT", "1", "10000"]).unwrap();
        killing.kill_primary_of(&key).unwrap();
    })
    .await
    .unwrap();
    drop(closed);
    let healing = Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || healing.wait_until_whole().unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut passed, mut rejected) = (0, 0);
    for task in tasks {
        let (yes, no) = task.await.unwrap();
        (passed, rejected) = (passed + yes, rejected + no);
    }
    assert_eq!(passed, SHARED, "all that may pass, and no more ({rejected} were rejected)");
    assert!(0 < rejected);
    // What the pool rejected was given back to the tenants, to the last one.
    let mut charged = 0;
    for tenant in &tenants {
        charged += 100_000 - left(&probe, &of(tenant, SHARED), "own").await;
    }
    assert_eq!(charged, SHARED);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_it_fails_closed_or_open() {
    let server = Server::start(Flavor::Redis).unwrap();
    let limiter = Arc::new(RedisRateLimiter::new(support::pool(server.url()).await));
    let policy = policy([requests(1), gpu(1, HOUR)]);
    server.kill().unwrap();
    let error = limiter.acquire(&policy, &Demand::new()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let open = Breaker::new(Arc::clone(&limiter), WhenAway::Admit);
    let permit = open.acquire(&policy, &Demand::new()).await.unwrap().into_permit().unwrap();
    assert!(permit.is_unchecked());
    assert_eq!(permit.report().tiers().count(), 0);
    assert_eq!(open.release(&permit).await.unwrap(), Settled::Gone);
    let nothing = Policy::new("d").unwrap();
    let error = open.acquire(&nothing, &Demand::new()).await.unwrap_err();
    assert!(matches!(error, Error::EmptyPolicy));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_left_alone_and_each_instance_limits_its_part() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let namespace = support::namespace();
    // Four instances live; one of them leaves.
    let mut others = Vec::new();
    for _ in 0..3 {
        let one = Instances::counted(Arc::clone(&driver), &namespace, "chat").unwrap();
        let run = tokio::spawn(one.run());
        others.push((one, run));
    }
    let instances = Instances::counted(Arc::clone(&driver), &namespace, "chat").unwrap();
    assert_eq!(instances.count(), 1, "nobody was asked yet");
    tokio::spawn(instances.run());
    until("four are counted", async || {
        instances.count() == 4 || {
            // The last to come counts all at once; others learn of it with their next beat.
            others.iter().any(|(other, _)| other.count() == 4)
        }
    })
    .await;
    let (leaver, run) = others.pop().unwrap();
    leaver.leave().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), run).await.unwrap().unwrap();
    until("three are counted", async || instances.count() == 3).await;

    let limiter = RedisRateLimiter::with_namespace(driver, namespace);
    let breaker = Breaker::new(limiter, WhenAway::LocalShare(instances)).with_failures(3);
    let breaker = breaker.with_pause(Duration::from_millis(300));
    let policy = policy([requests(10), gpu(2, HOUR)]);
    let before = breaker.acquire(&policy, &Demand::new()).await.unwrap().into_permit().unwrap();
    assert!(!before.is_local() && !breaker.is_open());
    server.kill().unwrap();
    // A third of ten are three, and of two slots there is still one.
    let mut permits = Vec::new();
    for _ in 0..3 {
        let permit = breaker.acquire(&policy, &Demand::new()).await.unwrap().into_permit().unwrap();
        assert!(permit.is_local() && !permit.is_unchecked());
        let second = breaker.acquire(&policy, &Demand::new()).await.unwrap();
        assert!(!second.is_admitted(), "the slot is taken");
        assert_eq!(breaker.release(&permit).await.unwrap(), Settled::Done);
        permits.push(permit);
    }
    assert!(breaker.is_open());
    let begun = Instant::now();
    for _ in 0..200 {
        let decision = breaker.acquire(&policy, &Demand::new()).await.unwrap();
        assert!(!decision.is_admitted());
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits for the server");
    let away = breaker.peek(&policy, &Demand::new()).await;
    assert!(matches!(&away, Err(error) if error.is_transient()), "{away:?}");
    server.restart().unwrap();
    until("the server is asked again", async || {
        breaker.acquire(&policy, &Demand::new()).await.unwrap().is_admitted()
    })
    .await;
    assert!(!breaker.is_open());
    assert_eq!(left(&breaker, &policy, "requests").await, 9, "it begins anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_admits_nothing_and_still_settles() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let limiter = RedisRateLimiter::new(Arc::clone(&driver));
    let policy = policy([requests(9), gpu(2, HOUR)]);
    let permit = limiter.acquire(&policy, &once("1")).await.unwrap().into_permit().unwrap();
    driver.query::<()>(Cmd::new("CONFIG").args(["SET", "maxmemory", "1"])).await.unwrap();
    let error = limiter.acquire(&policy, &once("2")).await.unwrap_err();
    assert!(!error.maybe_applied(), "{error:?}");
    assert_eq!(limiter.refund(&permit).await.unwrap(), Settled::Done);
    assert_eq!(left(&limiter, &policy, "requests").await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_state_is_an_error_and_stays() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let limiter = RedisRateLimiter::new(Arc::clone(&driver));
    let policy = policy([requests(9)]);
    let key = limiter.keys(&policy).unwrap().remove(0);
    for foreign in [&b""[..], b"no", b"\x02R\x01\0aaaaaaaabbbbbbbb", b"\x01R\x01\0"] {
        driver.query::<()>(Cmd::new("SET").key(&key).arg(foreign)).await.unwrap();
        assert!(matches!(limiter.acquire(&policy, &Demand::new()).await, Err(Error::Backend(_))));
        let stays: Vec<u8> = driver.query(Cmd::new("GET").key(&key)).await.unwrap();
        assert_eq!(stays, foreign);
    }
}

#[test]
fn bad_numbers_and_names_are_refused() {
    for weight in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e17] {
        let error = Demand::new().try_with(Unit::Tokens, weight).unwrap_err();
        assert!(matches!(error, Error::InvalidWeight { .. }), "{error:?}");
    }
    let demand = Demand::new().try_with(Unit::Tokens, 1.2).unwrap();
    assert_eq!(demand.weights().get(&Unit::Tokens), Some(2), "rounded up");
    let second = Duration::from_secs(1);
    for amount in [0, u64::MAX] {
        for limit in [
            Limit::new(amount, second, Unit::Requests),
            Limit::fixed_window(amount, second, Unit::Requests),
            Limit::slots(amount),
            Limit::sliding_log(amount, second),
            Limit::new(1, second, Unit::Requests).unwrap().with_burst(amount),
        ] {
            assert!(matches!(limit, Err(Error::AmountOutOfRange { .. })), "{limit:?}");
        }
    }
    for period in [Duration::ZERO, Duration::MAX] {
        let limit = Limit::new(1, period, Unit::Requests);
        assert!(matches!(limit, Err(Error::TimeOutOfRange { .. })), "{limit:?}");
        assert!(Limit::slots(1).unwrap().with_lease(period).is_err());
    }
    let slow = Limit::new(1, HOUR * 24, Unit::Requests).unwrap();
    assert!(matches!(slow.with_burst(10_000), Err(Error::TimeOutOfRange { .. })));
    assert!(matches!(Subject::user(""), Err(Error::EmptyName { .. })));
    assert!(matches!(Policy::new(""), Err(Error::EmptyName { .. })));
    assert!(matches!(Demand::once(""), Err(Error::EmptyName { .. })));
    assert!(matches!(Subject::user(&"n".repeat(513)), Err(Error::NameTooLong { .. })));
    for name in ["", "a b", "a\"", "a=b", "a;b", "naïve", "a\r\nx: y"] {
        let tier = Tier::new(name.to_owned(), Subject::global(), Limit::slots(1).unwrap());
        assert!(matches!(tier, Err(Error::InvalidName { .. })), "{name}");
        assert!(matches!(Unit::custom(name.to_owned()), Err(Error::InvalidName { .. })), "{name}");
        assert!(Subject::new(name.to_owned(), "x").is_err());
    }
    let twice = Policy::new("d").unwrap().with_tier(requests(1)).unwrap().with_tier(requests(2));
    assert!(matches!(twice, Err(Error::DuplicateTier { .. })));
}

/// Thousands a second are limited, and so are requests that come once a day.
#[tokio::test(flavor = "multi_thread")]
async fn high_and_low_rates_hold() {
    let limiter = support::on_pool(Flavor::Redis).await;
    let second = Duration::from_secs(1);
    for amount in [2_000_u64, 50_000, 1_000_000, 5_000_000_000] {
        let fast = support::tier("fast", Limit::new(amount, second, Unit::Tokens).unwrap());
        let policy = policy([fast]);
        let demand = Demand::new().with_tokens(amount);
        assert!(limiter.acquire(&policy, &demand).await.unwrap().is_admitted(), "{amount}");
        let rejection = limiter.acquire(&policy, &demand).await.unwrap().into_permit().unwrap_err();
        let wait = rejection.retry_after().unwrap();
        assert!(wait <= second && second / 2 < wait, "{amount}: {wait:?}");
        limiter.reset(&policy).await.unwrap();
    }
    let slow = Limit::new(1, HOUR * 24, Unit::Requests).unwrap();
    let policy = policy([support::tier("slow", slow)]);
    assert!(limiter.acquire(&policy, &Demand::new()).await.unwrap().is_admitted());
    let rejection =
        limiter.acquire(&policy, &Demand::new()).await.unwrap().into_permit().unwrap_err();
    assert!(HOUR * 23 < rejection.retry_after().unwrap());
}
