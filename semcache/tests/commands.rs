//! What each operation costs the server, counted by the server.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_embcache::{CachedEmbedder, RedisEmbeddingCache};
use inferkit_localredis::{Flavor, Server};
use inferkit_semcache::conformance::Compass;
use inferkit_semcache::{Lookup, RedisSemanticCache, SemanticCache, SemanticCacheExt as _};
use support::{answer, request};

/// What the server counted since the last call, but for the counting itself and the connections' own commands.
async fn spent(driver: &DynDriver) -> BTreeMap<String, u64> {
    let stats: String = driver.query(Cmd::new("INFO").arg("commandstats")).await.unwrap();
    driver.query::<()>(Cmd::new("CONFIG").arg("RESETSTAT")).await.unwrap();
    stats
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_ascii_lowercase(), rest.split(',').next()?.parse().ok()?))
        })
        .filter(|(name, _)| {
            !["info", "config|resetstat", "ping", "hello"].contains(&name.as_str())
                && !name.starts_with("client|")
        })
        .collect()
}

fn counts(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_costs_what_it_says() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let compass = Arc::new(Compass::default());
    let embedder = Arc::<Compass>::clone(&compass);
    let cache = RedisSemanticCache::new(Arc::clone(&driver), embedder, support::config()).unwrap();
    spent(&driver).await;

    assert!(cache.ensure_index().await.unwrap());
    assert_eq!(
        spent(&driver).await,
        counts(&[("ft.aliasadd", 1), ("ft.create", 1), ("ft.info", 1)])
    );
    assert!(!cache.ensure_index().await.unwrap());
    assert_eq!(spent(&driver).await, counts(&[("ft.info", 1)]));

    // The first call makes the server know the script.
    cache.store(&request("5@0"), &answer("yes"), None).await.unwrap();
    cache.lookup(&request("5@0")).await.unwrap();
    spent(&driver).await;
    assert_eq!(compass.embedded(), 1);

    let miss = cache.lookup(&request("1@0")).await.unwrap().into_hit().unwrap_err();
    // One round trip reads entry and epoch, and one searches.
    let search = counts(&[("hmget", 1), ("get", 1), ("ft.search", 1)]);
    assert_eq!(spent(&driver).await, search, "a miss");
    cache.store(&request("1@0"), &answer("yes"), Some(miss)).await.unwrap();
    assert_eq!(compass.embedded(), 2, "the miss's vector was used");
    // One round trip: the others run inside the script.
    let inside = [("evalsha", 1), ("get", 1), ("time", 1), ("del", 1), ("hset", 1), ("pexpire", 2)];
    assert_eq!(spent(&driver).await, counts(&inside), "a store");

    assert!(matches!(cache.lookup(&request("1@0")).await.unwrap(), Lookup::Exact(_)));
    let exact = counts(&[("hmget", 1), ("get", 1)]);
    assert_eq!(spent(&driver).await, exact, "an exact hit");
    assert_eq!(compass.embedded(), 2, "an exact hit embeds nothing");

    assert!(matches!(cache.lookup(&request("1@5")).await.unwrap(), Lookup::Semantic(_)));
    assert_eq!(spent(&driver).await, search, "a semantic hit");
    assert_eq!(compass.embedded(), 3);

    assert!(cache.forget(&request("1@0")).await.unwrap());
    assert_eq!(spent(&driver).await, counts(&[("del", 1)]), "a removal");

    cache.flush(request("1@0").tenant()).await.unwrap();
    assert_eq!(spent(&driver).await, counts(&[("set", 1)]), "a flush, of whatever size");
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_reads_save_the_embedding_cache_s_round_trip() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let config = support::config().with_shared_reads();
    let vectors = RedisEmbeddingCache::new(Arc::clone(&driver), config.namespace.clone());
    let embedder = Arc::new(CachedEmbedder::new(Compass::default(), Arc::new(vectors)));
    let shared = Arc::<CachedEmbedder<Compass>>::clone(&embedder);
    let cache = RedisSemanticCache::new(Arc::clone(&driver), shared, config).unwrap();
    cache.ensure_index().await.unwrap();
    cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
    spent(&driver).await;

    assert!(matches!(cache.lookup(&request("1@5")).await.unwrap(), Lookup::Semantic(_)));
    let unknown = [("hmget", 1), ("get", 2), ("mget", 1), ("set", 1), ("ft.search", 1)];
    assert_eq!(spent(&driver).await, counts(&unknown), "a prompt that was never embedded");
    assert_eq!(embedder.inner().embedded(), 2);

    assert!(matches!(cache.lookup(&request("1@5")).await.unwrap(), Lookup::Semantic(_)));
    let known = [("hmget", 1), ("get", 2), ("ft.search", 1)];
    assert_eq!(spent(&driver).await, counts(&known), "a semantic hit");
    assert_eq!(embedder.inner().embedded(), 2, "the vector came with the first round trip");
    assert_eq!(embedder.stats().hits, 1);

    // What is damaged counts as missing, as it does without sharing.
    let key = Cmd::new("SCAN").arg("0").args(["MATCH", "*emb:v1*", "COUNT", "1000"]);
    let (_, keys): (String, Vec<String>) = driver.query(key).await.unwrap();
    assert_eq!(keys.len(), 2);
    for key in keys {
        driver.query::<()>(Cmd::new("SET").key(key).arg("")).await.unwrap();
    }
    assert!(matches!(cache.lookup(&request("1@5")).await.unwrap(), Lookup::Semantic(_)));
    assert_eq!(embedder.inner().embedded(), 3);
}
