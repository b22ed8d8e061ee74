//! Every key that is written is in the table and expires, the table's permissions suffice, and the documents agree.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use inferkit_core::keys::{Namespace, acl, markdown};
use inferkit_core::{Cmd, DriverExt as _};
use inferkit_localredis::{Flavor, Server};
use inferkit_ratelimit::{
    Calendar, KEYS, Limit, Policy, RateLimiter as _, RateLimiterExt as _, RedisRateLimiter, Unit,
    Weights,
};
use support::{HOUR, gpu, once, policy, requests, tier, tokens};

fn everything() -> Policy {
    policy([
        requests(9),
        tokens(1000),
        tier("fixed", Limit::fixed_window(9, HOUR, Unit::Requests).unwrap()),
        tier("sliding", Limit::sliding_window(1000, HOUR, Unit::Tokens).unwrap()),
        tier("month", Limit::calendar(9, Calendar::Month, Unit::NanoDollars).unwrap()),
        tier("log", Limit::sliding_log(9, HOUR).unwrap()),
        gpu(2, HOUR / 60),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_in_the_table_and_expires() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let limiter = RedisRateLimiter::new(Arc::clone(&driver));
    let kept = limiter.acquire(&everything(), &once("a b{}").with_tokens(5)).await.unwrap();
    let recorded = policy([requests(9)]);
    let recorded = limiter.acquire(&recorded, &once("a b{}")).await.unwrap();
    let keys: Vec<String> = driver.query(Cmd::new("KEYS").arg("*")).await.unwrap();
    let mut kinds = Vec::new();
    for key in &keys {
        assert!(key.starts_with("rl:{d}:"), "{key}");
        let left: i64 = driver.query(Cmd::new("PTTL").key(key)).await.unwrap();
        assert!(0 < left && left <= 62 * 24 * 3_600_000, "{key}: {left}");
        let kind: String = driver.query(Cmd::new("TYPE").key(key)).await.unwrap();
        let name = key.split(':').nth(2).unwrap();
        kinds.push(format!("{name} {kind}"));
    }
    kinds.sort();
    let expected = [
        "global=all zset",
        "request string",
        "user=ann string",
        "user=ann string",
        "user=ann zset",
    ];
    assert_eq!(kinds, expected, "the two policies have tiers of different names: two strings");
    for kind in kinds {
        assert!(KEYS.iter().any(|row| kind.ends_with(row.kind)));
    }
    drop((kept, recorded));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_table_s_permissions_can_do_everything() {
    for flavor in [Flavor::Redis, Flavor::Valkey] {
        let server = Server::start(flavor).unwrap();
        let admin = support::pool(server.url()).await;
        let namespace = Namespace::new("team").unwrap();
        let cmd = Cmd::new("ACL").args(["SETUSER", "limits", "on", ">secret", "resetchannels"]);
        admin.query::<()>(cmd.args(acl(KEYS, &namespace))).await.unwrap();
        let url = server.url().replace("redis://", "redis://limits:secret@");
        let limiter = RedisRateLimiter::with_namespace(support::pool(&url).await, namespace);
        let run = tokio::spawn(limiter.run());
        let everything = everything();
        for id in ["1", "2"] {
            let permit = limiter.acquire(&everything, &once(id).with_tokens(5)).await.unwrap();
            let permit = permit.into_permit().unwrap();
            let used = Weights::new().with_tokens(9).with(Unit::Requests, 2);
            limiter.settle(&permit, &used).await.unwrap();
        }
        let _first = limiter.acquire(&everything, &once("3")).await.unwrap();
        let _second = limiter.acquire(&everything, &once("4")).await.unwrap();
        assert!(!limiter.acquire(&everything, &once("5")).await.unwrap().is_admitted());
        limiter.usage(&everything).await.unwrap();
        limiter.reset(&everything).await.unwrap();
        let recorded = policy([requests(1)]);
        let permit = limiter.acquire(&recorded, &once("1")).await.unwrap().into_permit().unwrap();
        assert!(!limiter.acquire(&recorded, &once("2")).await.unwrap().is_admitted());
        limiter.refund(&permit).await.unwrap();
        run.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_writes_nothing() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let limiter = RedisRateLimiter::new(Arc::clone(&driver));
    let policy = policy([requests(100), tokens(1000), gpu(1, HOUR)]);
    let _kept = limiter.acquire(&policy, &once("1")).await.unwrap();
    let mut dumps = Vec::new();
    for id in ["2", "3"] {
        let mut dump = Vec::new();
        for key in limiter.keys(&policy).unwrap() {
            let bytes: Vec<u8> = driver.query(Cmd::new("DUMP").key(&key)).await.unwrap();
            dump.push(bytes);
        }
        dumps.push(dump);
        assert!(!limiter.acquire(&policy, &once(id)).await.unwrap().is_admitted());
    }
    assert_eq!(dumps[0], dumps[1]);
}

#[test]
fn the_key_table_of_the_readme_is_the_crate_s() {
    assert!(include_str!("../README.md").contains(&markdown(KEYS)), "{}", markdown(KEYS));
}

#[test]
fn every_script_says_what_it_takes_and_returns() {
    for script in [
        include_str!("../src/scripts/acquire.lua"),
        include_str!("../src/scripts/settle.lua"),
        include_str!("../src/scripts/renew.lua"),
    ] {
        let header: Vec<&str> = script.lines().take_while(|line| line.starts_with("--")).collect();
        for word in ["KEYS", "ARGV[1]", "ARGV[2]", "Reply"] {
            assert!(header.iter().any(|line| line.contains(word)), "the header lacks {word}");
        }
    }
    for script in [
        include_str!("../src/scripts/queue_core.lua"),
        include_str!("../src/scripts/queue_enter.lua"),
        include_str!("../src/scripts/queue_leave.lua"),
        include_str!("../src/scripts/queue_beat.lua"),
        include_str!("../src/scripts/queue_look.lua"),
    ] {
        let header: Vec<&str> = script.lines().take_while(|line| line.starts_with("--")).collect();
        for word in ["KEYS", "ARGV[1]", "Reply"] {
            assert!(header.iter().any(|line| line.contains(word)), "the header lacks {word}");
        }
    }
}
