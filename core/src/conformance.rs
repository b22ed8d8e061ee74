//! The suite that every [`Driver`] and every [`Leases`] passes (feature `conformance`; not covered by semver).
//!
//! Each case is an `async fn` that panics where the implementation breaks the contract.
//! [`driver_conformance!`](crate::driver_conformance) and [`lease_conformance!`](crate::lease_conformance) make a test of
//! each.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "cases are assertions"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::keys::{Key, Namespace};
use crate::{Batch, Cmd, Driver, DriverExt, ErrorKind, LeaseKeeper, Leases, Reply, Script};

/// Makes a test of each case for the driver that `$make` returns with a key prefix of its own:
/// `async fn make() -> (impl Driver, String)`.
#[macro_export]
macro_rules! driver_conformance {
    ($make:path) => {
        $crate::driver_conformance!(@ $make:
            binary_values_come_back_unchanged, large_values_come_back_whole, replies_have_their_types,
            maps_read_alike_in_both_protocols, a_pipeline_keeps_order_and_single_errors,
            a_pipeline_over_many_keys_keeps_order, an_atomic_batch_runs_as_one, an_atomic_batch_discards_as_one,
            an_empty_batch_is_no_round_trip, scripts_load_themselves, scripts_survive_a_flush,
            scripts_survive_a_flush_in_pipelines, a_script_s_own_error_may_have_written, many_tasks_share_the_driver,
            blocking_commands_are_refused, answers_are_taken_once, errors_carry_no_values);
    };
    (@ $make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let (driver, prefix) = $make().await;
            $crate::conformance::$case(&driver, &prefix).await;
        }
    )*};
}

/// Makes a test of each case for the leases that `$make` returns: `async fn make() -> impl Leases`.
///
/// They end by the real time.
#[macro_export]
macro_rules! lease_conformance {
    ($make:path) => {
        $crate::lease_conformance!(@ $make:
            a_lease_has_one_owner, a_repeated_acquire_is_the_same_lease, tokens_grow, a_lost_lease_stays_lost,
            a_lease_knows_its_end, unfit_leases_are_refused, a_kept_lease_outlasts_its_length,
            a_dropped_lease_is_given_back, a_kept_lease_that_is_taken_away_is_lost,
            a_lease_that_nobody_keeps_ends, a_run_can_be_aborted_and_taken_over);
    };
    (@ $make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let leases: std::sync::Arc<dyn $crate::Leases> = std::sync::Arc::new($make().await);
            $crate::conformance::$case(&leases).await;
        }
    )*};
}

fn key(prefix: &str, name: &str) -> Key {
    Namespace::new(prefix).unwrap().family("conformance").tag(prefix).part(name).build()
}

fn spread(prefix: &str, number: usize) -> Key {
    Namespace::new(prefix).unwrap().family("conformance").part(number.to_string()).build()
}

fn set(key: &Key, value: &[u8]) -> Cmd {
    Cmd::new("SET").key(key).arg(value).arg("PX").arg(600_000)
}

fn get(key: &Key) -> Cmd {
    Cmd::new("GET").key(key).readonly()
}

/// Any byte may be part of a value, and an empty value is not a missing one.
pub async fn binary_values_come_back_unchanged(driver: &dyn Driver, prefix: &str) {
    let key = key(prefix, "binary");
    for value in [&b""[..], b"\r\n$-1\r\n", &[0, 255, 128, 10, 13], "naïve 🙂".as_bytes()] {
        driver.query::<()>(set(&key, value)).await.unwrap();
        let back: Option<Bytes> = driver.query(get(&key)).await.unwrap();
        assert_eq!(back.as_deref(), Some(value));
    }
    driver.query::<i64>(Cmd::new("DEL").key(&key)).await.unwrap();
    assert_eq!(driver.query::<Option<Bytes>>(get(&key)).await.unwrap(), None);
}

/// Values larger than any buffer on the way arrive whole.
pub async fn large_values_come_back_whole(driver: &dyn Driver, prefix: &str) {
    let key = key(prefix, "large");
    let value: Vec<u8> = (0..3_000_000_u32).map(|index| index.to_le_bytes()[0]).collect();
    driver.query::<()>(set(&key, &value)).await.unwrap();
    assert_eq!(driver.query::<Bytes>(get(&key)).await.unwrap(), value);
    driver.query::<()>(Cmd::new("DEL").key(&key)).await.unwrap();
}

