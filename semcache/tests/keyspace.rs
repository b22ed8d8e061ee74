//! Every key that is written is in the table and expires, and the documents say the same as the table.

mod support;

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::keys::{Namespace, acl, markdown};
use inferkit_core::{Cmd, DriverExt as _};
use inferkit_localredis::{Flavor, Server};
use inferkit_semcache::{
    Algorithm, Feedback, Hnsw, KEYS, Request, Selection, SemanticCache, Tenant, TransferExt as _,
};
use support::{answer, request, text};

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_in_the_table_and_expires() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let cache = support::over(Arc::clone(&driver), support::config()).await;
    let shared = Request::new(Tenant::shared(), "gpt-3.5-turbo", "2@0").unwrap();
    for request in [request("1@0 naïve {*}"), request("1@1"), shared] {
        cache.store(&request, &answer("yes").with_tokens_used(1), None).await.unwrap();
        cache.store(&request, &answer("again"), None).await.unwrap();
    }
    let keys: Vec<String> = driver.query(Cmd::new("KEYS").arg("*")).await.unwrap();
    assert_eq!(keys.len(), 5);
    for key in keys {
        let parts: Vec<&str> = key.split(':').collect();
        let [_, family, tenant, id] = parts[..] else { panic!("{key}") };
        assert_eq!(family, KEYS[0].family);
        if id == "epoch" {
            let kind = text(&driver, Cmd::new("TYPE").key(&key)).await;
            assert_eq!((kind.as_str(), KEYS[1].kind), ("string", "string"));
            let left: i64 = driver.query(Cmd::new("PTTL").key(&key)).await.unwrap();
            assert!(0 < left, "{left}");
            continue;
        }
        for digest in [tenant, id] {
            assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert_eq!(text(&driver, Cmd::new("TYPE").key(&key)).await, KEYS[0].kind);
        let left: i64 = driver.query(Cmd::new("PTTL").key(&key)).await.unwrap();
        let model = text(&driver, Cmd::new("HGET").key(&key).arg("model")).await;
        let day = 24 * 60 * 60 * 1000;
        let ttl = if model == "gpt-4" { 7 * day } else { day };
        assert!((ttl - 60_000..=ttl).contains(&left), "{left}");
        let mut fields: Vec<String> = driver.query(Cmd::new("HKEYS").key(&key)).await.unwrap();
        fields.sort();
        let expected = [
            "embedding",
            "labels",
            "model",
            "prompt",
            "response",
            "scope",
            "timestamp",
            "ttl",
            "v",
        ];
        assert_eq!(fields, expected, "and no tokens_used, which the second answer did not have");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_table_s_permissions_can_do_everything() {
    let server = Server::start(Flavor::Redis).unwrap();
    let admin = support::pool(server.url()).await;
    let config = support::config();
    let namespace: Namespace = config.namespace.clone();
    let cmd = Cmd::new("ACL").args(["SETUSER", "cache", "on", ">secret", "resetchannels"]);
    let cmd = cmd.args(acl(KEYS, &namespace)).args(["+hello", "+client", "+ping"]);
    admin.query::<()>(cmd).await.unwrap();
    let url = server.url().replace("redis://", "redis://cache:secret@");
    let cache = support::over(support::pool(&url).await, config).await;
    cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
    for asked in ["1@0", "1@1"] {
        assert!(cache.lookup(&request(asked)).await.unwrap().hit().is_some());
    }
    let hit = cache.lookup(&request("1@1")).await.unwrap().into_hit().unwrap();
    cache.report(&request("1@1"), &hit, Feedback::Wrong).await.unwrap();
    let mut file = Vec::new();
    assert_eq!(cache.export(&mut file, |_| {}).await.unwrap(), 1);
    assert_eq!(cache.import(&file[..], |_| {}).await.unwrap(), 1);
    assert!(cache.remove(request("1@0").tenant(), &request("1@0").id()).await.unwrap());
    cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
    assert_eq!(cache.invalidate(&Selection::of_all_tenants()).await.unwrap(), 1);
    cache.flush(request("1@0").tenant()).await.unwrap();
    let graph = Algorithm::Hnsw(Hnsw::default());
    cache.move_index(graph, Duration::from_secs(20), |_| {}).await.unwrap();
    assert!(cache.index().drop_index().await.unwrap());
}

#[test]
fn the_key_table_of_the_readme_is_the_crate_s() {
    assert!(include_str!("../README.md").contains(&markdown(KEYS)));
}

#[test]
fn every_script_says_what_it_takes_and_returns() {
    for (script, first) in [
        (include_str!("../src/scripts/pool.lua"), "#!lua"),
        (include_str!("../src/scripts/report.lua"), "#!lua"),
        (include_str!("../src/scripts/store.lua"), "#!lua"),
    ] {
        let mut lines = script.lines();
        assert_eq!(lines.next(), Some(first), "without it a full server would run the script");
        let header: Vec<&str> = lines.take_while(|line| line.starts_with("--")).collect();
        for word in ["KEYS[1]", "ARGV[1]", "Reply"] {
            assert!(header.iter().any(|line| line.contains(word)), "the header lacks {word}");
        }
    }
}