/// Integers, strings, nil and nested arrays are told apart.
pub async fn replies_have_their_types(driver: &dyn Driver, prefix: &str) {
    static SHAPES: Script =
        Script::new("return {1, 'two', false, {4, {'five'}}, redis.status_reply('SIX')}");
    let reply: Reply = driver.eval(&SHAPES, &[key(prefix, "shapes")], &[""; 0]).await.unwrap();
    let items = reply.into_array().unwrap();
    assert_eq!(items[0], Reply::Int(1));
    assert_eq!(items[1].as_str(), Some("two"));
    assert!(items[2].is_nil());
    let nested = items[3].clone().into_array().unwrap();
    assert_eq!(nested[1].clone().into_array().unwrap()[0].as_str(), Some("five"));
    assert_eq!(items[4].as_str(), Some("SIX"));
    let error = driver.query::<i64>(Cmd::new("ECHO").arg("no number")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reply);
}

/// A hash is a map, whether the protocol has maps or not.
pub async fn maps_read_alike_in_both_protocols(driver: &dyn Driver, prefix: &str) {
    let key = key(prefix, "map");
    driver
        .query::<()>(Cmd::new("HSET").key(&key).arg("a").arg(1).arg("b").arg(&b"\0\xff"[..]))
        .await
        .unwrap();
    driver.query::<()>(Cmd::new("PEXPIRE").key(&key).arg(600_000)).await.unwrap();
    let map: HashMap<String, Bytes> =
        driver.query(Cmd::new("HGETALL").key(&key).readonly()).await.unwrap();
    assert_eq!(map["a"], &b"1"[..]);
    assert_eq!(map["b"], &b"\0\xff"[..]);
    assert_eq!(map.len(), 2);
}

/// A refused command does not hide or stop the others.
pub async fn a_pipeline_keeps_order_and_single_errors(driver: &dyn Driver, prefix: &str) {
    let key = key(prefix, "pipeline");
    let mut batch = Batch::new();
    let first = batch.push::<()>(set(&key, b"text"));
    let wrong = batch.push::<i64>(Cmd::new("INCR").key(&key));
    let last = batch.push::<String>(get(&key));
    let mut answers = driver.run(batch).await.unwrap();
    answers.take(first).unwrap();
    let error = answers.take(wrong).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(!error.maybe_applied());
    assert_eq!(answers.take(last).unwrap(), "text");
}

/// Keys of many slots go to many nodes and their answers come back in order.
pub async fn a_pipeline_over_many_keys_keeps_order(driver: &dyn Driver, prefix: &str) {
    let writes: Batch = (0..200)
        .map(|number| set(&spread(prefix, number), number.to_string().as_bytes()))
        .collect();
    for reply in driver.pipeline(writes).await.unwrap() {
        reply.unwrap();
    }
    let reads: Batch = (0..200).map(|number| get(&spread(prefix, number))).collect();
    for (number, reply) in driver.pipeline(reads).await.unwrap().into_iter().enumerate() {
        assert_eq!(reply.unwrap().as_i64(), i64::try_from(number).ok());
    }
}

/// An atomic batch applies all its commands and returns all their answers.
pub async fn an_atomic_batch_runs_as_one(driver: &dyn Driver, prefix: &str) {
    static ADD: Script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1]) -- atomic");
    let key = key(prefix, "atomic");
    let mut batch = Batch::atomic();
    batch.push::<()>(set(&key, b"1"));
    let five = batch.push::<i64>(Cmd::new("INCRBY").key(&key).arg(4));
    let twelve = batch.push::<i64>(Cmd::eval(&ADD, &[&key]).arg(7));
    let mut answers = driver.run(batch).await.unwrap();
    assert_eq!(answers.take(five).unwrap(), 5);
    assert_eq!(answers.take(twelve).unwrap(), 12);
}

/// A command that the server does not accept discards the whole atomic batch.
pub async fn an_atomic_batch_discards_as_one(driver: &dyn Driver, prefix: &str) {
    let key = key(prefix, "discard");
    driver.query::<()>(set(&key, b"1")).await.unwrap();
    let mut batch = Batch::atomic();
    batch.push::<i64>(Cmd::new("INCR").key(&key));
    batch.push::<()>(Cmd::new("GET").key(&key).arg("one too many"));
    assert_eq!(driver.run(batch).await.unwrap_err().kind(), ErrorKind::Server);
    assert_eq!(driver.query::<i64>(get(&key)).await.unwrap(), 1);
}

/// Nothing to send is nothing to wait for.
pub async fn an_empty_batch_is_no_round_trip(driver: &dyn Driver, _: &str) {
    driver.run(Batch::new()).await.unwrap();
    driver.run(Batch::atomic()).await.unwrap();
}

/// A script that the server has never seen runs at the first call.
pub async fn scripts_load_themselves(driver: &dyn Driver, prefix: &str) {
    static ECHO: Script = Script::new("return {KEYS[1], ARGV[1]}");
    let key = key(prefix, "script");
    for _ in 0..2 {
        let (name, arg): (String, Bytes) =
            driver.eval(&ECHO, &[&key], &[&b"\0arg"[..]]).await.unwrap();
        assert_eq!((name.as_str(), &arg[..]), (key.as_str(), &b"\0arg"[..]));
    }
}

async fn flush_scripts(driver: &dyn Driver, key: &Key) {
    static FLUSH: Script = Script::new("return 1 -- where the key lives");
    // The routing key makes a cluster flush the node that the case uses.
    let _ = driver.eval::<i64, _, &str>(&FLUSH, &[key], &[]).await;
    driver.query::<()>(Cmd::new("SCRIPT").arg("FLUSH")).await.unwrap();
}

/// `SCRIPT FLUSH`, a restart or a failover in between makes no difference.
pub async fn scripts_survive_a_flush(driver: &dyn Driver, prefix: &str) {
    static COUNT: Script = Script::new(
        "local n = redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], 600000) return n",
    );
    let key = key(prefix, "flush");
    for expected in 1..=3_i64 {
        assert_eq!(driver.eval::<i64, _, &str>(&COUNT, &[&key], &[]).await.unwrap(), expected);
        flush_scripts(driver, &key).await;
    }
}

/// The same inside a pipeline, where the other commands keep their answers.
pub async fn scripts_survive_a_flush_in_pipelines(driver: &dyn Driver, prefix: &str) {
    static COUNT: Script = Script::new(
        "local n = redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], 600000) return n + 0",
    );
    let (counter, other) = (key(prefix, "flushed"), key(prefix, "other"));
    for expected in 1..=3_i64 {
        flush_scripts(driver, &counter).await;
        let mut batch = Batch::new();
        batch.push::<()>(set(&other, b"x"));
        let count = batch.push::<i64>(Cmd::eval(&COUNT, &[&counter]));
        let text = batch.push::<String>(get(&other));
        let mut answers = driver.run(batch).await.unwrap();
        assert_eq!(answers.take(count).unwrap(), expected);
        assert_eq!(answers.take(text).unwrap(), "x");
    }
}

/// An error raised inside a script may come after some of its writes, and says so.
pub async fn a_script_s_own_error_may_have_written(driver: &dyn Driver, prefix: &str) {
    static BREAK: Script = Script::new(
        "redis.call('SET', KEYS[1], 'x', 'PX', 600000) return redis.call('INCR', KEYS[1])",
    );
    let key = key(prefix, "broken");
    let error = driver.eval::<i64, _, &str>(&BREAK, &[&key], &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(error.maybe_applied(), "{error:?}");
    assert_eq!(driver.query::<String>(get(&key)).await.unwrap(), "x");
}

/// Answers go to whom they belong, however many ask at once.
pub async fn many_tasks_share_the_driver(driver: &dyn Driver, prefix: &str) {
    let calls = (0..64).map(|task: i64| async move {
        let key = key(prefix, &format!("task{task}"));
        for step in 0..20 {
            let value = task * 1000 + step;
            driver.query::<()>(set(&key, value.to_string().as_bytes())).await.unwrap();
            assert_eq!(driver.query::<i64>(get(&key)).await.unwrap(), value);
        }
    });
    futures_util::future::join_all(calls).await;
}

/// A command that would hold up everybody else is refused before it is sent.
pub async fn blocking_commands_are_refused(driver: &dyn Driver, prefix: &str) {
    let wait = Duration::from_millis(100);
    let cmd = Cmd::new("BLPOP").key(key(prefix, "list")).arg("0.1").blocking(wait);
    let error = driver.query::<Reply>(cmd).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!error.maybe_applied());
}

/// A slot is used up; one of another batch is an error, not somebody else's answer.
pub async fn answers_are_taken_once(driver: &dyn Driver, prefix: &str) {
    let mut other = Batch::new();
    other.push::<Reply>(get(&key(prefix, "none")));
    let foreign = other.push::<Reply>(get(&key(prefix, "none")));
    let mut batch = Batch::new();
    batch.push::<Reply>(get(&key(prefix, "none")));
    let mut answers = driver.run(batch).await.unwrap();
    assert_eq!(answers.take(foreign).unwrap_err().kind(), ErrorKind::Config);
}

/// What a user wrote does not end up in a log by way of an error.
pub async fn errors_carry_no_values(driver: &dyn Driver, prefix: &str) {
    let key = key(prefix, "secret");
    driver.query::<()>(set(&key, b"hunter2")).await.unwrap();
    let errors = [
        driver.query::<i64>(get(&key)).await.unwrap_err(),
        driver.query::<i64>(Cmd::new("INCRBY").key(&key).arg("hunter2")).await.unwrap_err(),
        driver.query::<i64>(Cmd::new("LPUSH").key(&key).arg("hunter2")).await.unwrap_err(),
    ];
    for error in errors {
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

const LONG: Duration = Duration::from_secs(60);

fn fresh(case: &str) -> String {
    use std::time::{SystemTime, UNIX_EPOCH};
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{case} {now} {:?}", std::thread::current().id())
}

/// While one has it, another does not get it.
pub async fn a_lease_has_one_owner(leases: &Arc<dyn Leases>) {
    let name = fresh("one owner");
    let lease = leases.acquire(&name, "a", LONG).await.unwrap().expect("it is free");
    assert_eq!(leases.acquire(&name, "b", LONG).await.unwrap(), None);
    assert!(leases.renew(&lease, LONG).await.unwrap());
    assert!(leases.release(&lease).await.unwrap());
    assert!(leases.acquire(&name, "b", LONG).await.unwrap().is_some());
}

/// Who lost the answer may ask again.
pub async fn a_repeated_acquire_is_the_same_lease(leases: &Arc<dyn Leases>) {
    let name = fresh("repeat");
    let first = leases.acquire(&name, "a", LONG).await.unwrap();
    assert!(first.is_some());
    assert_eq!(leases.acquire(&name, "a", LONG).await.unwrap(), first);
}

/// Each new lease of a name has a larger token.
pub async fn tokens_grow(leases: &Arc<dyn Leases>) {
    let name = fresh("tokens");
    let mut last = 0;
    for _ in 0..20 {
        let lease = leases.acquire(&name, "a", LONG).await.unwrap().expect("it is free");
        assert!(last < lease.token());
        last = lease.token();
        leases.release(&lease).await.unwrap();
    }
}

/// After its end a lease can be had by another, and the old owner can neither renew nor release it.
pub async fn a_lost_lease_stays_lost(leases: &Arc<dyn Leases>) {
    let name = fresh("lost");
    let lost = leases.acquire(&name, "a", Duration::from_millis(20)).await.unwrap().expect("free");
    let next = loop {
        if let Some(lease) = leases.acquire(&name, "b", LONG).await.unwrap() {
            break lease;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(lost.token() < next.token());
    assert!(!leases.renew(&lost, LONG).await.unwrap());
    assert!(!leases.release(&lost).await.unwrap());
    assert!(leases.renew(&next, LONG).await.unwrap());
}

/// Empty names and lengths of nothing are errors.
pub async fn unfit_leases_are_refused(leases: &Arc<dyn Leases>) {
    for (name, owner, ttl) in [("", "a", LONG), ("n", "", LONG), ("n", "a", Duration::ZERO)] {
        let error = leases.acquire(name, owner, ttl).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

/// The holder knows how long the lease holds, and never more than it was given.
pub async fn a_lease_knows_its_end(leases: &Arc<dyn Leases>) {
    let name = fresh("end");
    let lease = leases.acquire(&name, "a", LONG).await.unwrap().expect("it is free");
    assert!(LONG / 2 < lease.remaining() && lease.remaining() <= LONG);
    let clone = lease.clone();
    assert!(leases.renew(&lease, LONG * 2).await.unwrap());
    assert!(LONG < clone.remaining() && clone.remaining() <= LONG * 2);
    assert!(leases.release(&lease).await.unwrap());
    assert!(clone.is_lost());
    clone.lost().await;
}

const SHORT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until somebody else gets the lease.
async fn until_free(leases: &Arc<dyn Leases>, name: &str) {
    let taken = async {
        while leases.acquire(name, "other", LONG).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("it becomes free");
}

/// While a keeper runs, nobody else gets the lease, for however long.
pub async fn a_kept_lease_outlasts_its_length(leases: &Arc<dyn Leases>) {
    let name = fresh("kept");
    let keeper = LeaseKeeper::new(Arc::clone(leases));
    let run = tokio::spawn(keeper.run());
    let lease = keeper.acquire(&name, SHORT * 4).await.unwrap().expect("it is free");
    assert!(keeper.acquire(&name, LONG).await.unwrap().is_none(), "each attempt has an owner");
    let begun = std::time::Instant::now();
    while begun.elapsed() < SHORT * 12 {
        assert_eq!(leases.acquire(&name, "other", LONG).await.unwrap(), None);
        assert!(!lease.is_lost());
        tokio::time::sleep(SHORT / 6).await;
    }
    assert!(lease.release().await.unwrap());
    assert!(leases.acquire(&name, "other", LONG).await.unwrap().is_some());
    drop(keeper);
    tokio::time::timeout(PATIENCE, run).await.expect("it ends with the keeper").unwrap();
}

/// Long before its end, if a keeper runs; and the run goes on until that is done.
pub async fn a_dropped_lease_is_given_back(leases: &Arc<dyn Leases>) {
    let name = fresh("dropped");
    let keeper = LeaseKeeper::new(Arc::clone(leases));
    let run = tokio::spawn(keeper.run());
    let lease = keeper.acquire(&name, LONG).await.unwrap().expect("it is free");
    drop(keeper);
    drop(lease);
    tokio::time::timeout(PATIENCE, run).await.expect("it ends with the last lease").unwrap();
    assert!(leases.acquire(&name, "other", LONG).await.unwrap().is_some());
}

/// The next renewal finds out, and the holder is told.
pub async fn a_kept_lease_that_is_taken_away_is_lost(leases: &Arc<dyn Leases>) {
    let name = fresh("taken away");
    let keeper = LeaseKeeper::new(Arc::clone(leases));
    let run = tokio::spawn(keeper.run());
    let lease = keeper.acquire(&name, SHORT * 10).await.unwrap().expect("it is free");
    // The same lease as far as the server knows, but its end is not shared.
    let thief = crate::Lease::new(&name, lease.token(), std::time::Instant::now());
    assert!(leases.release(&thief).await.unwrap());
    let begun = std::time::Instant::now();
    tokio::time::timeout(PATIENCE, lease.lost()).await.expect("the holder is told");
    assert!(begun.elapsed() < SHORT * 9, "the renewal tells, not the end");
    assert!(lease.is_lost() && !lease.release().await.unwrap());
    run.abort();
}

/// Without a run, or with a process that dies, the lease ends after its time, for the holder first.
pub async fn a_lease_that_nobody_keeps_ends(leases: &Arc<dyn Leases>) {
    let name = fresh("nobody keeps");
    let keeper = LeaseKeeper::new(Arc::clone(leases));
    let held = keeper.acquire(&name, SHORT).await.unwrap().expect("it is free");
    until_free(leases, &name).await;
    assert!(held.is_lost());
    drop(held);
    let next = fresh("dropped and nobody keeps");
    drop(keeper.acquire(&next, SHORT).await.unwrap().expect("it is free"));
    assert_eq!(leases.acquire(&next, "other", LONG).await.unwrap(), None);
    until_free(leases, &next).await;
}

/// What one run leaves undone the next one does.
pub async fn a_run_can_be_aborted_and_taken_over(leases: &Arc<dyn Leases>) {
    let name = fresh("taken over");
    let keeper = LeaseKeeper::new(Arc::clone(leases));
    let first = tokio::spawn(keeper.run());
    let second = tokio::spawn(keeper.run());
    let lease = keeper.acquire(&name, LONG).await.unwrap().expect("it is free");
    first.abort();
    drop(lease);
    until_free(leases, &name).await;
    drop(keeper);
    tokio::time::timeout(PATIENCE, second).await.expect("it ends with the keeper").unwrap();
}
